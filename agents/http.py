"""HTTP/1.1 as the wire client speaks it: one connection, and one exchange of a request for an answer on it.

llhttp (`httptools`) does the framing; what it finds goes to an `Answer`. A network read is stamped and kept.
It is looked into when all reads of the event loop's turn are stamped, and in the middle of a stream only once some have
gathered. So a burst, in which the tokens of a hundred streams come together, is stamped before any of it is decoded;
and what has gathered is mostly known without being decoded at all (`agents.frame`).
"""

import asyncio
import math
import zlib
from collections.abc import Callable
from typing import Any, cast

import httptools

from agents.answer import Answer
from agents.frame import Frame, frame_of, whole_chunk
from agents.limits import MAX_BODY, MAX_ERROR_BODY, MAX_HEADERS
from agents.sse import Events
from agents.trouble import Trouble, error_text, retry_after

DRAIN = 0.1
"""Seconds to wait for the end of the body after `[DONE]`, so that the connection can be used again, as the SDK does."""


HELD = 32
"""Reads that are kept before they are looked into. Memory for each stream, against what a look costs."""

HOLDABLE = b"}\n\n\r\n"
"""The end of a read in the middle of a stream: an event's JSON, its blank line, the end of a chunk. `[DONE]`, the last
chunk and whatever is cut anywhere else end otherwise."""
TELLING = 20
"""Bytes of a longer end, learned from a stream, that none of its error events will have by chance."""


class Exchange:
    """One request and its answer. `done` ends when nothing more is to come."""

    __slots__ = (
        "_body",
        "_events",
        "_frame",
        "_inflate",
        "_size",
        "_status",
        "answer",
        "done",
        "end",
        "stale",
        "stream",
    )

    def __init__(self, answer: Answer, stream: bool, done: "asyncio.Future[None]") -> None:
        self.answer = answer
        self.stream = stream
        self.done = done
        self.end: float | None = None
        self.stale = False  # the connection was gone before a byte of the answer
        self._status = ""  # what an answer that cannot be good will be called, once its body is read
        self._events = Events()
        self._frame: Frame | None = None
        self._body = bytearray()
        self._inflate: "zlib._Decompress | None" = None  # noqa: UP037 a name for type checkers only
        self._size = 0

    @property
    def flowing(self) -> bool:
        """Whether tokens come that nobody counts, and nothing is wrong so far."""
        answer = self.answer
        uncounted = answer.hang_up is None or answer.hang_up.tokens == math.inf
        return self.stream and answer.last is not None and not answer.over and self._inflate is None and uncounted

    @property
    def usual(self) -> bytes | tuple[()]:
        """How reads end that are like those before, and no error does; an empty tuple, if that is not known."""
        after = self._frame.after if self._frame is not None else b""
        return after if len(after) > TELLING else ()

    def begin(self, code: int, headers: dict[str, str]) -> None:
        """The status line and the headers (lower-case names) have come."""
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if encoding in ("gzip", "x-gzip", "deflate"):
            self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
        elif encoding != "identity":
            self.answer.fail("bad_reply", f"content-encoding {encoding!r}, though identity was asked for")
        if not 200 <= code < 300:
            self._status = f"http_{code}"
            self.answer.retry_after = retry_after(headers)
        elif (self.stream and kind not in ("text/event-stream", "")) or (not self.stream and "json" not in kind):
            self._status = "bad_reply"
            wanted = "text/event-stream" if self.stream else "application/json"
            self.answer.error = f"wanted {wanted}, got {kind or 'no content type'}"

    def take(self, piece: bytes, t: float) -> None:
        """A piece of the body that came at `t`."""
        if self.answer.over:
            return
        if self._inflate is not None:
            piece = self._unpack(self._inflate, piece)
        self._size += len(piece)
        if self._status:
            self._body += piece[: MAX_ERROR_BODY - len(self._body)]
            if len(self._body) >= MAX_ERROR_BODY:
                self._refused()
        elif self._size > MAX_BODY:
            self.answer.fail("bad_reply", f"the body has more than {MAX_BODY} bytes")
        elif self.stream:
            self._take_events(piece, t)
        else:
            self._body += piece

    def skim(self, reads: list[bytes], times: list[float]) -> int:
        """Take in reads without decoding them, as far as they are like those before (`agents.frame`); how many are."""
        if self._size > MAX_BODY or not self._events.clean:
            return 0
        frame = self._frame
        texts = frame.texts(reads) if frame is not None else []
        if not texts and len(reads) >= HELD:  # no more than once for so many reads: to learn is as much as to decode
            self._frame = frame = frame_of(reads[0], type(self.answer)) or frame
            texts = frame.texts(reads) if frame is not None else []
        if frame is not None and texts:
            self._size += sum(map(len, reads[: len(texts)]))
            self.answer.flow(texts, times[: len(texts)], frame.reasoning)
        return len(texts)

    def _take_events(self, piece: bytes, t: float) -> None:
        answer = self.answer
        try:
            for data in self._events.feed(piece):
                answer.event(data, t)
                if answer.over:
                    return
        except ValueError as error:  # an event that is too large
            answer.fail("bad_reply", str(error))

    def _unpack(self, inflate: "zlib._Decompress", piece: bytes) -> bytes:
        try:
            return inflate.decompress(piece, (MAX_ERROR_BODY if self._status else MAX_BODY) + 1)
        except zlib.error as error:
            self.answer.fail("bad_reply", f"broken content-encoding: {error}")
            return b""

    def _refused(self) -> None:
        """The body of an answer that cannot be good is read: say what it says."""
        answer = self.answer
        said = error_text(bytes(self._body))
        answer.fail(self._status, f"{answer.error}: {said}" if answer.error and said else answer.error or said)

    def complete(self, t: float) -> None:
        """The body has ended as HTTP says it must."""
        if self._status:
            self._refused()
        elif not self.stream:
            self.answer.body(bytes(self._body), t)
        self.answer.over = True

    def broke(self, trouble: Trouble) -> None:
        """The connection went away in the middle."""
        if self._status:
            self._refused()
        else:
            self.answer.broke(trouble)

    def fail(self, status: str, error: str, t: float) -> None:
        """We give up. What the server said by its status code counts more than the limit it hit afterwards."""
        if self._status:
            self._refused()
        else:
            self.answer.fail(status, error)
        self.finish(t)

    def finish(self, t: float) -> None:
        if not self.done.done():
            self.end = t if self.end is None else self.end
            self.done.set_result(None)


