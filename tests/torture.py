"""A server that can do everything to a client that real servers, gateways and networks have been seen to do.

Which script it plays is chosen by the first part of the path, so the base URL of a case is `server.url("name")`. It
runs in its own thread, and its log says when it wrote what, on the clock that `time.perf_counter` reads.
"""

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

Step = bytes | float | str  # bytes to write, seconds to wait, or one of:
RESET, CLOSE, STALL = "reset", "close", "stall"  # RST, FIN, nothing until the client goes

SSE = "text/event-stream; charset=utf-8"
JSON = "application/json"


class Exchange(NamedTuple):
    """One request the server had, and what became of it."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    writes: list[tuple[float, bytes]]  # just before, what
    gone: list[float]  # when the client was seen to have closed

    @property
    def client(self) -> str:
        return "sdk" if "x-stainless-lang" in self.headers else "wire"


class Torture:
    """Plays `scripts` by name. A name that ends in `*` plays one script for each request in turn, the last for good."""

    def __init__(self, scripts: dict[str, Any], tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.scripts = scripts
        self.tls = tls
        self.log: list[Exchange] = []
        self.connections = 0
        self._turns: dict[str, int] = {}
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def url(self, name: str) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self._port}/{name}/v1"

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._accept, "127.0.0.1", self._port, limit=1 << 20, ssl=self.tls)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._answer(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Play one script; say whether the connection goes on."""
        first = await reader.readexactly(1)
        if first == b"\x16":  # a TLS handshake; a plain server tells it so in plain text
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            return False
        head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        path = head[0].split(" ")[1]
        name = path.split("/")[1]
        script: Any = self.scripts[name]
        if name.endswith("*"):
            turn = self._turns[name] = self._turns.get(name, -1) + 1
            script = script[min(turn, len(script) - 1)]
        exchange = Exchange(path, headers, json.loads(body or b"{}"), [], [])
        self.log.append(exchange)
        for step in script:
            if isinstance(step, bytes):
                exchange.writes.append((time.perf_counter(), step))
                writer.write(step)
                await writer.drain()
            elif isinstance(step, float):
                await asyncio.sleep(step)
            elif step == STALL:
                await self._until_gone(reader)
                exchange.gone.append(time.perf_counter())
                return False
            else:
                if step == RESET:
                    raw = writer.get_extra_info("socket")
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return False
        return True

    async def _until_gone(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(1024):
                pass


# Making answers


def head(status: str = "200 OK", kind: str = SSE, *lines: str, version: str = "1.1") -> bytes:
    """Status line and headers. Without lines, the body is chunked."""
    rest = lines or ("Transfer-Encoding: chunked",)
    kinds = (f"Content-Type: {kind}",) if kind else ()
    return "\r\n".join([f"HTTP/{version} {status}", *kinds, *rest, "", ""]).encode()


def sized(status: str, kind: str, body: bytes, *lines: str) -> bytes:
    """A whole answer with its length."""
    return head(status, kind, f"Content-Length: {len(body)}", *lines) + body


def framed(*pieces: bytes) -> list[bytes]:
    """Each piece as one chunk of a chunked body, written on its own."""
    return [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]


END = b"0\r\n\r\n"


def event(data: Any, newline: bytes = b"\n", field: bytes = b"data: ") -> bytes:
    text = data if isinstance(data, bytes) else json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()
    return field + text + newline + newline


DONE = event(b"[DONE]")


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """One chat.completion.chunk, in the shape vLLM sends."""
    choices = [{"index": 0, "delta": delta or {}, "logprobs": None, "finish_reason": finish}]
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1795448493,
        "model": "m",
        "choices": choices,
    } | more


ROLE = chunk({"role": "assistant", "content": ""})
COUNTS = {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15}


def usage(**counts: Any) -> dict[str, Any]:
    return chunk(choices=[], usage=COUNTS | counts)


def tool(index: int | None, id: str | None = None, name: str | None = None, arguments: Any = None) -> dict[str, Any]:
    function = {k: v for k, v in (("name", name), ("arguments", arguments)) if v is not None}
    call = {"index": index, "id": id, "type": "function" if id else None, "function": function}
    return {k: v for k, v in call.items() if v is not None}


def words(*texts: str) -> list[dict[str, Any]]:
    return [chunk({"content": text}) for text in texts]


def stream(*events: Any, end: Iterable[Step] = (END,)) -> list[Step]:
    """A streamed answer: each event in its own chunk and write."""
    return [head(), *framed(*(e if isinstance(e, bytes) else event(e) for e in events)), *end]


def completion(message: dict[str, Any], finish: str | None = "stop", **more: Any) -> bytes:
    """The body of an answer that is not streamed."""
    choice = {"index": 0, "message": {"role": "assistant"} | message, "finish_reason": finish}
    whole = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return json.dumps(whole | {"usage": COUNTS} | more).encode()


def cut(script: Sequence[Step], size: int = 1) -> list[bytes]:
    """The same bytes in writes of that size."""
    whole = b"".join(step for step in script if isinstance(step, bytes))
    return [whole[i : i + size] for i in range(0, len(whole), size)]
