"""What this machine can measure: runs of rising load against the null server, which knows when it wrote each token.

A run here is a whole one (chains, records, files), in this process; the server is a process beside it. Two ladders are
climbed: more streams at one token every 20 ms each, and a faster server for a few streams. Other work on the machine
only ever makes a rung look worse, so one that fails is tried once more and the better try counts.
"""

import asyncio
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from agentload.null import null_server, read_log
from agentload.realtime import run
from agentload.screen import Watch
from agentload.spec import decode
from collectors.load import load_run
from collectors.metrics import agents_calls

CLOSE, NEAR = 0.001, 0.005
"""Seconds of TTFT error, p99, up to which figures are as good as the truth, and good enough for most."""
FULL = 0.95
"""Share of a core from which the process counts as out of CPU: its load cannot be kept up any more."""

TTFT, ITL, TOKENS = 0.1, 0.02, 32
RAMP, LENGTH = 0.8, 2.2
"""Seconds over which the streams start, and of the whole rung. Calls due in the ramp are not counted."""
FIRST_STREAMS, FEW_STREAMS = 50, 50
SLOWEST, FASTEST = 0.01, 0.0003  # gaps of the second ladder


class Rung(Struct, frozen=True):
    """One load, and how true its record was. Times are seconds."""

    streams: int
    itl: float
    tokens_per_second: float  # achieved
    calls: int  # that were compared
    error_p50: float  # from when the first token was written to when it was recorded
    error_p99: float
    server_late_p99: float  # the null server's own lateness: if large, the machine has no core to spare for it
    cpu_share: float  # of one core

    def within(self, error: float) -> bool:
        return self.calls > 0 and self.error_p99 <= error

    @property
    def full(self) -> bool:
        return self.cpu_share >= FULL


def check_self(seconds: float = 50.0, show: Callable[[Rung], None] | None = None) -> dict[str, Any]:
    """Climb both ladders, within about that many seconds; what was found, as plain values."""
    import uvloop

    end = time.monotonic() + seconds
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        def climb(loads: Iterator[tuple[int, float]], until: float) -> list[Rung]:
            rungs: list[Rung] = []
            for streams, itl in loads:
                rung = stand(runner, streams, itl)
                if not rung.within(CLOSE) and not rung.full and time.monotonic() < until:
                    rung = min(rung, stand(runner, streams, itl), key=lambda each: each.error_p99)
                rungs.append(rung)
                if show is not None:
                    show(rung)
                if (rung.full and not rung.within(NEAR)) or not rung.calls or time.monotonic() > until:
                    break
            return rungs

        streams = climb(more_streams(), end - 0.4 * seconds)
        faster = climb(faster_tokens(), end - 4)
    everything = streams + faster
    close = [rung for rung in everything if rung.within(CLOSE)]
    return {
        "streams": limits(streams, lambda rung: rung.streams),
        "tokens_per_second": limits(everything, lambda rung: rung.tokens_per_second),
        "cores": len(os.sched_getaffinity(0)),
        "rungs": [msgspec.to_builtins(rung) for rung in everything],
        "advice": advice(streams, close),
    }


def more_streams() -> Iterator[tuple[int, float]]:
    """Half as many again each time."""
    streams = float(FIRST_STREAMS)
    while True:
        yield round(streams), ITL
        streams *= 1.6


def faster_tokens() -> Iterator[tuple[int, float]]:
    itl = SLOWEST
    while itl > FASTEST:
        yield FEW_STREAMS, itl
        itl /= 2


def stand(runner: asyncio.Runner, streams: int, itl: float) -> Rung:
    """One rung: a run of that load, held against the server's log."""
    tokens = max(TOKENS, round(0.6 / itl))  # calls of a little less than a second
    with tempfile.TemporaryDirectory() as out, null_server("--ttft", str(TTFT), "--itl", str(itl)) as url:
        spec = decode(
            {
                "duration": LENGTH,
                "drain": 0,
                "profile": {"type": "held", "agents": streams, "stagger": RAMP},
                "population": [{"archetype": "fixed"}],
                "archetypes": {"fixed": {"task_tokens": 100, "output_tokens": tokens, "steps": 1}},
                "endpoint": {"url": url, "model": "null"},
            }
        )
        folder, _ = runner.run(run(spec, Path(out), Watch()))
        log, recorded = read_log(url), load_run(folder)
    health, clock = recorded.header["health"], recorded.header["clock_anchor"]["monotonic"]
    calls = agents_calls(recorded.calls)
    spent = float(recorded.header["duration"])
    rate = float(calls.chunks.sum()) / max(spent - RAMP / 2, 1e-9)
    calls = calls.where((calls.due >= RAMP) & ~np.isnan(calls.first))
    names = zip(calls.session.tolist(), calls.step.tolist(), strict=True)
    truth = np.array([log[f"{recorded.header['run_id']}-{s}-{step}-0"] for s, step in names]).reshape(-1, 3)
    errors = calls.first - (truth[:, 1] - clock)
    late = truth[:, 1] - truth[:, 0] - TTFT

    def quantile(values: Any, q: float) -> float:
        return float(np.percentile(values, q)) if len(values) else math.inf

    share = float(health["cpu_share"] or 0.0)
    return Rung(streams, itl, rate, len(calls), quantile(errors, 50), quantile(errors, 99), quantile(late, 99), share)


def limits(rungs: list[Rung], of: Callable[[Rung], float]) -> dict[str, float | None]:
    """The highest load that stayed within each error, and the lowest at which the CPU was full (None: not reached)."""
    full = [of(rung) for rung in rungs if rung.full]
    return {
        "within_1ms": max((of(rung) for rung in rungs if rung.within(CLOSE)), default=None),
        "within_5ms": max((of(rung) for rung in rungs if rung.within(NEAR)), default=None),
        "cpu_full": min(full, default=None),
    }


def advice(streams: list[Rung], close: list[Rung]) -> str:
    """The one sentence to remember."""
    if not close:
        return "this machine: no load was recorded within 1 ms of the truth; something else is using it"
    most = max((rung.streams for rung in streams if rung.within(CLOSE)), default=FEW_STREAMS)
    rate = max(rung.tokens_per_second for rung in close)
    return f"this machine: up to {most:,} streams, {rate:,.0f} tokens/s per process with TTFT within 1 ms of the truth"


def to_text(found: dict[str, Any]) -> str:
    """The ladders as a table, and the sentence below it."""
    rungs = [msgspec.convert(plain, Rung) for plain in found["rungs"]]
    lines = ["streams   a token every   tokens/s   TTFT error p50      p99   server late p99   CPU of a core"]
    lines += [
        f"{r.streams:7,}   {r.itl * 1e3:10.3g} ms   {r.tokens_per_second:8,.0f}   {r.error_p50 * 1e3:11.2f} ms"
        f"   {r.error_p99 * 1e3:6.2f} ms   {r.server_late_p99 * 1e3:12.2f} ms   {r.cpu_share:12.0%}"
        for r in rungs
    ]
    return "\n".join([*lines, "", found["advice"]])
