"""A long run on the box at high speed: `python -m benchmarks.soak` fails where anything grows.

The run itself is in this process, so that its tasks can be counted, and everything it does is what `agentload run`
does: chains of calls, records on disk, Parquet, summary and report at the end. The box is a process of its own. Every
few seconds a row of what is used is written to `soak.csv` beside the run folder.

What may not grow, and by how much, is `LIMITS`; the slope is Theil and Sen's (the median of the slopes between all
pairs of samples: a few bad moments do not move it), over the samples after the first fifth of the run.
"""

import argparse
import asyncio
import csv
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import uvloop
from msgspec import structs
from scipy.stats import theilslopes

from agentload.box.options import BoxOptions
from agentload.box.serve import BoxProcess
from agentload.commands import resolve
from agentload.realtime import run
from agentload.screen import Samples, Watch
from agentload.spec import Spec
from benchmarks.drawing import Line, picture, stack
from benchmarks.memory import resident
from benchmarks.rows import Row, machine, to_markdown
from collectors.load import load_run
from collectors.metrics import agents_calls
from collectors.report import write_report

WARM_UP = 0.2
"""Share of the run that no slope looks at."""

AGENTS = 48

SPEC = f"""\
drain = 10
profile = {{type = "held", agents = {AGENTS}, stagger = 1.0}}
population = [{{archetype = "fixed"}}]
[archetypes.fixed]
steps = 5
task_tokens = 20
output_tokens = 2
"""
"""Sessions of five short calls: as many calls a second as the box can answer."""

BOX = BoxOptions(speed=1_000.0, sigma=0.0, kv_tokens=65_536)
"""With a cache so small that it is full, and evicts, before the warm-up has ended."""


class Sample(NamedTuple):
    """What was in use at one moment."""

    seconds: float  # since the beginning
    calls: int  # so far
    run_bytes: int  # resident memory of the run's process
    box_bytes: int  # and of the box's
    run_files: int  # open files
    box_files: int
    tasks: int  # on the run's loop
    threads: int
    send_lag_p99: float  # seconds, of the calls since the sample before


class Limit(NamedTuple):
    """How much of something the slope may add between warm-up and end."""

    what: str
    of: Callable[[Sample], float]
    most: Callable[[Sequence[float]], float]  # of the samples after warm-up
    unit: str
    says: str


LIMITS = [
    Limit("memory of the run", lambda s: s.run_bytes / 1e6, lambda _: 8.0, "MB", "≤ 8 MB"),
    Limit("memory of the box", lambda s: s.box_bytes / 1e6, lambda _: 8.0, "MB", "≤ 8 MB"),
    Limit("open files of the run", lambda s: s.run_files, lambda _: 1.0, "", "≤ 1"),
    Limit("open files of the box", lambda s: s.box_files, lambda _: 1.0, "", "≤ 1"),
    Limit("tasks", lambda s: s.tasks, lambda _: 1.0, "", "≤ 1"),
    Limit("threads", lambda s: s.threads, lambda _: 1.0, "", "≤ 1"),
    Limit(
        "p99 of send lag", lambda s: 1e3 * s.send_lag_p99, lambda y: float(np.median(y)) / 2, "ms", "≤ half its median"
    ),
]


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


class Window:
    """The p99 of what was added to a sketch since it was last asked."""

    def __init__(self, samples: Samples) -> None:
        self.samples, self.seen = samples, samples.sketch.counts.copy()

    def p99(self) -> float:
        self.samples.drain()
        now = Samples()
        now.sketch.counts = self.samples.sketch.counts - self.seen
        self.seen = self.samples.sketch.counts.copy()
        return now.sketch.quantile(0.99)


async def observed(spec: Spec, out: Path, watch: Watch, box: int, every: float) -> tuple[Path, list[Sample]]:
    """The run, and what it used meanwhile."""
    running = asyncio.create_task(run(spec, out, watch))
    lag, samples, me, began = Window(watch.send_lag), list[Sample](), os.getpid(), time.perf_counter()
    with (out / "soak.csv").open("w") as file:
        rows = csv.writer(file)
        rows.writerow(Sample._fields)
        while not running.done():
            await asyncio.wait({running}, timeout=every)
            if not running.done() and watch.calls:
                seconds, p99 = time.perf_counter() - began, lag.p99()
                tasks, threads = len(asyncio.all_tasks()), threading.active_count()
                used = resident(me), resident(box), open_files(me), open_files(box)
                samples.append(Sample(seconds, watch.calls, *used, tasks, threads, p99))
                rows.writerow(samples[-1])
                file.flush()
    folder, _ = running.result()
    return folder, samples


def grown(samples: list[Sample], limit: Limit) -> Row:
    """What the slope of one thing adds between warm-up and end."""
    seconds, values = np.array([s.seconds for s in samples]), np.array([limit.of(s) for s in samples])
    added = float(theilslopes(values, seconds).slope * (seconds[-1] - seconds[0]))
    most = limit.most(values)
    note = f"{limit.says}; from {values[0]:,.4g} to {values[-1]:,.4g}, largest {values.max():,.4g}"
    return Row("added by the slope", limit.what, added, limit.unit, most=most, note=note)


