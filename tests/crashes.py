"""Processes of a run killed at random moments, and what is left of it: `python -m tests.crashes --each 100`.

A trial starts `agentload run` with a box of its own, kills one of its processes (the run, a worker, the master, the
box) at a moment drawn over its whole life, waits for the others to end, and holds what is in the folder against the
box's log. `make crash` is a hundred trials of each kind, and ten thousand calls of each client with faults among them.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import uvloop

from agentload.disk import report
from benchmarks.rows import machine
from collectors.load import load_run
from tests.client_made import CLIENTS
from tests.faults import FAULTS, MOST_GROWN, STEPS, flooded, server, wrong
from tests.fleet_made import HOUSE, logged, recorded, until

AGENTS = 8
SPEC = f"""\
duration = 1.5
drain = 1
profile = {{type = "held", agents = {AGENTS}}}
population = [{{archetype = "fixed"}}]
[archetypes.fixed]
steps = 4
task_tokens = 200
output_tokens = 20
[box]
speed = 5.0
sigma = 0.0
"""
KINDS = {"run": [], "worker": ["--workers", "2"], "master": ["--workers", "2"], "box": []}
"""What is killed, and the flags of the run that it is killed in."""
CHILDREN = {"worker": "agentload.fleet.worker", "box": "agentload.box.serve"}
MARK = "AGENTLOAD_TEST_TRIAL"
PATIENCE = 60.0
"""Seconds that a run gets to end once one of its processes has been killed."""
UNDER_WAY = 2.5
"""Seconds from the agents' first records to the report, about."""
MISSING = 1.0
"""Seconds before a kill: what was answered earlier has a record."""


class Trial(NamedTuple):
    """What was killed and what was left."""

    kind: str
    at: float  # seconds after the start; of the whole life where nothing was killed
    code: int  # of the run: -9 where it was killed itself
    said: str  # its stderr
    folder: Path | None  # None: it was killed before it had one
    calls: int = 0  # with a record
    stated: int = 0  # begun and without a record, as the summary says
    missing: int = 0  # that reached the box and have no record
    age: float = 0.0  # seconds before the kill at which the oldest of the missing had been answered
    wrong: str = ""  # what should not be so; "" is survival


def marked(mark: str) -> list[int]:
    """Processes that descend from a trial."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{MARK}={mark}".encode() in path.read_bytes() and path.with_name("cmdline").read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # it has ended meanwhile
            continue
    return found


def victim(kind: str, run: "subprocess.Popen[str]", mark: str) -> int | None:
    """The process to kill; None where there is none now."""
    if kind in ("run", "master"):
        return run.pid if run.poll() is None else None
    for pid in marked(mark):
        try:
            if CHILDREN[kind].encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        except OSError:
            continue
    return None


def trial(kind: str, at: float | None, out: Path, *, under_way: bool = False) -> Trial:
    """One trial; `at` is seconds after the start, or after agents' first records; None kills nothing."""
    out.mkdir(parents=True)
    mark, log = uuid.uuid4().hex, out / "box.log"
    (out / "spec.toml").write_text(SPEC + f"log = {json.dumps(str(log))}\n")
    arguments = ["run", str(out / "spec.toml"), "--quiet", "--out", str(out / "runs"), *KINDS[kind]]
    began = time.perf_counter()
    with (out / "stderr").open("w+") as said:
        run = subprocess.Popen(
            [sys.executable, "-m", "agentload", *arguments],
            stdout=subprocess.DEVNULL, stderr=said, text=True, cwd=HOUSE, env=os.environ | {MARK: mark},
        )  # fmt: skip
        killed = None
        if at is not None:
            while under_way and run.poll() is None and not written(out):
                time.sleep(0.01)
            killed = strike(kind, run, mark, (time.perf_counter() if under_way else began) + at)
        try:
            code = run.wait(PATIENCE)
            until(lambda: not marked(mark), PATIENCE)
        except (subprocess.TimeoutExpired, AssertionError):
            left = marked(mark)
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            run.wait()
            return Trial(kind, at or 0.0, 0, "", None, wrong=f"{len(left)} processes did not end")
        said.seek(0)
        lines = said.read()
    life = (killed or time.perf_counter()) - began
    folder = next((out / "runs").glob("*/"), None)
    if folder is None or not (folder / "run.json").exists():
        return Trial(kind, life, code, lines, None, wrong=blame(kind, code, lines))
    return judged(Trial(kind, life, code, lines, folder, wrong=blame(kind, code, lines)), log, killed)


