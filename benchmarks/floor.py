"""What nothing can go below here: a uvloop protocol that reads the same streams and does nothing with them.

Its cost is the system's and the event loop's, and differs between machines by more than our own does.
"""

import asyncio
import time
import urllib.parse
from typing import cast

import uvloop

from agentload.null import null_server

BODY = b'{"stream":true,"max_tokens":%d}'
REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: null\r\nX-Request-Id: floor\r\nContent-Length: %d\r\n\r\n%b"


class Reader(asyncio.Protocol):
    """One connection that asks again as soon as it is answered, so many times."""

    def __init__(self, request: bytes, calls: int) -> None:
        self.request, self.left = request, calls
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        if not data.endswith(b"0\r\n\r\n"):
            return
        self.left -= 1
        if self.left:
            self.transport.write(self.request)
        else:
            self.done.set_result(None)


async def read(url: str, streams: int, calls: int, tokens: int, apart: float) -> float:
    """CPU seconds of reading that many calls on each of that many connections, which start so many seconds apart."""
    place, loop, body = urllib.parse.urlsplit(url), asyncio.get_running_loop(), BODY % tokens
    request = REQUEST % (len(body), body)
    before = time.process_time()
    done: list[asyncio.Future[None]] = []
    for _ in range(streams):
        _, reader = await loop.create_connection(lambda: Reader(request, calls), place.hostname, place.port)
        done.append(reader.done)
        await asyncio.sleep(apart)
    await asyncio.gather(*done)
    return time.process_time() - before


def per_token(itl: float, streams: int, calls: int, tokens: int, apart: float = 0.0) -> float:
    """CPU seconds for each token, one token per write. Streams in step, whose tokens come together, wake the process
    once for many of them: they cost half of what streams do that start `apart`."""
    with null_server("--itl", str(itl)) as url:
        return uvloop.run(read(url, streams, calls, tokens, apart)) / (streams * calls * tokens)
