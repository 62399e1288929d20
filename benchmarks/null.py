"""A chat-completions server that thinks nothing: prebuilt bytes at set times, and a log of when they were written.

It answers every POST the same way, so that what is left to measure is the client. Tokens are written one by one, each
at its own deadline, or all at once (`--coalesced`). `GET /log` gives, for each X-Request-Id, when the first and last
token were written, on the clock that `time.perf_counter` reads; `GET /reset` empties it.
"""

import argparse
import asyncio
import json
import re
import time
from functools import partial
from typing import cast

import uvloop

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
IDENTITY = re.compile(rb"\r\nx-request-id: *([^\r]*)", re.IGNORECASE)


def chunk(delta: dict[str, str] | None, finish: str | None = None, **more: object) -> bytes:
    """One event as vLLM writes it, in one chunk of the chunked body."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish, "token_ids": None}
    data = {
        "id": "chatcmpl-b373a5e413144ae1",
        "object": "chat.completion.chunk",
        "created": 1795448493,
        "model": "null",
        "choices": [] if delta is None else [choice],
    } | more
    event = b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


class Null:
    """What the server does, what it did, and the bytes it does it with."""

    def __init__(self, tokens: int, ttft: float, itl: float, coalesced: bool) -> None:
        self.ttft, self.itl, self.coalesced = ttft, itl, coalesced
        usage = {"prompt_tokens": 100, "completion_tokens": tokens, "total_tokens": 100 + tokens}
        role = chunk({"role": "assistant", "content": ""})
        words = [chunk({"content": f" word{i}"}) for i in range(tokens)]
        end = chunk({}, "length") + chunk(None, usage=usage) + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
        self.writes = [HEAD + role + words[0], *words[1:-1], words[-1] + end] if tokens > 1 else [HEAD + words[0] + end]
        if coalesced:
            self.writes = [b"".join(self.writes)]
        self.log: dict[str, list[float]] = {}

    def report(self) -> bytes:
        body = json.dumps(self.log).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body


class Peer(asyncio.Protocol):
    """One connection."""

    def __init__(self, null: Null) -> None:
        self._null = null
        self._head = b""
        self._left = 0
        self._in_body = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(0)  # uvloop then writes at once
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        if not self._in_body:
            data = self._head + data
            i = data.find(b"\r\n\r\n")
            if i < 0:
                self._head = data
                return
            self._head, data = data[: i + 2], data[i + 4 :]
            length = LENGTH.search(self._head)
            self._left = int(length[1]) if length else 0
            self._in_body = True
        self._left -= len(data)
        if self._left <= 0:
            self._in_body = False
            self._answer(self._head)
            self._head = b""

    def _answer(self, head: bytes) -> None:
        null = self._null
        if head.startswith(b"GET "):
            if head.startswith(b"GET /reset"):
                null.log.clear()
            self._transport.write(null.report())
            return
        identity = IDENTITY.search(head)
        name = identity[1].decode() if identity else ""
        self._write(0, self._loop.time() + null.ttft, name)

    def _write(self, i: int, due: float, name: str) -> None:
        """Write piece i at its deadline and set the next."""
        null = self._null
        if self._transport.is_closing():
            return
        if self._loop.time() < due:
            self._loop.call_at(due, partial(self._write, i, due, name))
            return
        t = time.perf_counter()
        self._transport.write(null.writes[i])
        if i == 0:
            null.log[name] = [t, t]
        if i + 1 == len(null.writes):
            null.log[name][1] = t
        else:
            self._loop.call_at(due + null.itl, partial(self._write, i + 1, due + null.itl, name))


async def serve(null: Null, port: int) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Peer(null), "127.0.0.1", port, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--port", type=int, default=0, help="0 takes a free one, which is printed")
    options.add_argument("--tokens", type=int, default=64)
    options.add_argument("--ttft", type=float, default=0.0, help="seconds")
    options.add_argument("--itl", type=float, default=0.0, help="seconds")
    options.add_argument("--coalesced", action="store_true", help="the whole answer in one write")
    given = options.parse_args()
    uvloop.run(serve(Null(given.tokens, given.ttft, given.itl, given.coalesced), given.port))


if __name__ == "__main__":
    main()