def written(out: Path, least: int = 6_000) -> Path | None:
    """The folder of a run in which there are so many bytes of calls; those of calibration are half of that."""
    return next((file.parent for file in out.glob("runs/*/calls.arrows") if file.stat().st_size >= least), None)


def strike(kind: str, run: "subprocess.Popen[str]", mark: str, when: float) -> float | None:
    """Kill the victim at that instant, or as soon as it is there; when, or None where the run ended before."""
    time.sleep(max(0.0, when - time.perf_counter()))
    while run.poll() is None:
        pid = victim(kind, run, mark)
        if pid is not None:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            return time.perf_counter()
        time.sleep(0.01)
    return None


def blame(kind: str, code: int, said: str) -> str:
    """What is wrong with how the run ended."""
    allowed = {"run": (-9, 0), "master": (-9, 0)}.get(kind, (0, 1, 2))  # 0: it was over when its turn came
    if code not in allowed:
        return f"exit code {code}: {said[-300:]}"
    return f"a traceback: {said[-300:]}" if "Traceback" in said else ""


def judged(result: Trial, log: Path, killed: float | None) -> Trial:
    """The same with what the folder holds, against what the box had."""
    assert result.folder is not None
    _, summary = report(result.folder)
    run = load_run(result.folder)
    had = logged(log, run) if log.exists() else []
    have, seen = recorded(run), Counter(line["id"] for line in had)
    stated, calls = summary["run"]["calls_unrecorded"], sum(have.values())
    lost = [line for line in had if line["id"] not in have]
    known = calls + stated + int(run.calls.resent.sum())  # one that was sent again in silence is there twice
    ends = [line["last_write"] for line in lost if line["status"] == "ok" and line["last_write"]]
    age = max([killed - min(ends), 0.0]) if killed and ends else 0.0
    wrong = [
        (max(have.values(), default=1) > 1, "a record is there twice"),
        (seen.total() > known, f"the box had {seen.total()} calls, {known} are known, unlike {seen - have}"),
        (
            result.kind != "box" and stated > seen.total() - calls + 2 * AGENTS,
            f"{stated} calls are said to be missing, not so many are",
        ),
        (age > MISSING, f"a call answered {age:.2f} s before the kill has no record"),
        (result.kind == "box" and stated > 0, f"{stated} calls are said to be missing of a run that ended by itself"),
        (held(run.header["endpoint"]["url"]), "the box's port is still held"),
    ]
    said = "; ".join(text for broken, text in wrong if broken)
    return result._replace(
        calls=calls,
        stated=stated,
        missing=max(0, seen.total() - calls),
        age=age,
        wrong="; ".join(filter(None, (result.wrong, said))),
    )


def held(url: str) -> bool:
    """Whether something listens there."""
    host, port = url.split("/")[2].rsplit(":", 1)
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def trials(kind: str, count: int, seed: int, out: Path) -> list[Trial]:
    """That many trials of a kind: half at moments spread evenly over a run's life, half while it is under way."""
    whole = trial(kind, None, out / f"{kind}-whole")
    if whole.wrong or whole.code:
        raise RuntimeError(f"a run in which nothing was killed failed: {whole}")
    rng, made = np.random.default_rng([seed, len(kind)]), []
    for i, share in enumerate(rng.permutation(count)):
        under_way = bool(share % 2)
        at = (share + rng.uniform()) / count * (UNDER_WAY if under_way else whole.at)
        made.append(trial(kind, at, out / f"{kind}-{i}", under_way=under_way))
        if made[-1].wrong:
            print(f"{kind} at {at:.2f} s: {made[-1].wrong}", file=sys.stderr, flush=True)  # noqa: T201
    return made


