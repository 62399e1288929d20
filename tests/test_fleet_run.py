"""Runs on several processes: the same sessions, every record once, whoever dies."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentload.box.options import BoxOptions
from agentload.box.serve import BoxProcess
from collectors.load import Run, load_run
from tests.fleet_made import ended, logged, master, recorded, run, salted, started, until


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    log = tmp_path_factory.mktemp("box") / "log"
    with BoxProcess(BoxOptions(speed=5.0, sigma=0.0, log=str(log))) as url:
        yield url, log


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Masters and workers that are started apart share a token by their environment."""
    monkeypatch.setenv("AGENTLOAD_TOKEN", "known-to-these-tests-alone")


def sizes(run: Run) -> list[tuple[Any, ...]]:
    """What the sessions of a run are: every call's place and sizes."""
    c = run.calls
    rows = zip(c.session, c.agent, c.archetype, c.step, c.wanted_input_tokens, c.wanted_output_tokens, strict=True)
    return sorted(row for row in rows if row[0] >= 0)


def test_one_two_and_four_workers_do_the_same_sessions_and_lose_no_record(
    box: tuple[str, Path], tmp_path: Path
) -> None:
    url, log = box
    flags = {"url": url, "sessions": 12, "agents": 6, "seed": 5}
    runs = {n: run(flags, tmp_path / str(n), salted(tmp_path), workers=n) for n in (1, 2, 4)}

    for n, result in runs.items():
        assert sizes(result) == sizes(runs[1])
        assert recorded(result) == {line["id"]: 1 for line in logged(log, result)}
        assert sorted(result.sessions.session.tolist()) == list(range(12))
        assert set(result.sessions.outcome.tolist()) == {"done"}
        made = result.calls.session >= 0
        assert len(set(result.calls.worker[made].tolist())) == n
        assert result.header["itl"]["count"] > 100
        agree_and_are_judged(result.header["health"], n)


def agree_and_are_judged(health: dict[str, Any], workers: int) -> None:
    """Clocks of one machine are found to agree, and the run is judged by its worst worker."""
    assert len(health["workers"]) == workers
    for member in health["workers"].values():
        assert abs(member["clock"]["offset"]) <= member["clock"]["uncertainty"] < 0.02
        assert abs(member["clock"]["drift"]) <= member["clock"]["drift_uncertainty"]
    for key in ("loop_lag_p99", "cpu_share", "send_lag_p99"):
        assert health[key] == max(member[key] for member in health["workers"].values())
    assert health["stop_reason"] == "done"


def test_arrivals_split_between_workers_are_those_of_one_process(box: tuple[str, Path], tmp_path: Path) -> None:
    flags = {"url": box[0], "rate": 12.0, "duration": 1.5, "seed": 3}
    alone, shared = (run(flags, tmp_path / str(n), salted(tmp_path), workers=n) for n in (1, 2))

    assert sizes(shared) == sizes(alone)
    for result in (alone, shared):
        order = np.argsort(result.sessions.session)
        assert result.sessions.due[order].tolist() == alone.sessions.due[np.argsort(alone.sessions.session)].tolist()
        late = result.sessions.start - result.sessions.due
        assert np.median(late) < 0.02  # one clock: nobody starts early or late
        assert late.min() >= 0
        health = result.header["health"]
        assert health["sessions_offered"] == health["sessions_started"] == len(order)


def children(process: "subprocess.Popen[str]") -> list[int]:
    """Processes that a process has started."""
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def busy(out: Path, least: int = 6_000) -> Any:
    """The run's folder, once that many bytes of calls are in it."""
    return next((file.parent for file in out.glob("*/calls.arrows") if file.stat().st_size >= least), None)


