"""What a call and a streamed token cost the client in CPU: wire and sdk in turn, against the null server.

The figures of one run on one machine can be compared with each other, those of two runs hardly: read the ratio.
"""

import asyncio
import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import uvloop

from agentload.null import null_server
from agents.chain import Chat, Context, Message
from agents.endpoint import Client, Endpoint, Features, Place
from agents.sdk import Sdk
from agents.text import Encoder
from agents.wire import Wire
from benchmarks import floor
from benchmarks.rows import Row
from collectors.records import Call

CLIENTS: dict[str, Callable[..., Client]] = {"wire": Wire, "sdk": Sdk}
TOKENS = 64


async def load(client: Client, streams: int, calls: int) -> tuple[float, list[Call]]:
    """CPU seconds and records of that many calls, one after the other in each of that many streams."""
    records: list[Call] = []

    async def agent(session: int) -> None:
        for step in range(calls):
            chat = Chat(Context([Message("user", 7, text="Say hello to the world, please.")]), TOKENS)
            place = Place(session, "", "fixed", step, 0, time.perf_counter())
            await client.send(chat, place, records.append)

    await asyncio.gather(*(agent(i) for i in range(streams)))  # connections and caches: not counted
    records.clear()
    gc.collect()
    gc.freeze()
    before = time.process_time()
    await asyncio.gather(*(agent(i) for i in range(streams)))
    spent = time.process_time() - before
    gc.unfreeze()
    bad = [call for call in records if call.status != "ok" or call.output_tokens != TOKENS]
    if bad:
        raise RuntimeError(f"{len(bad)} of {len(records)} calls went wrong: {bad[0]}")
    return spent, records


def measure(name: str, url: str, streams: int, calls: int) -> tuple[float, float]:
    """Seconds of CPU for a call, and network reads that carried a token, for a call."""

    async def run() -> tuple[float, list[Call]]:
        client = CLIENTS[name](Endpoint(url=url, model="null"), Features(), Encoder(), time.perf_counter, "bench")
        try:
            return await load(client, streams, calls)
        finally:
            await client.close()

    spent, records = uvloop.run(run())
    return spent / len(records), statistics.fmean(call.chunks for call in records)


def compare(mode: str, options: list[str], streams: int, calls: dict[str, int], rounds: int) -> dict[str, Any]:
    """Both clients in turn; the medians of their rounds and the ratio of those."""
    with null_server("--tokens", str(TOKENS), *options) as url:
        costs: dict[str, list[float]] = {name: [] for name in CLIENTS}
        reads: dict[str, float] = {}
        for _ in range(rounds):
            for name in CLIENTS:
                cost, reads[name] = measure(name, url, streams, calls[name])
                costs[name].append(cost)
    medians = {name: statistics.median(found) for name, found in costs.items()}
    found: dict[str, Any] = {"mode": mode, "streams": streams, "ratio": medians["wire"] / medians["sdk"]}
    for name, median in medians.items():
        found[name] = {
            "ms_per_call": median * 1e3,
            "us_per_token": median / TOKENS * 1e6,
            "reads_per_call": reads[name],
        }
    return found


def section(rounds: int = 3, streams: int = 32) -> list[Row]:
    modes = [
        compare("spaced", ["--itl", "0.01"], streams, {"wire": 4, "sdk": 2}, rounds),
        compare("coalesced", ["--coalesced"], streams, {"wire": 40, "sdk": 4}, rounds),
    ]
    bare = statistics.median(floor.per_token(0.01, streams, 4, TOKENS) for _ in range(rounds))
    rows = [Row("client, spaced", "a protocol that only reads, CPU per token", 1e6 * bare, "µs")]
    for found in modes:
        name = f"client, {found['mode']}"
        for client in CLIENTS:
            note = f"{found[client]['ms_per_call']:.3g} ms a call, {found[client]['reads_per_call']:.1f} reads"
            rows.append(Row(name, f"{client}, CPU per token", found[client]["us_per_token"], "µs", note=note))
        rows.append(Row(name, "wire's share of sdk's", 100 * found["ratio"], "%", most=10))
    return rows