def row(kind: str, made: list[Trial]) -> dict[str, Any]:
    """The figures of one kind."""
    there = [t for t in made if t.folder is not None]
    return {
        "killed": kind,
        "trials": len(made),
        "survived": sum(not t.wrong for t in made),
        "with a folder": len(there),
        "calls recorded": sum(t.calls for t in there),
        "reached the box, no record": sum(t.missing for t in there),
        "stated as missing": sum(t.stated for t in there),
        "oldest missing answer, s": round(max((t.age for t in there), default=0.0), 2),
    }


PAGE = """\
# Killed, refused, failed: the figures

Made by `make crash` (`python -m tests.crashes --page docs/crashes.md`); do not edit. What is promised is in
[limits](limits.md).

## Processes killed at random moments

`kill -9` of the run, of one of two workers, of their master, of the box; half of the moments are spread over the whole
life of a run, start and report included, half lie in its busy part. A trial is survived when the others end by
themselves, no port stays held, nothing is a traceback, `agentload report` reads the folder, no record is there twice,
every call that the box had is recorded or counted as missing, and no call answered more than {missing:g} s before the
kill is without its record. On {cores} cores ({processor}), Python {python}.

{killed}

The oldest missing answer is how long before the kill it had been answered. Trials without a folder were killed before
they had one; of a box that dies, the run goes on and records that nobody answers.

## Faults under load

Sessions of {steps} calls, a fifth of them against an endpoint that fails in one of {faults} ways each time; two
attempts a call. Survived is: calls begun are calls ended, and sessions likewise; no task, call or connection is left;
memory grows by less than {grown:g} MB in the second half.

{flooded}
"""


def page(rows: list[dict[str, Any]], floods: list[dict[str, Any]], where: dict[str, Any]) -> str:
    """The figures as a page."""
    shown = [
        {
            "client": flood["client"],
            "calls begun": flood["begun"],
            "ended": sum(flood["statuses"].values()),
            "answered": flood["statuses"]["ok"],
            "statuses": len(flood["statuses"]),
            "sessions": flood["sessions"],
            "faults": flood["met"],
            "tasks, calls, files left": flood["tasks"] + flood["in_flight"] + flood["files"],
            "memory, MB": round(flood["grown_bytes"] / 1e6, 2),
            "survived": "no: " + flood["wrong"] if flood["wrong"] else "yes",
        }
        for flood in floods
    ]
    known = {key: where[key] for key in ("cores", "processor", "python")}
    tables = {"killed": table(rows), "flooded": table(shown)}
    return PAGE.format(**known, **tables, missing=MISSING, steps=STEPS, faults=len(FAULTS), grown=MOST_GROWN / 1e6)


def table(rows: list[dict[str, Any]]) -> str:
    """Rows with the same keys as Markdown."""
    lines = [
        list(rows[0]),
        ["---"] * len(rows[0]),
        *([f"{x:,}" if isinstance(x, int) else str(x) for x in row.values()] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--each", type=int, default=100, help="trials of each kind")
    options.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    options.add_argument("--calls", type=int, default=10_000, help="calls of each client, a fifth meeting faults")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--page", type=Path, help="write the figures there, as a page")
    given = options.parse_args()
    rows, floods = [], []
    for kind in given.kinds:
        with tempfile.TemporaryDirectory() as out:
            rows.append(row(kind, trials(kind, given.each, given.seed, Path(out))))
        print(json.dumps(rows[-1]), flush=True)  # noqa: T201
    for client in CLIENTS:
        with server() as url:
            found = uvloop.run(flooded(client, url, given.calls))
        floods.append({"client": client} | found._asdict() | {"wrong": wrong(found)})
        print(json.dumps(floods[-1]), flush=True)  # noqa: T201
    if given.page is not None:
        given.page.write_text(page(rows, floods, machine()))
    return int(any(row["survived"] < row["trials"] for row in rows) or any(flood["wrong"] for flood in floods))


if __name__ == "__main__":
    sys.exit(main())
