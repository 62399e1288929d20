"""How far what `agentload run` records lies from when the box says it wrote it, with 100 agents in flight."""

import json
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agentload.box.options import BoxOptions
from agentload.box.serve import BoxProcess
from benchmarks.command import Ran, fixed, run
from benchmarks.rows import Row

AGENTS = 100


def errors(ran: Ran, log: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Seconds between the box's first and last write of every answer and what was recorded of them."""
    wrote = {line["id"]: line for line in map(json.loads, log.read_text().splitlines())}
    calls = ran.answered
    names = zip(calls.session.tolist(), calls.step.tolist(), calls.attempt.tolist(), strict=True)
    lines = [wrote[f"{ran.run_id}-{session}-{step}-{attempt}"] for session, step, attempt in names]
    first, last = (np.array([line[name] for line in lines]) - ran.epoch for name in ("first_write", "last_write"))
    return calls.first - first, calls.last - last


def section(rounds: int = 3, seconds: float = 8.0) -> list[Row]:
    """Agents whose calls keep step with each other, the hardest case: the box writes to all of them at once."""
    found, notes = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "box.log"
            with BoxProcess(BoxOptions(log=str(log))) as url:
                ran = run(url, *fixed(AGENTS, seconds, 200, 500), model="box")
            found.append([1e3 * np.percentile(error, q) for error in errors(ran, log) for q in (50, 99)])
            notes += ran.summary["verdict"]["reasons"]
    p50_first, p99_first, p50_last, p99_last = np.median(found, axis=0).tolist()
    name, note = f"{AGENTS} agents on the box", "; ".join(dict.fromkeys(notes)) or "verdict: trustworthy"
    return [
        Row(name, "first token off the box's log, p50", p50_first, "ms", note=note),
        Row(name, "first token off the box's log, p99", p99_first, "ms", most=2),
        Row(name, "end of stream off the box's log, p50", p50_last, "ms"),
        Row(name, "end of stream off the box's log, p99", p99_last, "ms", most=2),
    ]
