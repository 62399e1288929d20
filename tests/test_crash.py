"""What becomes of a run whose processes, disk or clock fail under it: real processes, and whatever is left is whole.

`make crash` kills them a hundred times each.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collectors.load import Run, load_run
from tests.crashes import KINDS, MARK, SPEC, marked, trial, written
from tests.fleet_made import HOUSE, until


@pytest.mark.parametrize("kind", KINDS)
def test_a_process_that_is_killed_leaves_a_folder_to_report_and_nothing_else(kind: str, tmp_path: Path) -> None:
    at = np.random.default_rng().uniform(0.0, 0.8)  # another moment every time; `result` says which

    result = trial(kind, at, tmp_path / kind, under_way=True)

    assert not result.wrong, result
    assert result.calls > 0, result
    assert result.code == (-signal.SIGKILL if kind in ("run", "master") else 0), result
    if kind == "box":
        assert "the box ended before the run did: calls since then found nobody" in result.said


class Process:
    """`agentload run` under way, with everything that it starts."""

    def __init__(self, out: Path, *flags: str, spec: str = SPEC, **environment: str) -> None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "spec.toml").write_text(spec)
        self.out = out
        self.mark = f"{os.getpid()}-{time.monotonic_ns()}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agentload", "run", str(out / "spec.toml"), "--out", str(out / "runs"), *flags],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=HOUSE,
            env=os.environ | {MARK: self.mark} | environment,
        )  # fmt: skip

    def end(self, code: int) -> tuple[Path, str]:
        """The folder of its report, and what it said; nothing of it is left."""
        out, err = self.process.communicate(timeout=60)
        assert self.process.returncode == code, err
        assert "Traceback" not in err, err
        until(lambda: not marked(self.mark))
        return Path(out.strip().splitlines()[-1]).parent if out else self.out, err


@pytest.fixture
def started() -> Iterator[list[Process]]:
    """Processes of a test, killed with all that they started where it fails."""
    made: list[Process] = []
    yield made
    for one in made:
        for pid in marked(one.mark):
            os.kill(pid, signal.SIGKILL)
        one.process.communicate()


LONG = SPEC.replace("duration = 1.5", "duration = 60")


def test_sigterm_ends_a_worker_a_master_and_at_once_when_it_comes_twice(started: list[Process], tmp_path: Path) -> None:
    run = Process(tmp_path, "--workers", "2", spec=LONG)
    started.append(run)
    until(lambda: written(run.out))
    workers = [pid for pid in marked(run.mark) if b"fleet.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(workers[0], signal.SIGTERM)
    until(lambda: workers[0] not in marked(run.mark))
    time.sleep(0.5)
    assert run.process.poll() is None  # the other has taken over
    run.process.terminate()
    time.sleep(0.05)
    run.process.terminate()
    folder, _ = run.end(130)

    result = load_run(folder)
    assert result.header["health"]["stop_reason"] == "interrupted"
    assert result.header["unrecorded_calls"] == 0
    assert (folder / "report.html").is_file()


@pytest.mark.parametrize("ctrl_c", [signal.default_int_handler, signal.SIG_IGN], ids=["heard", "ignored"])
def test_sigterm_before_a_run_has_begun_ends_it_like_ctrl_c(
    ctrl_c: Any, started: list[Process], tmp_path: Path
) -> None:
    """Also where Ctrl-C is ignored, as it is in what a script starts with `&`."""
    before = signal.signal(signal.SIGINT, ctrl_c)
    try:
        run = Process(tmp_path, spec=LONG)
    finally:
        signal.signal(signal.SIGINT, before)
    started.append(run)
    until(lambda: len(marked(run.mark)) > 1)  # its box is coming up
    run.process.terminate()
    _, err = run.end(130)

    assert not list(tmp_path.glob("runs/*/calls.parquet"))
    assert len(err.splitlines()) <= 1


STEP = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
/* The wall clock is set three hours ahead two seconds after the start, and three hours back a second later. */
int clock_gettime(clockid_t id, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    static time_t began;
    struct timespec now;
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, t);
    if (id == CLOCK_REALTIME) {
        real(CLOCK_MONOTONIC, &now);
        if (!began) began = now.tv_sec;
        if (now.tv_sec - began >= 3) t->tv_sec -= 10800;
        else if (now.tv_sec - began >= 2) t->tv_sec += 10800;
    }
    return result;
}
"""


def test_a_wall_clock_that_is_set_changes_nothing_and_a_sleep_is_in_the_figures(
    started: list[Process], tmp_path: Path
) -> None:
    """Sleep is a stopped process here: its monotonic clock jumps, as far as it can tell."""
    clock = {"LD_PRELOAD": str(compiled(tmp_path))} if shutil.which("cc") and sys.platform == "linux" else {}
    run = Process(tmp_path, spec=SPEC.replace("duration = 1.5", "duration = 4"), **clock)
    started.append(run)
    until(lambda: written(run.out))
    run.process.send_signal(signal.SIGSTOP)
    time.sleep(1.5)
    run.process.send_signal(signal.SIGCONT)
    folder, _ = run.end(0)

    result = load_run(folder)
    assert result.header["health"]["loop_lag_max"] > 1.0
    assert 4 <= result.header["duration"] < 6.5
    assert result.header["health"]["stop_reason"] == "done"
    in_order(result)


def compiled(folder: Path) -> Path:
    """A library that sets the clock of who loads it, seen to do so."""
    library = folder / "step.so"
    (folder / "step.c").write_text(STEP)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, folder / "step.c", "-ldl"], check=True)
    tell = "import time; a = time.time(); time.sleep(2.1); print(time.time() - a)"
    said = subprocess.check_output([sys.executable, "-c", tell], env=os.environ | {"LD_PRELOAD": str(library)})
    assert abs(float(said)) > 10_000
    return library


def in_order(run: Run) -> None:
    """Every call's instants follow each other within the run, and a session's calls follow each other."""
    calls = run.calls.where(run.calls.session >= 0)
    assert len(calls) > 10
    for before, after in (("due", "sent"), ("sent", "first"), ("first", "last"), ("last", "end")):
        assert (getattr(calls, before) <= getattr(calls, after)).all()
    assert calls.due.min() >= 0
    assert calls.end.max() <= run.header["duration"]
    order = np.lexsort((calls.step, calls.session))
    same = np.diff(calls.session[order]) == 0
    assert (calls.due[order][1:] >= calls.end[order][:-1])[same].all()


def test_a_full_disk_moves_the_run_elsewhere(started: list[Process], tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("a small disk needs root and mount")
    try:
        run = Process(tmp_path, "--out", str(disk), TMPDIR=str(tmp_path))
        started.append(run)
        folder, err = run.end(0)
        (first,) = disk.iterdir()
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)

    result = load_run(folder)
    assert folder.parent == tmp_path
    assert re.search(f"{first} takes no records .No space left on device.: they stay in memory", err)
    assert f"{first} takes no more (No space left on device): the whole run is in {folder}" in err
    assert result.header["unrecorded_calls"] == 0
    assert len(result.calls) > 100
    assert json.loads((folder / "summary.json").read_text())["run"]["calls"] == (result.calls.session >= 0).sum()
