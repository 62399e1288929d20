"""Simulations in independent parts: the same sessions, the same mix in each, whatever number of processes runs them."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentload import spec as specs
from agentload.box.options import BoxOptions, Failure
from agentload.errors import BadInput
from agentload.plan import interleave
from agentload.shards import Share, check, part
from agentload.simulation import simulate
from collectors.load import Columns, Run, load_run
from collectors.report import write_report
from tests.fleet_made import started, until

MIX: dict[str, Any] = {
    "salt": 1, "sessions": 24, "scale": 0.05, "longest_wait": 5.0, "profile": {"type": "held", "agents": 12},
    "population": [{"archetype": "researcher"}, {"archetype": "chat", "weight": 2}],
    "box": {"replicas": 4, "router": "least_outstanding"},
}  # fmt: skip


def sharded(tmp_path: Path, count: int, **changes: Any) -> tuple[Run, Path]:
    folder, reason = simulate(specs.decode(MIX | changes), tmp_path, shards=count)
    assert reason == "done"
    return load_run(folder), folder


def made(calls: Columns) -> list[tuple[Any, ...]]:
    """Which calls there were."""
    keys = calls.session, calls.agent, calls.step, calls.archetype, calls.input_tokens, calls.output_tokens
    return sorted(zip(*(key.tolist() for key in keys), strict=True))


def test_parts_have_together_the_sessions_of_the_whole_and_the_run_says_what_they_are(tmp_path: Path) -> None:
    whole, _ = sharded(tmp_path / "whole", 1)
    split, folder = sharded(tmp_path / "split", 2)

    assert made(split.calls) == made(whole.calls)
    assert split.header["health"]["sessions_started"] == 24
    assert split.header["itl"]["count"] == whole.header["itl"]["count"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "calls.parquet", "run.json", "server.parquet", "sessions.parquet", "tools.parquet"
    ]  # fmt: skip
    assert "2 independent clusters of 2 replicas" in write_report(folder).read_text()


def test_the_number_of_processes_changes_nothing(tmp_path: Path) -> None:
    mix = {"profile": {"type": "poisson", "rate": 2.0}, "sessions": 10}
    cores = os.sched_getaffinity(0)
    several, _ = sharded(tmp_path / "several", 2, **mix)
    os.sched_setaffinity(0, {min(cores)})
    try:
        one, _ = sharded(tmp_path / "one", 2, **mix)
    finally:
        os.sched_setaffinity(0, cores)

    assert sorted(one.calls.end.tolist()) == sorted(several.calls.end.tolist())
    assert made(one.calls) == made(several.calls)
    assert one.header["health"]["sessions_offered"] == 10


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_each_session_goes_to_one_part_and_each_part_gets_its_share_of_every_kind(count: int) -> None:
    order = interleave({"a": 1.0, "b": 1.0, "c": 2.0, "d": 0.5})
    shares = [Share(i, count, order) for i in range(count)]
    taken = np.array([[share.takes(number) for number in range(1_000)] for share in shares])
    kinds = np.array([order[number % len(order)] for number in range(1_000)])

    assert (taken.sum(axis=0) == 1).all()
    for kind in "abcd":
        shared = [int(row[kinds == kind].sum()) for row in taken]
        assert max(shared) - min(shared) <= 1
    assert np.ptp(taken.sum(axis=1)) <= 4


def test_a_part_has_its_replicas_and_their_failures() -> None:
    box = BoxOptions(replicas=4, prefill=2, failures=tuple(Failure(float(i), replica=i) for i in range(6)))
    parts = [part(box, i, 2) for i in range(2)]

    assert [(each.replicas, each.prefill) for each in parts] == [(2, 1), (2, 1)]
    assert [(f.at, f.replica) for f in parts[0].failures] == [(0.0, 0), (1.0, 1), (4.0, 2)]
    assert [(f.at, f.replica) for f in parts[1].failures] == [(2.0, 0), (3.0, 1), (5.0, 2)]
    assert part(box, 0, 1) == box


@pytest.mark.parametrize(
    ("changes", "count", "says"),
    [
        ({}, 3, "--shards 3 does not split box.replicas = 4 evenly; take 2, 4"),
        ({"box": {"replicas": 1}}, 2, "give the spec box.replicas = 2, 4, …"),
        ({"box": {"replicas": 4, "prefill": 2}}, 4, "box.prefill = 2"),
        ({}, 0, "--shards must be 1 or more, got 0"),
        ({"box": {"replicas": 4, "queued": 9}}, 2, "box.queued looks at the whole cluster"),
        ({"box": {"replicas": 4, "quota": {"tokens": 9}}}, 2, "box.quota"),
        ({"box": {"replicas": 4, "scaling": {"most": 8}}}, 2, "box.scaling"),
        ({"limits": {"tokens": 9}}, 2, "limits.tokens"),
    ],
)
def test_what_cannot_be_split_is_refused(changes: dict[str, Any], count: int, says: str) -> None:
    with pytest.raises(BadInput, match=says.replace("(", r"\(")):
        check(specs.decode(MIX | changes), count)


def under_way(folder: Path) -> bool:
    """Whether every part of a simulation has written much."""
    spools = list(folder.glob("*/workers/*/calls.arrows"))
    return len(spools) == min(2, len(os.sched_getaffinity(0))) and all(p.stat().st_size > 100_000 for p in spools)


def test_an_interrupt_keeps_the_records_of_all_parts(tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    path.write_text(
        'sessions = 1000000\nsalt = 1\nprofile = { type = "held", agents = 8 }\n'
        'population = [{ archetype = "fixed" }]\nbox = { replicas = 2 }\n'
    )
    command = [sys.executable, "-m", "agentload", "simulate", str(path), "--shards", "2", "-q", "--out", str(tmp_path)]
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process inherits that it is ignored
    with started(*command) as process:
        signal.signal(signal.SIGINT, heard)
        until(lambda: under_way(tmp_path), 60)
        process.send_signal(signal.SIGINT)

        assert process.wait(60) == 130
    run = load_run(next(tmp_path.glob("*/run.json")).parent)
    assert run.header["health"]["stop_reason"] == "interrupted"
    assert len(run.calls) > 1_000  # 200 kB of them and more
    assert set((run.calls.session % 2).tolist()) == {0, 1}
    assert not list(tmp_path.glob("*/workers"))