def soak(seconds: float, calls: int, out: Path, every: float) -> tuple[list[Row], list[Sample]]:
    """Run, look at the samples, at what was recorded and at what is left; the figures with their limits."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "soak.toml").write_text(SPEC)
    spec = resolve(
        out / "soak.toml", {"duration": seconds, "sessions": calls}
    )  # five times as many, if it were so fast
    watch, me = Watch(), os.getpid()
    uvloop.run(tasks_left())  # the first loop opens a pipe that stays
    with BoxProcess(BOX) as url:
        (box,) = map(int, Path(f"/proc/self/task/{me}/children").read_text().split())
        spec = structs.replace(spec, endpoint=structs.replace(spec.endpoint, url=url))
        files = open_files(me)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            folder, samples = runner.run(observed(spec, out, watch, box, every))
            left = runner.run(tasks_left())
        files = open_files(me) - files
    began = time.perf_counter()
    page, peak = write_report(folder), max(s.run_bytes for s in samples)
    reported = time.perf_counter() - began
    steady = [s for s in samples if s.seconds >= WARM_UP * samples[-1].seconds]
    length = samples[-1].seconds
    rows = [
        Row("the run", "calls", float(watch.calls), "", least=calls),
        Row("the run", "length", length / 60, "min"),
        Row("the run", "calls a second", watch.calls / length, ""),
        Row("the run", "calls not answered", float(watch.failed), "", most=0),
        Row(
            "the run",
            "calls without a record",
            float(watch.calls - len(agents_calls(load_run(folder).calls))),
            "",
            most=0,
        ),
        Row("the run", "peak memory while it ran", peak / 1e6, "MB"),
        *(grown(steady, limit) for limit in LIMITS),
        Row("afterwards", "tasks left", float(left), "", most=0),
        Row("afterwards", "open files left", float(files), "", most=0),
        Row("afterwards", f"time for the report ({page.stat().st_size / 1e6:.1f} MB)", reported, "s", most=120),
    ]
    return rows, samples


async def tasks_left() -> int:
    return len(asyncio.all_tasks()) - 1


def draw(path: Path, samples: list[Sample]) -> None:
    """Four charts below each other."""
    minutes = [s.seconds / 60 for s in samples]
    rates = [(b.calls - a.calls) / (b.seconds - a.seconds) for a, b in itertools.pairwise(samples)]

    def line(name: str, values: Iterable[float]) -> Line:
        return Line(name, minutes, list(values))

    memory = [line("run", (s.run_bytes / 1e6 for s in samples)), line("box", (s.box_bytes / 1e6 for s in samples))]
    things = [
        line("files, run", (s.run_files for s in samples)),
        line("files, box", (s.box_files for s in samples)),
        line("tasks", (s.tasks for s in samples)),
        line("threads", (s.threads for s in samples)),
    ]
    stack(
        path,
        [
            picture("Resident memory", "minutes", "MB", memory),
            picture("Open files, tasks, threads", "minutes", "count", things),
            picture(
                "Send lag, p99 of each window", "minutes", "ms", [line("p99", (1e3 * s.send_lag_p99 for s in samples))]
            ),
            picture("Calls a second", "minutes", "calls/s", [Line("calls/s", minutes[1:], rates)]),
        ],
    )


PAGE = """\
# A long run: does anything grow?

Made by `make soak` (`python -m benchmarks.soak --page docs`); do not edit.

{agents} agents in sessions of five short calls, against the box at {speed:,.0f} times its speed, on {cores} cores
({processor}, Python {python}; load of the machine when it began: {load:.1f}). A row of what is used every {every:g} s.
The slope is Theil and Sen's over the samples after the first fifth; `make soak` fails when what it adds until the end
is more than the table allows.

{table}

![Memory, open files, tasks, threads, send lag and calls a second over the run](soak.svg)
"""


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=1_800.0)
    options.add_argument("--calls", type=int, default=2_000_000, help="fewer than so many fail")
    options.add_argument("--every", type=float, default=5.0, help="seconds between two samples")
    options.add_argument("--out", type=Path, default=Path("runs/soak"))
    options.add_argument("--page", type=Path, help="write soak.md and soak.svg in this folder, too")
    given = options.parse_args()
    where = machine()
    rows, samples = soak(given.seconds, given.calls, given.out, given.every)
    table = to_markdown(rows)
    print(table)
    draw(given.out / "soak.svg", samples)
    if given.page is not None:
        draw(given.page / "soak.svg", samples)
        known = {key: where[key] for key in ("cores", "processor", "python", "load")}
        text = PAGE.format(**known, agents=AGENTS, speed=BOX.speed, every=given.every, table=table)
        (given.page / "soak.md").write_text(text)
    missed = [row for row in rows if row.met is False]
    for row in missed:
        print(f"missed: {row.what}: {row.value:,.4g} {row.unit}, {row.target()}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
