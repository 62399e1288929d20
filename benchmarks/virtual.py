"""`agentload simulate` as a process: what a call costs in virtual time, and what the whole command takes.

Two loads, both larger than one machine could drive in real time: the built-in archetypes mixed, with their long
sessions and sub-agents, and an archetype as a person would write it for agents of their own, arriving open loop.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.command import COMMAND
from benchmarks.rows import Row

LOADS = {
    "coder, chat, support, researcher": (
        26.5,  # calls of a session, sub-agents' included, on average
        """
seed = 1
salt = 1
sessions = {sessions}
profile = {{ type = "held", agents = 1000, stagger = 60 }}
population = [
    {{ archetype = "coder" }}, {{ archetype = "chat" }}, {{ archetype = "support" }}, {{ archetype = "researcher" }},
]
box = {{ replicas = 64, router = "prefix" }}
""",
    ),
    "own agents, 20 a second": (
        12.0,
        """
seed = 1
salt = 1
sessions = {sessions}
profile = {{ type = "poisson", rate = 20 }}
population = [{{ archetype = "ours" }}]
box = {{ replicas = 100, router = "least_outstanding" }}

[archetypes.ours]
base = "fixed"
system_tokens = 3000
task_tokens = {{ type = "lognormal", median = 800, sigma = 0.8 }}
steps = {{ type = "geometric", mean = 12, high = 60 }}
growth_tokens = {{ type = "lognormal", median = 700, sigma = 0.8, high = 10000 }}
output_tokens = {{ type = "lognormal", median = 150, sigma = 0.7, high = 4000 }}
tool_calls = 1
tools = [{{ name = "search", seconds = {{ type = "lognormal", median = 1.0, sigma = 1.0, high = 60 }} }}]
""",
    ),
}


class Simulated(NamedTuple):
    """A simulation that has ended. Seconds are of CPU."""

    calls: int
    seconds: float  # of the simulation, records on disk
    whole: float  # of the process, start and report included
    peak_bytes: int  # resident memory


def simulate(spec: str) -> Simulated:
    """Run the command on that spec to its end. Raises RuntimeError where it fails."""
    with tempfile.TemporaryDirectory() as out:
        path = Path(out) / "spec.toml"
        path.write_text(spec)
        command = [*COMMAND, "simulate", str(path), "--quiet", "--out", out]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"agentload simulate ended with exit code {process.returncode}")
        folder = next(path.parent for path in Path(out).glob("*/run.json"))
        header: Mapping[str, Any] = json.loads((folder / "run.json").read_text())
        summary = json.loads((folder / "summary.json").read_text())
    return Simulated(
        calls=summary["run"]["calls"],
        seconds=header["health"]["simulation_cpu_seconds"],
        whole=used.ru_utime + used.ru_stime,
        peak_bytes=used.ru_maxrss * 1024,
    )


def section(calls: int) -> list[Row]:
    """Each load with about that many calls; targets are those for a million, in proportion."""
    rows = []
    for name, (each, spec) in LOADS.items():
        ran = simulate(spec.format(sessions=round(calls / each)))
        rows += [
            Row(name, f"simulated calls per CPU second, of {ran.calls:,}", ran.calls / ran.seconds, "/s", least=16_667),
            Row(name, "CPU per simulated call", 1e6 * ran.seconds / ran.calls, "µs", most=60),
            Row(name, "CPU of the whole command, start and report included", ran.whole, "s"),
            Row(name, "peak memory, report included", ran.peak_bytes / 1e6, "MB", most=2_000),
        ]
    return rows
