"""From launch to the first request on the wire, and the commands that should answer at once."""

import statistics
import subprocess
import time

from agentload.null import null_server, read_log
from benchmarks.command import COMMAND, fixed, run
from benchmarks.rows import Row


def section(rounds: int = 5) -> list[Row]:
    first, agent = [], []
    with null_server("--ttft", "0.02", "--itl", "0.005") as url:
        for _ in range(rounds):
            before = len(read_log(url))
            ran = run(url, *fixed(4, 0.2, 4))
            log = list(read_log(url).values())[before:]
            first.append(min(line[0] for line in log) - ran.launched)
            agent.append(float(ran.calls.sent.min()) + ran.epoch - ran.launched)
    rows = [
        Row("start", "launch to the first request (calibration)", statistics.median(first), "s", most=1.0),
        Row("start", "launch to the first request of an agent", statistics.median(agent), "s", most=1.0),
    ]
    for flag in ("--version", "--help"):
        rows.append(Row("start", f"agentload {flag}", statistics.median(timed(flag) for _ in range(rounds)), "s", 0.3))
    return rows


def timed(flag: str) -> float:
    start = time.perf_counter()
    subprocess.run([*COMMAND, flag], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start