class Connection(asyncio.Protocol):
    """One connection, kept alive between exchanges. `lost` is told when it is gone.

    Of a hundred streams, none is in the processor's caches when a read comes for it: what `data_received` touches of
    one costs more than what it does. Hence the slots, and one list for reads and their times.
    """

    __slots__ = ("_begun", "_between", "_boundary", "_code", "_complete", "_extra", "_headers", "_holds", "_keep",
                 "_kept", "_loop", "_lost", "_now", "_parser", "_pieces", "_reads", "_usual", "exchange", "reused",
                 "transport")  # fmt: skip

    def __init__(self, now: Callable[[], float], lost: "Callable[[Connection], None]") -> None:
        self.transport: asyncio.Transport | None = None
        self.exchange: Exchange | None = None
        self.reused = False
        self._now = now
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._kept: list[Any] = []  # of each read not looked into yet, when it came, and the read
        self._clear()

    def _clear(self) -> None:
        """Before an answer."""
        self._headers: dict[str, str] = {}
        self._code = 0  # 0 until the headers have ended
        self._begun = False
        self._complete = False
        self._keep = False
        self._extra = False  # something follows the whole answer
        self._pieces: list[bytes] = []
        self._holds = False  # reads may be held: the first token is there, and chunks end where reads do
        self._usual: bytes | tuple[()] = ()  # how most of those end, once that is known
        self._between = False  # llhttp's last word was the end of a chunk, or of the headers of a chunked body
        self._boundary = False  # and nothing came after it
        self._reads = 0  # bytes since there was content

    @property
    def usable(self) -> bool:
        """Whether another request may be sent on it."""
        idle = self.exchange is None and not self._kept
        return idle and self.transport is not None and not self.transport.is_closing()

    def start(self, exchange: Exchange, buffers: list[bytes]) -> None:
        """Send a request, whose answer goes to that exchange."""
        assert self.transport is not None
        self._clear()
        self.exchange = exchange
        if len(buffers) < 8:
            self.transport.write(b"".join(buffers))
        else:
            self.transport.writelines(buffers)
        exchange.answer.sent = self._now()

    def settle(self) -> None:
        """Look into what was held."""
        times, held = self._kept[::2], self._kept[1::2]
        self._kept.clear()
        try:
            while held:
                taken = self._take(held, times)
                held, times = held[taken:], times[taken:]
        except BaseException as error:  # our own bug: raised where somebody sees it
            if self.exchange is not None and not self.exchange.done.done():
                self.exchange.done.set_exception(error)
            raise

    def _take(self, reads: list[bytes], times: list[float]) -> int:
        """Look into the first of some reads, at least; how many it was."""
        exchange = self.exchange
        if exchange is not None and self._boundary and exchange.flowing and (taken := exchange.skim(reads, times)):
            self._holds, self._usual = True, exchange.usual
            return taken
        self._received(reads[0], times[0])
        return 1

    def release(self) -> bool:
        """End the exchange; say whether the connection may be used again. It is closed where it may not."""
        self.settle()
        self.exchange = None
        if self._keep and not self._extra and self.usable:
            self.reused = True
            return True
        self.abort()
        return False

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(0)  # uvloop then writes at once instead of at the end of its iteration

    def data_received(self, data: bytes) -> None:
        kept = self._kept
        kept.append(self._now())
        kept.append(data)
        if len(kept) < 2 * HELD and (
            data.endswith(self._usual) or (self._holds and data.endswith(HOLDABLE) and data.find(b'"error"') < 0)
        ):
            return
        self._loop.call_soon(self.settle)

    def eof_received(self) -> None:
        self.settle()
        exchange = self.exchange
        if exchange is not None and not self._complete:
            self._ended(exchange, Trouble("truncated", "the connection was closed in the middle of the answer"))

    def connection_lost(self, error: Exception | None) -> None:
        self.settle()
        self.transport = None
        self._lost(self)
        exchange, self.exchange = self.exchange, None
        if exchange is None or exchange.done.done():
            return
        if error is not None and not isinstance(error, OSError):
            exchange.done.set_exception(error)  # our own bug, raised where somebody sees it
            return
        self._ended(exchange, Trouble("reset", str(error or "the connection was closed")))

    # httptools: nothing is decided in these, so that nothing can go wrong inside the parser

    def on_message_begin(self) -> None:
        self._extra = self._complete

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._extra:
            self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        code = self._parser.get_status_code()
        if self._extra:
            return
        if code < 200:
            self._headers.clear()  # 100 Continue and its like: the answer is still to come
        else:
            self._code = code
            self._between = True

    def on_chunk_header(self) -> None:
        self._between = False

    def on_body(self, body: bytes) -> None:
        if not self._extra:
            self._pieces.append(body)

    def on_chunk_complete(self) -> None:
        self._between = True

    def on_message_complete(self) -> None:
        self._between = False
        if self._code and not self._complete:
            self._complete = True
            self._keep = self._parser.should_keep_alive()

    # What it means

    def _received(self, data: bytes, t: float) -> None:
        """A read, and when it came."""
        exchange = self.exchange
        if exchange is None:
            self.abort()  # nobody asked (a 408 on an idle connection, say)
            return
        piece = whole_chunk(data) if self._boundary else None
        if not piece:
            self._parse(exchange, data, t)
        else:
            exchange.take(piece, t)
            if exchange.answer.over:
                self._over(exchange, t)
        self._holds, self._usual = self._boundary and exchange.flowing, ()

    def _parse(self, exchange: Exchange, data: bytes, t: float) -> None:
        answer = exchange.answer
        if answer.opened is None:
            answer.opened = t
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            raise  # our own bug
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._extra = True
            if not self._complete:
                self._broken(exchange, f"not HTTP: {error}", t)
                return
        self._reads += len(data)
        if not self._begun:
            if self._code:
                self._begun = True
                exchange.begin(self._code, self._headers)
            elif self._reads > MAX_HEADERS:
                self._broken(exchange, f"headers of more than {MAX_HEADERS} bytes", t)
            if not self._begun:
                return
        if self._pieces:
            exchange.take(self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces), t)
            self._pieces.clear()
            self._reads = 0
        chunked = "transfer-encoding" in self._headers
        self._boundary = chunked and self._between and data.endswith(b"\r\n")
        if self._complete:
            if not answer.over:
                exchange.complete(t)
            exchange.finish(t)
        elif answer.over:
            self._over(exchange, t)
        elif self._reads > MAX_HEADERS:
            self._broken(exchange, f"more than {MAX_HEADERS} bytes without any content", t)

    def _over(self, exchange: Exchange, t: float) -> None:
        """Nothing that still comes matters; after a good answer the end of the body is worth a short wait."""
        if exchange.end is not None:
            return
        exchange.end = t
        if exchange.answer.status:
            exchange.finish(t)
        else:
            exchange.done.get_loop().call_later(DRAIN, exchange.finish, t)

    def _broken(self, exchange: Exchange, error: str, t: float) -> None:
        exchange.fail("bad_reply", error, t)
        self.abort()

    def _ended(self, exchange: Exchange, trouble: Trouble) -> None:
        """The server has closed, or the connection broke."""
        t = self._now()
        answer = exchange.answer
        if answer.opened is None:
            exchange.stale = self.reused
            trouble = Trouble("reset", trouble.error)
        self._boundary = False
        if answer.over or exchange.done.done():
            pass
        elif self._code and not {"content-length", "transfer-encoding"} & self._headers.keys():
            if trouble.status == "truncated":
                exchange.complete(t)  # HTTP/1.0: the end of the connection is the end of the body
            else:
                exchange.broke(trouble)
        else:
            exchange.broke(trouble)
        exchange.finish(t)
