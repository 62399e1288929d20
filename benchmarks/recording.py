"""What the recording proxy adds: the same calls to the null server, directly and through it, in turns."""

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import uvloop

from agentload.null import null_server
from agents.chain import Chat, Context, Message
from agents.endpoint import Endpoint, Features, Place
from agents.text import Encoder
from agents.wire import Wire
from benchmarks.rows import Row
from collectors.records import Call

TOKENS, CALLS = 32, 300
SERVED = ("--tokens", str(TOKENS), "--ttft", "0.01", "--itl", "0.002")


@contextmanager
def recorder(upstream: str) -> Iterator[str]:
    """The base URL of a proxy that records meanwhile, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "agentload", "record", "--upstream", upstream, "--port", "0",
                   "-o", str(Path(folder) / "trace.jsonl")]  # fmt: skip
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        try:
            assert process.stderr is not None
            yield process.stderr.readline().split("use ")[1].split()[0]
        finally:
            process.terminate()
            process.communicate()


async def load(urls: list[str], streams: int, prompt: int) -> list[list[Call]]:
    """The records of calls to each URL, taken in turns by so many agents whose prompts grow no more."""
    records: list[list[Call]] = [[] for _ in urls]
    clients = [Wire(Endpoint(url=url, model="null"), Features(), Encoder(), time.perf_counter, "run") for url in urls]

    async def agent(number: int) -> None:
        context = Context([Message("user", prompt, key=number)])
        for step in range(CALLS // streams):
            for client, kept in zip(clients, records, strict=True):
                place = Place(number, "", "fixed", step, 0, time.perf_counter())
                await client.send(Chat(context, TOKENS), place, kept.append)

    await asyncio.gather(*(agent(number) for number in range(streams)))
    for client in clients:
        await client.close()
    return records


def added(streams: int, prompt: int) -> tuple[float, float]:
    """Seconds that the proxy adds to the TTFT and to the whole call, medians."""
    with null_server(*SERVED) as url, recorder(url) as through:
        direct, proxied = uvloop.run(load([url, through], streams, prompt))
    assert {call.status for call in [*direct, *proxied]} == {"ok"}
    first, whole = (
        [np.median([getattr(call, name) - call.sent for call in calls]) for calls in (direct, proxied)]
        for name in ("first", "end")
    )
    return float(first[1] - first[0]), float(whole[1] - whole[0])


def section() -> list[Row]:
    rows = []
    for streams, prompt in ((1, 1_000), (1, 50_000), (8, 1_000)):
        first, whole = added(streams, prompt)
        what = f"{streams} at a time, prompts of {prompt:,} tokens: the proxy adds to the"
        rows.append(Row("record", f"{what} TTFT, p50", 1000 * first, "ms", most=1.0))
        rows.append(Row("record", f"{what} call, p50", 1000 * whole, "ms"))
    return rows
