"""How many tokens the served box streams on one core, and whether it keeps up with its own clock while it does."""

import asyncio
import json
import os
import urllib.request
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import uvloop
from prometheus_client.parser import text_string_to_metric_families

from agentload.box.options import BoxOptions, Habits
from agentload.box.serve import BoxProcess
from benchmarks.rows import Row

REPLICAS, SEATS, TOKENS = 4, 256, 600
"""1,024 streams, each given a token every 22 ms by the default preset: 46,000 tokens a second."""


class Drain(asyncio.Protocol):
    """Asks once, and counts what comes until the body ends."""

    def __init__(self, request: bytes) -> None:
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._request = request
        self._tokens = 0
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.WriteTransport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        if self.done.done():
            return
        if not self._tail and not data.startswith(b"HTTP/1.1 200"):
            self.done.set_exception(ConnectionError(f"the box refused: {data.decode(errors='replace')}"))
            return
        self._tokens += data.count(b'"content":"')
        self._tail = (self._tail + data)[-16:]
        if self._tail.endswith(b"0\r\n\r\n"):
            self.done.set_result(self._tokens - 1)  # one is the role's

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("the box hung up"))


async def load(url: str, streams: int) -> int:
    """Tokens that so many streams got."""
    place = urlsplit(url)
    body = json.dumps({"messages": [{"role": "user", "content": "go on"}], "stream": True, "max_tokens": TOKENS,
                       "ignore_eos": True}).encode()  # fmt: skip
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {place.netloc}\r\ncontent-length: {len(body)}\r\n\r\n"
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(lambda: Drain(head.encode() + body), place.hostname, place.port)
        for _ in range(streams)
    ]
    tokens = await asyncio.gather(*(drain.done for _, drain in made))
    for transport, _ in made:
        transport.close()
    return sum(tokens)


def cpu(pid: int) -> float:
    """Seconds of CPU that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def lag(url: str) -> tuple[float, float]:
    """Steps that wrote tokens, and those of them that were late."""
    page = urllib.request.urlopen(url.removesuffix("/v1") + "/metrics").read().decode()  # noqa: S310  # our own box
    families = {family.name: family.samples[0].value for family in text_string_to_metric_families(page)}
    return families["agentload:write_lag_steps"], families["agentload:behind_steps"]


def section() -> list[Row]:
    options = BoxOptions(replicas=REPLICAS, seats=SEATS, sigma=0.0, habits=Habits(reasoning=0.0))
    box = BoxProcess(options)
    with box as url:
        assert box.pid is not None
        before = cpu(box.pid)
        tokens = uvloop.run(load(url, REPLICAS * SEATS))
        spent = cpu(box.pid) - before
        steps, late = lag(url)
    name, note = f"{REPLICAS * SEATS:,} streams from the box", "CPU of the box; requests and their texts are in it"
    return [
        Row(name, "streamed tokens for a second of CPU", tokens / spent, "", least=40_000, note=note),
        Row(
            name, "steps written more than 20 ms late", 100 * late / steps, "%", note="of them all; the machine's load"
        ),
    ]
