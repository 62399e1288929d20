"""Many agents in one process, and many calls: what they take of its memory, and whether it grows."""

import time
from pathlib import Path

import numpy as np

from agentload.null import null_server
from benchmarks.command import fixed, run, running
from benchmarks.rows import Row

TOKENS_PER_SECOND = 3_000
"""Streamed to all agents together, however many they are."""

BUDGETS = {10: None, 100: None, 1_000: 400.0, 10_000: 1_000.0}  # agents: MB


def agents() -> list[Row]:
    """The same stream of tokens shared by more and more agents, each in a call of its own all the time."""
    rows = []
    for count, budget in BUDGETS.items():
        gap = count / TOKENS_PER_SECOND
        with null_server("--ttft", str(max(0.2, gap)), "--itl", str(gap)) as url:
            ran = run(url, *fixed(count, 6, 2 if count > 1000 else 16))
        calls = ran.calls
        lag = 1e3 * float(np.percentile(calls.sent - calls.due - calls.connect, 99))
        name = f"{count:,} agents"
        rows += [
            Row(name, "peak memory", ran.peak_bytes / 1e6, "MB", most=budget),
            Row(name, "p99 send lag, all started at once", lag, "ms"),
            Row(name, "calls not answered", float(len(calls) - len(ran.answered)), "", most=0),
        ]
    return rows


def soak(calls: int) -> list[Row]:
    """That many calls: how much memory the second half added."""
    sizes: list[int] = []
    with null_server("--coalesced") as url:
        flags = [*fixed(64, 86_400, 16), "--sessions", str(calls)]
        with running(url, flags) as (process, _, _):
            while process.poll() is None:
                sizes.append(resident(process.pid))
                time.sleep(0.2)
    used = np.array([size for size in sizes if size])
    used = used[len(used) // 10 : -max(5, len(used) // 10)]  # start-up before, the report after
    half = len(used) // 2
    growth = (np.median(used[-half // 4 :]) - np.median(used[half : half + half // 4 + 1])) / (calls * 0.5)
    return [
        Row("soak", f"memory added per call, second half of {calls:,} calls", float(growth), "B", most=16),
        Row("soak", "peak memory", float(max(sizes)) / 1e6, "MB"),
    ]


def resident(pid: int) -> int:
    """Bytes of memory a process has; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except (OSError, IndexError):
        return 0