@pytest.mark.parametrize("loop", ["closed", "open"])
def test_the_rest_take_over_from_a_worker_that_is_killed(loop: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    load = {"agents": 9, "sessions": 27} if loop == "closed" else {"rate": 15.0, "duration": 4.0}
    with (
        BoxProcess(BoxOptions(speed=2.0, sigma=0.0, log=str(log))) as url,
        master({"url": url, "seed": 2} | load, tmp_path / "runs", workers=3) as process,
    ):
        until(lambda: busy(tmp_path / "runs", 8_000))
        os.kill(children(process)[1], signal.SIGKILL)
        result = ended(process)
    (lost,) = [worker["lost"] for worker in result.header["health"]["workers"].values() if "lost" in worker]
    rows, health = result.sessions, result.header["health"]
    given_up = rows.outcome == "unfinished"
    numbers = sorted(rows.session[rows.agent == ""].tolist())

    assert numbers == list(range(health["sessions_offered"] if loop == "open" else 27))
    assert 0 < len(lost["sessions"]) < 20
    assert sorted(set(rows.session[given_up].tolist())) == lost["sessions"]
    assert all("was lost" in error for error in rows.error[given_up].tolist())
    records = recorded(result)
    assert set(records.values()) == {1}
    log_ids = [line["id"] for line in logged(log, result)]
    assert set(records) <= set(log_ids)
    unshipped = {int(name.split("-")[1].split(".")[0]) for name in set(log_ids) - set(records)}
    assert unshipped <= set(lost["sessions"])  # nothing of anybody else is missing
    assert lost["noticed"] - lost["last_batch"] < 2.0
    assert health["stop_reason"] == "done"


def worker(*prefix: str, **options: Any) -> "contextlib.AbstractContextManager[subprocess.Popen[str]]":
    return started(*prefix, sys.executable, "-m", "agentload.fleet.worker", json.dumps(options))


def listening(process: "subprocess.Popen[str]") -> int:
    """The port at which a master says that it waits."""
    assert process.stderr is not None
    for line in process.stderr:
        if "waiting at" in line:
            return int(line.split()[3].rpartition(":")[2])
    raise AssertionError("it does not wait")


def test_workers_that_join_from_elsewhere_leave_nothing_behind(box: tuple[str, Path], tmp_path: Path) -> None:
    url, log = box
    flags = {"url": url, "sessions": 12, "agents": 6}
    with master(flags, tmp_path / "runs", expect_workers=2, bind_port=0) as process:
        options = {"master_port": listening(process), "out": str(tmp_path / "kept")}
        with worker(**options) as one, worker(**options) as two:
            result = ended(process)
            for joined in (one, two):
                _, err = joined.communicate(timeout=10)
                assert joined.returncode == 0, err

    assert recorded(result) == {line["id"]: 1 for line in logged(log, result)}
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_worker_cut_off_from_its_master_keeps_its_records_and_says_where(tmp_path: Path) -> None:
    log = tmp_path / "log"
    flags = {"agents": 4, "duration": 60}
    with (
        BoxProcess(BoxOptions(speed=5.0, sigma=0.0, log=str(log))) as url,
        master(flags | {"url": url}, tmp_path / "runs", expect_workers=1, bind_port=0) as process,
        worker(master_port=listening(process), out=str(tmp_path / "kept"), patience=1.5) as joined,
    ):
        until(lambda: busy(tmp_path / "runs"))
        process.kill()
        _, err = joined.communicate(timeout=15)
    (folder,) = (tmp_path / "kept").iterdir()
    result = load_run(folder)

    assert joined.returncode == 1
    assert "was cut off from its master (no word from it for 1.5 s)" in err
    assert str(folder) in err
    assert len(result.calls) > 10
    assert recorded(result) == {line["id"]: 1 for line in logged(log, result)}
    assert set(result.sessions.outcome.tolist()) <= {"done", "unfinished"}
    assert "sk-" not in (folder / "run.json").read_text()


def test_an_interrupt_of_the_master_ends_the_sessions_of_all(box: tuple[str, Path], tmp_path: Path) -> None:
    with master({"url": box[0], "agents": 8, "duration": 60}, tmp_path, workers=2) as process:
        until(lambda: busy(tmp_path))
        process.send_signal(signal.SIGINT)
        result = ended(process, 130)

    assert result.header["health"]["stop_reason"] == "interrupted"
    assert "unfinished" in set(result.sessions.outcome.tolist())
    assert recorded(result) == {line["id"]: 1 for line in logged(box[1], result)}


def test_a_limit_on_tokens_counts_those_of_all_workers(box: tuple[str, Path], tmp_path: Path) -> None:
    result = run({"url": box[0], "agents": 8, "duration": 60, "max_tokens": 100_000}, tmp_path, workers=2)

    assert result.header["health"]["stop_reason"] == "max_tokens"
    assert result.calls.input_tokens.sum() + result.calls.output_tokens.sum() >= 100_000
    assert result.header["duration"] < 30


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"master_port": 9, "wait": 0.5}, "no master answers at 127.0.0.1:9"),
        (
            {"master_host": "no.such.host.invalid", "wait": 0.5},
            "--master-host 'no.such.host.invalid' cannot be resolved",
        ),
    ],
)
def test_a_worker_without_a_master_says_so_in_one_line(options: dict[str, Any], complaint: str) -> None:
    with worker(**options) as joined:
        _, err = joined.communicate(timeout=15)

    assert joined.returncode == 2
    assert complaint in err
    assert len(err.strip().splitlines()) == 2  # that it joins, and this


