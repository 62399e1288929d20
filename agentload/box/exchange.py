"""One request being answered: what will be said, how its tokens leave, and what goes wrong with it on purpose."""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct

from agentload.box.model import Script
from agentload.box.protocol import usage
from agentload.box.request import DONE, Request

Pieces = Iterator[tuple[bytes, bool]]
"""For each token, what goes to the socket, framing included, and whether any of it can be seen."""


class Answered(Struct):
    """A line of the access log. Instants are time.monotonic(), which all processes of a machine share."""

    id: str  # the client's x-request-id
    received: float
    prompt_tokens: int
    cached: int
    output_tokens: int
    status: str
    first_write: float | None  # with a token in it, not just the role; None where nothing was streamed
    last_write: float | None
    writes: list[float]


class Exchange:
    """A request on its way through the cluster. `done` is set to whether it was answered in full."""

    __slots__ = ("_break", "_end", "_held", "_pieces", "_stall", "_transport", "at", "came", "done", "fault", "first",
                 "first_at", "id", "most", "parse", "received", "request", "script", "writes")  # fmt: skip

    def __init__(self, identity: str, script: Script, request: Request, received: float) -> None:
        self.id = identity
        self.received = received  # time.monotonic()
        self.most = 0  # tokens it may be answered with
        self.script = script
        self.request = request
        self.parse: tuple[str, str, str] | None = None  # what it counts as in `agentload.box.metrics.PARSED`
        self.done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.fault = ""
        self.first: float | None = None  # time.monotonic() of the first write with a token in it
        self.writes: list[float] = []  # and of every write
        self.came = 0.0  # when it came, its first token did and its last so far, on the cluster's clock
        self.first_at = 0.0
        self.at = 0.0
        self._transport: asyncio.WriteTransport | None = None
        self._stall = 0.0
        self._held: list[bytes] | None = None  # what waits while the stream stands still

    def stream(
        self, pieces: Pieces, end: Callable[[], bytes], broken: Callable[[], bytes], transport: asyncio.WriteTransport
    ) -> None:
        """Send each token as it comes, instead of all at the end."""
        self._pieces, self._end, self._break, self._transport = pieces, end, broken, transport

    def meet(self, fault: str, stall: float) -> None:
        """A fault that it will meet half way; a stall lasts so many seconds of the wall."""
        self.fault, self._stall = fault, stall

    def usage(self) -> dict[str, Any]:
        request = self.request
        return usage(request.prompt, request.cached, request.generated, self.script.reasoning_tokens)

    def token(self, at: float) -> None:
        """The next token is there, at `at` on the cluster's clock; or the replica died, and none will come."""
        request, transport = self.request, self._transport
        last = request.state == DONE
        if last and request.generated < request.output:
            self._finish(False)
            return
        self.at = at
        if self.fault and request.generated == request.output // 2 + 1 and self._fail():
            return
        if transport is not None and not transport.is_closing():
            data, visible = next(self._pieces)
            if last:
                data += self._end()
            if data:
                self._write(data, visible)
        if last and self._held is None:
            self._finish(True)

    def _write(self, data: bytes, visible: bool) -> None:
        transport = self._transport
        assert transport is not None
        if self._held is not None:
            self._held.append(data)
            return
        now = time.monotonic()
        transport.write(data)
        self.writes.append(now)
        if visible and self.first is None:
            self.first = now

    def _fail(self) -> bool:
        """Meet the fault, half way; True where that is the end."""
        transport = self._transport
        if self.fault == "stall":
            self._held = []
            self.done.get_loop().call_later(self._stall, self._go_on)
            return False
        if self.fault not in ("reset", "broken"):
            return False
        if self.fault == "broken" and transport is not None and not transport.is_closing():
            transport.write(self._break())
            self.fault = "broke"
        self._finish(False)
        return True

    def _go_on(self) -> None:
        held, self._held = self._held, None
        transport = self._transport
        if held and transport is not None and not transport.is_closing():
            self._write(b"".join(held), True)
        if self.request.state == DONE:
            self._finish(True)

    def _finish(self, whole: bool) -> None:
        if not self.done.done():
            self.done.set_result(whole)
