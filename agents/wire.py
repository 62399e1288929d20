"""The wire client: the same requests as the openai SDK's, sent as our own bytes over our own connections.

It exists because a load tester's own cost is an error in its figures. What it cannot reach (`needs_sdk`), `agents.sdk`
can. Connections are kept alive and the one used last is used first; there are as many as there are calls in flight.
"""

import asyncio
from collections.abc import Callable

from agents.answer import Answer
from agents.chain import Chat, Context, Reply
from agents.endpoint import Emit, Endpoint, Features, Place
from agents.http import Connection, Exchange
from agents.request import Request, needs_sdk
from agents.text import Encoder
from agents.trouble import shorten, unconnected

__all__ = ["Wire", "needs_sdk"]

LARGE = 20_000
"""Tokens of new messages beyond which they are encoded in a thread: about a millisecond, which other streams would
feel as send lag."""


class Wire:
    """A client (`agents.endpoint.Client`) for one endpoint. `now` is the run clock; `itl` keeps every gap."""

    def __init__(
        self,
        endpoint: Endpoint,
        features: Features,
        encoder: Encoder,
        now: Callable[[], float],
        run_id: str,
        *,
        itl: bool = False,
    ) -> None:
        self._request = Request(endpoint, features, encoder, run_id)
        self._limits = endpoint.timeouts
        self._stream = endpoint.stream
        self._encoder = encoder
        self._now = now
        self._itl = itl
        self._open: set[Connection] = set()
        self._idle: dict[Connection, None] = {}  # by time of last use
        self._closed: asyncio.Event | None = None
        self._head = head(self._request)

    async def send(self, chat: Chat, place: Place, emit: Emit) -> Reply:
        """One attempt at one call; see `agents.endpoint.Client`."""
        answer = self._request.api.answer()
        answer.hang_up = chat.hang_up
        end: float | None = None
        try:
            end = await self._ask(chat, place, answer)
        except asyncio.CancelledError:
            answer.fail("cancelled")
            self._emit(answer, place, chat, self._now(), emit)
            raise
        return self._emit(answer, place, chat, end, emit)

    async def close(self) -> None:
        """Close every connection."""
        for connection in list(self._open):
            connection.abort()
        if self._open:
            self._closed = asyncio.Event()
            await self._closed.wait()

    def _emit(self, answer: Answer, place: Place, chat: Chat, end: float, emit: Emit) -> Reply:
        if answer.error:
            answer.error = self._request.conceal(shorten(answer.error))
        answer.conceal(self._request.conceal)
        call, reply = answer.finish(place, chat, end, lambda: self._request.prompt_tokens(chat), self._itl)
        emit(call)
        return reply

    async def _ask(self, chat: Chat, place: Place, answer: Answer) -> float:
        """Send the request and wait for the whole answer; say when it ended."""
        context = chat.context
        if sum(message.tokens for message in context.messages[len(context.encoded) :]) > LARGE:
            await asyncio.to_thread(self._messages, context)
        buffers = self._bytes(chat, place)
        while True:
            connection = await self._connection(answer)
            if connection is None:
                return self._now()
            exchange = await self._exchange(connection, buffers, answer)
            if not exchange.stale:
                return self._now() if exchange.end is None else exchange.end
            # The server closed a kept-alive connection as we used it. It has answered nothing: ask again, once, on a
            # new one, as every HTTP client does; the record counts it.
            answer.resent += 1
            answer.restart()

    async def _exchange(self, connection: Connection, buffers: list[bytes], answer: Answer) -> Exchange:
        loop = asyncio.get_running_loop()
        exchange = Exchange(answer, self._stream, loop.create_future())
        connection.start(exchange, buffers)
        watch = Watch(connection, exchange, self)
        try:
            await exchange.done
        finally:
            watch.stop()
            if connection.release():
                self._idle[connection] = None
        return exchange

    async def _connection(self, answer: Answer) -> Connection | None:
        """An idle connection, or a new one; None where there is none to be had, and the answer knows why."""
        while self._idle and not answer.resent:
            connection, _ = self._idle.popitem()
            if connection.usable:
                return connection
        url = self._request.url
        start = self._now()
        try:
            async with asyncio.timeout(self._limits.connect):
                _, connection = await asyncio.get_running_loop().create_connection(
                    self._new, url.host, url.port, ssl=self._request.tls
                )
        except TimeoutError:
            answer.fail("timeout_connect", f"no connection within {self._limits.connect:g} s")
            return None
        except (OSError, UnicodeError) as error:
            answer.fail("connect_failed", unconnected(error))
            return None
        finally:
            answer.connect += self._now() - start
        # Not earlier: a task that is cancelled while it connects never gets here, and uvloop then closes the socket
        # without telling the protocol.
        if connection.transport is not None and not connection.transport.is_closing():
            self._open.add(connection)
        return connection

    def _new(self) -> Connection:
        return Connection(self._now, self._lost)

    def _lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._idle.pop(connection, None)
        if self._closed is not None and not self._open:
            self._closed.set()

    def _bytes(self, chat: Chat, place: Place) -> list[bytes]:
        """The request as a list of buffers. Of the conversation, only what is new since the last step is encoded."""
        head = self._request.head(chat)
        messages = self._messages(chat.context)
        after = self._request.api.after
        length = len(head) + sum(map(len, messages)) + len(after)
        first = b"%b%b\r\nContent-Length: %d\r\n\r\n" % (
            self._head,
            "\r\n".join(f"{name}: {value}" for name, value in self._request.names(place).items()).encode(),
            length,
        )
        return [first, head, *messages, after]

    def _messages(self, context: Context) -> list[bytes]:
        """The conversation's messages as JSON, each but the first with what stands between two before it."""
        encoded, api = context.encoded, self._request.api
        for message in context.messages[len(encoded) :]:
            new = self._encoder.encode(message, api.write)
            encoded.append(api.between + new if encoded else new)
        return encoded


class Watch:
    """The time limits of one exchange, in one timer that is set again only when it fires."""

    __slots__ = ("_client", "_connection", "_exchange", "_timer")

    def __init__(self, connection: Connection, exchange: Exchange, client: Wire) -> None:
        self._connection = connection
        self._exchange = exchange
        self._client = client
        self._look()

    def _look(self) -> None:
        exchange = self._exchange
        self._connection.settle()
        now = self._client._now()
        status, wait = exchange.answer.overdue(now, self._client._limits, exchange.stream)
        if status:
            exchange.fail(status, "", now)
        else:
            self._timer = exchange.done.get_loop().call_later(wait, self._look)

    def stop(self) -> None:
        self._timer.cancel()


def head(request: Request) -> bytes:
    """The part of the HTTP head that all requests share."""
    lines = [f"POST {request.url.path} HTTP/1.1", f"Host: {request.url.authority}"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    if not any(name.lower() == "accept-encoding" for name in request.headers):
        lines.append("Accept-Encoding: identity")
    return "\r\n".join([*lines, ""]).encode()