def test_a_master_without_workers_is_refused() -> None:
    from agentload.fleet.launch import Fleet

    with pytest.raises(ValueError, match="a master needs workers"):
        Fleet()


NAMESPACE, LINK, SUBNET = f"agentload-{os.getpid()}", f"al{os.getpid()}", f"10.213.{os.getpid() % 256}"
"""Of this process alone: the machine may have others that run these tests."""


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """A network namespace joined to ours by a virtual cable; gives our end's address."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need the `ip` command and root")
    made = subprocess.run(["ip", "netns", "add", NAMESPACE], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"network namespaces are not allowed here: {made.stderr.strip()}")
    try:
        for line in (
            f"ip link add {LINK}-a type veth peer name {LINK}-b netns {NAMESPACE}",
            f"ip addr add {SUBNET}.1/24 dev {LINK}-a",
            f"ip link set {LINK}-a up",
            f"ip -n {NAMESPACE} addr add {SUBNET}.2/24 dev {LINK}-b",
            f"ip -n {NAMESPACE} link set {LINK}-b up",
        ):
            wired = subprocess.run(line.split(), capture_output=True, text=True, check=False)
            if wired.returncode:
                pytest.skip(f"virtual cables are not allowed here: {wired.stderr.strip()}")
        yield f"{SUBNET}.1"
    finally:
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=False)
        subprocess.run(["ip", "link", "del", f"{LINK}-a"], capture_output=True, check=False)


def test_a_worker_on_another_machine_does_its_share(elsewhere: str, tmp_path: Path) -> None:
    """The other machine is a network namespace: nothing but the cable joins it to the master and the endpoint."""
    log = tmp_path / "log"
    flags = {"sessions": 12, "agents": 6}
    fleet = {"workers": 1, "expect_workers": 1, "bind_host": elsewhere, "bind_port": 0}
    with (
        BoxProcess(BoxOptions(speed=5.0, sigma=0.0, host=elsewhere, log=str(log))) as url,
        master(flags | {"url": url}, tmp_path / "runs", **fleet) as process,
        worker(
            *("ip", "netns", "exec", NAMESPACE),
            master_host=elsewhere,
            master_port=listening(process),
            out=str(tmp_path / "kept"),
        ) as joined,
    ):
        result = ended(process)
        _, err = joined.communicate(timeout=10)

    assert joined.returncode == 0, err
    assert recorded(result) == {line["id"]: 1 for line in logged(log, result)}
    assert len(set(result.calls.worker[result.calls.session >= 0].tolist())) == 2
    agree_and_are_judged(result.header["health"], 2)
