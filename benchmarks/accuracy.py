"""How far what is recorded lies from when the null server says it wrote it, by number of streams."""

import asyncio
import gc
import time
from typing import Any

import numpy as np
import uvloop
from numpy.typing import NDArray

from agentload.null import null_server, read_log
from agents.chain import Chat, Context, Message
from agents.endpoint import Endpoint, Features, Place
from agents.text import Encoder
from agents.wire import Wire
from benchmarks.command import Ran, fixed, run
from benchmarks.rows import Row
from collectors.records import Call

TTFT, ITL, TOKENS = 0.2, 0.02, 64
SERVED = ("--tokens", str(TOKENS), "--ttft", str(TTFT), "--itl", str(ITL))
ANSWER = TTFT + (TOKENS - 1) * ITL
"""Seconds from a request to its last token."""


async def load(url: str, streams: int, seconds: float, prompt: int) -> list[Call]:
    """The records of that many streams that call again at once, their starts spread over the first answer's length."""
    records: list[Call] = []
    wire = Wire(Endpoint(url=url, model="null"), Features(), Encoder(), time.perf_counter, "run")
    end = time.perf_counter() + seconds + ANSWER

    async def agent(session: int) -> None:
        context = Context([Message("user", prompt, key=session)])
        await asyncio.sleep(ANSWER * session / streams)
        step = 0
        while time.perf_counter() < end:
            place = Place(session, "", "fixed", step, 0, time.perf_counter())
            await wire.send(Chat(context, TOKENS), place, records.append)
            step += 1

    await asyncio.gather(*(agent(i) for i in range(streams)))
    await wire.close()
    return records


def measure(streams: int, seconds: float, prompt: int) -> dict[str, Any]:
    """The wire client by itself: errors in seconds of the first and last token of every call, and what it cost."""
    with null_server(*SERVED) as url:
        gc.collect()
        gc.freeze()
        start, cpu = time.perf_counter(), time.process_time()
        records = uvloop.run(load(url, streams, seconds, prompt))
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        gc.unfreeze()
        log = read_log(url)
    written = [log[f"run-{r.session}-{r.step}-0"] for r in records]
    first = np.array([r.first - t[1] for r, t in zip(records, written, strict=True) if r.first is not None])
    last = np.array([r.last - t[2] for r, t in zip(records, written, strict=True) if r.last is not None])
    ttft = np.array([r.first - r.sent for r in records if r.first is not None])
    return {
        "streams": streams,
        "prompt_tokens": prompt,
        "calls": len(records),
        "answered": sum(r.status == "ok" for r in records),
        "first_error_ms": {f"p{q}": float(np.percentile(first, q)) * 1e3 for q in (0, 50, 99)},
        "last_error_ms": {f"p{q}": float(np.percentile(last, q)) * 1e3 for q in (0, 50, 99)},
        "ttft_ms": {f"p{q}": float(np.percentile(ttft, q)) * 1e3 for q in (50, 99)},
        "cpu_share": cpu / wall,
        "us_per_token": cpu / len(records) / TOKENS * 1e6,
    }


def calls_per_second(ran: Ran, streams: int) -> float:
    """What a closed loop of one-call sessions achieved: each seat's calls over the time it was held."""
    calls = ran.calls
    seat = calls.session % streams
    starts: NDArray[np.float64] = np.full(streams, np.inf)
    ends: NDArray[np.float64] = np.zeros(streams)
    np.minimum.at(starts, seat, calls.due)
    np.maximum.at(ends, seat, calls.end)
    return float(len(ran.answered) / np.mean(ends - starts))


def section(streams: tuple[int, ...] = (100, 500, 2000), seconds: float = 10.0) -> list[Row]:
    rows = []
    for n in streams:
        with null_server(*SERVED) as url:
            ran = run(url, *fixed(n, seconds, TOKENS))
            truth = ran.truth(url)
        calls, ideal = ran.answered, n / ANSWER
        recorded, true = calls.first - calls.sent, truth[:, 1] - truth[:, 0]
        p50, p99 = (1e3 * float(np.percentile(recorded, q) - np.percentile(true, q)) for q in (50, 99))
        error = 1e3 * (calls.first - truth[:, 1])
        achieved = calls_per_second(ran, n)
        verdict = ran.summary["verdict"]
        judged = n == 500 and verdict["trustworthy"]  # where the machine was the limit, the verdict must say so instead
        note = f"verdict: {'trustworthy' if verdict['trustworthy'] else '; '.join(verdict['reasons'])}"
        name = f"{n:,} streams"
        rows += [
            Row(name, "TTFT p50, recorded less true", p50, "ms", most=2 if judged else None, note=note),
            Row(name, "TTFT p99, recorded less true", p99, "ms", most=15 if judged else None),
            Row(name, "first token seen after it was written, p99", float(np.percentile(error, 99)), "ms"),
            Row(name, f"calls/s, of {ideal:.0f} ideal", achieved, "", least=0.95 * ideal if judged else None),
            Row(name, "CPU of the whole process per token", ran.cpu / ran.tokens * 1e6, "µs"),
        ]
    return rows
