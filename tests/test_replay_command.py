"""`agentload replay`: a trace as the population of a run, in virtual time and against the box."""

import json
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec import structs
from pytest import approx
from typer.testing import CliRunner

from agentload import replaying
from agentload import spec as specs
from agentload.box.options import BoxOptions
from agentload.box.serve import BoxProcess
from agentload.cli import app
from agentload.errors import BadInput
from agentload.expect import expect
from agentload.plan import Plan
from agentload.recorded import recorded
from agentload.simulation import simulate
from agentload.spec import Spec, Traced
from agentload.traces import own
from agentload.traces.analyse import Timed, analyse, timed
from agentload.traces.detect import read
from agentload.traces.graph import Agent, Call, Join, Session, Start, Tool, Tools
from agentload.traces.source import Complaints
from agents.text import Room
from collectors.load import Run, load_run
from collectors.report import write_report
from tests.test_replay import made
from tests.vllm_made import vllm

STARTS = [7.0, 3.0, 30.0, 5.0]
SESSIONS = [structs.replace(made(seed), start=start) for seed, start in enumerate(STARTS)]
LARGE = BoxOptions(sigma=0.0, kv_tokens=2_000_000, context=200_000)
ROOM = Room(1_000_000)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trace") / "made.jsonl"
    own.save(SESSIONS, path)
    return path


@pytest.fixture(scope="module")
def box() -> Iterator[str]:
    with BoxProcess(structs.replace(LARGE, speed=200.0)) as url:
        yield url


def spec_of(trace: Path, how: dict[str, Any] | None = None, **flags: Any) -> Spec:
    return structs.replace(replaying.resolve(trace, how or {}, flags), box=LARGE, salt=1)


def virtual(spec: Spec, out: Path) -> Run:
    folder, _ = simulate(spec, out)
    return load_run(folder)


def agentload(*words: str) -> str:
    ended = CliRunner().invoke(app, words, catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def calls_of(sessions: list[Session]) -> list[tuple[str, int, int]]:
    """Agent, input and output of every call, without the sessions' order."""
    return sorted((one.agent, one.call.input, max(1, one.call.output)) for s in sessions for one in timed(s))


def seen(run: Run) -> list[tuple[str, int, int]]:
    c = run.calls.where(run.calls.session >= 0)
    return sorted(zip(c.agent.tolist(), c.input_tokens.tolist(), c.output_tokens.tolist(), strict=True))


def hit(run: Run) -> float:
    return float(run.calls.cached_tokens.sum() / run.calls.input_tokens.sum())


def test_each_session_is_replayed_once_where_nothing_else_is_said(trace: Path, tmp_path: Path) -> None:
    run = virtual(spec_of(trace), tmp_path)

    assert set(run.calls.status) == {"ok"}
    assert seen(run) == calls_of(SESSIONS)
    assert hit(run) == approx(analyse(SESSIONS).hit, abs=0.01)
    assert run.header["spec"]["replay"]["digest"] == recorded(spec_of(trace)).digest
    assert "keep" not in json.dumps(run.header["spec"])  # what was replayed is named, not repeated


def test_lanes_are_recycled_over_the_sessions_and_copies_do_not_warm_the_cache_for_each_other(
    trace: Path, tmp_path: Path
) -> None:
    apart = virtual(spec_of(trace, agents=3, sessions=12), tmp_path / "a")
    together = virtual(spec_of(trace, {"bust": False}, agents=3, sessions=12), tmp_path / "b")

    assert seen(apart) == seen(together) == sorted(3 * calls_of(SESSIONS))
    assert hit(apart) == approx(analyse(SESSIONS).hit, abs=0.01)
    assert hit(together) > hit(apart) + 0.05
    assert json.loads(json.dumps(apart.header["profile"]["agents"])) == 3


def test_sessions_start_as_recorded_or_so_many_times_faster(trace: Path, tmp_path: Path) -> None:
    slow = virtual(spec_of(trace, {"arrivals": "recorded"}), tmp_path / "slow")
    fast = virtual(spec_of(trace, {"arrivals": "recorded", "speed": 4.0}), tmp_path / "fast")
    roots = [run.sessions.where(run.sessions.agent == "") for run in (slow, fast)]

    assert sorted(roots[0].start) == approx([0.0, 2.0, 4.0, 27.0])
    assert sorted(roots[1].start) == approx([0.0, 0.5, 1.0, 6.75])
    assert seen(slow) == seen(fast) == calls_of(SESSIONS)
    assert fast.tools.end.sum() - fast.tools.start.sum() == approx(0.25 * (slow.tools.end - slow.tools.start).sum())


def test_people_take_no_longer_than_the_cap_and_the_report_says_so(trace: Path, tmp_path: Path) -> None:
    run = virtual(spec_of(trace, {"longest_gap": 2.0}, agents=4), tmp_path)
    roots = run.sessions.where(run.sessions.agent == "")

    assert roots.wait_seconds.tolist() == [4.0] * 4  # two people in each, who took 30 s
    page = write_report(next(tmp_path.iterdir())).read_text()
    assert "people, and gaps that nobody explains, take at most 2 s" in page
    assert "4 sessions with 56 calls" in page


def test_agents_may_begin_later_or_in_the_middle_of_a_session(trace: Path, tmp_path: Path) -> None:
    late = virtual(spec_of(trace, {"jitter": 50.0}, agents=4), tmp_path / "late")
    begun = virtual(spec_of(trace, {"mid_session": True}, agents=4, sessions=8), tmp_path / "begun")
    first = late.calls.where((late.calls.step == 0) & (late.calls.agent == ""))

    assert np.ptp(first.due) > 5.0
    assert seen(late) == calls_of(SESSIONS)
    root = begun.calls.where(begun.calls.agent == "")
    lengths = [int((root.session == n).sum()) for n in range(8)]
    assert min(lengths[:4]) < 8 and lengths[4:] == [8] * 4


def test_what_does_not_fit_the_context_is_counted_and_a_scale_makes_it_fit(trace: Path, tmp_path: Path) -> None:
    small = structs.replace(LARGE, context=12_000)
    ended = virtual(structs.replace(spec_of(trace), box=small), tmp_path / "a")
    fits = virtual(structs.replace(spec_of(trace, scale=0.4), box=small), tmp_path / "b")
    page = write_report(next((tmp_path / "a").iterdir())).read_text()

    said = CliRunner().invoke(app, ["replay", str(trace), "--scale", "20", "--dry-run"]).stderr
    assert re.search(
        r"\d+ of 56 calls do not fit the context of 131,072 tokens; .* --scale [5-9][.\d]* makes all", said
    )
    assert "context_limit" in set(ended.sessions.outcome)
    over = sum(one.call.input + one.call.output > 12_000 for s in SESSIONS for one in timed(s))
    assert f"{over} of its calls do not fit the context" in page
    assert set(fits.sessions.outcome) == {"done"}
    assert len(fits.calls) == len(calls_of(SESSIONS))
    assert hit(fits) == approx(analyse(SESSIONS).hit, abs=0.02)


def test_sub_agents_are_joined_as_recorded(tmp_path: Path) -> None:
    kid = Agent((Call(3_000, 20), Tools((Tool("sh", 5.0),)), Call(3_500, 20, 3_000)), "kid")
    slow = structs.replace(kid, delay=30.0)
    root = Agent((
        Call(4_000, 10), Start((kid, slow), wait=0), Call(5_000, 10, 4_000), Join((0,)), Call(6_000, 10, 5_000),
        Start((kid, slow), wait=1), Call(7_000, 10, 6_000), Join(), Call(8_000, 10, 7_000),
    ))  # fmt: skip
    path = tmp_path / "joins.jsonl"
    own.save([Session("s", root)], path)
    run = virtual(spec_of(path), tmp_path / "runs")

    assert seen(run) == calls_of([Session("s", root)])
    calls = {agent: run.calls.where(run.calls.agent == agent) for agent in ("", "0", "1", "2", "3")}
    begun, ended = calls[""].sent, {agent: float(calls[agent].end.max()) for agent in "0123"}
    assert begun[1] < calls["0"].sent.min() + 1  # nobody is waited for
    assert begun[2] == approx(ended["0"], abs=0.01)  # but then for the first of the two
    assert begun[3] == approx(ended["2"], abs=0.01)  # whichever is first
    assert begun[4] == approx(max(ended.values()), abs=0.01)  # all
    assert [float(calls[agent].due.min()) for agent in "13"] == approx(
        [float(calls[""].end[0]) + 30, float(calls[""].end[2]) + 30], abs=0.01
    )


def test_beside_archetypes_a_trace_has_its_share_of_the_population(trace: Path, tmp_path: Path) -> None:
    spec = specs.decode({
        "profile": {"type": "held", "agents": 4}, "sessions": 24, "replay": {"trace": str(trace)}, "salt": 1,
        "population": [{"archetype": "replay"}, {"archetype": "fixed"}], "box": msgspec.to_builtins(LARGE),
    })  # fmt: skip
    run = virtual(spec, tmp_path)
    roots = run.sessions.where(run.sessions.agent == "")

    assert {name: int((roots.archetype == name).sum()) for name in set(roots.archetype)} == {"replay": 12, "fixed": 12}


def test_a_dry_run_is_a_spec_that_names_the_trace_and_what_to_expect(trace: Path) -> None:
    said = agentload("replay", str(trace), "--agents", "2", "--dry-run")
    spec = specs.decode(tomllib.loads(said))

    assert spec.replay is not None and spec.replay.digest
    assert spec.sessions == 4
    figures = expect(spec, ROOM)
    assert figures is not None
    assert (figures["sessions"], figures["calls"]) == (4, 56)
    assert figures["input_tokens"] == sum(size for _, size, _ in calls_of(SESSIONS))


def test_another_file_than_the_one_that_the_spec_replays_is_refused(trace: Path, tmp_path: Path) -> None:
    moved = tmp_path / "t.jsonl"
    moved.write_bytes(trace.read_bytes())
    spec = spec_of(moved)
    Plan(spec, ROOM, 0)
    own.save(SESSIONS[:2], moved)
    replay = structs.replace(spec.replay, digest="0" * 32)  # type: ignore[type-var]  # it is one

    with pytest.raises(BadInput, match=r"has the digest [0-9a-f]{32}, and this spec replays 0{32}"):
        Plan(structs.replace(spec, replay=replay), ROOM, 0)


@pytest.mark.parametrize(
    ("how", "flags", "says"),
    [
        ({"arrivals": "recorded"}, {"agents": 3}, "--agents 3 and --arrivals recorded contradict each other"),
        ({"arrivals": "later"}, {}, "--arrivals must be recorded, or left out, got 'later'"),
        ({"speed": 0.0}, {}, "`replay.speed` must be .* > 0.0, got 0.0"),
        ({"first": 0}, {}, "`replay.first` must be .* >= 1, got 0"),
    ],
)
def test_what_contradicts_itself_is_said_in_one_line(
    how: dict[str, Any], flags: dict[str, Any], says: str, trace: Path
) -> None:
    with pytest.raises(BadInput, match=says):
        replaying.resolve(trace, how, flags)


def test_a_trace_that_cannot_be_replayed_is_refused_before_anything_is_sent(trace: Path, tmp_path: Path) -> None:
    undated = tmp_path / "undated.jsonl"
    own.save([made(1)], undated)
    with pytest.raises(BadInput, match="does not say when its sessions start"):
        replaying.resolve(undated, {"arrivals": "recorded"}, {})
    with pytest.raises(BadInput, match="does not exist"):
        replaying.resolve(tmp_path / "nope", {}, {})
    with pytest.raises(BadInput, match="follows a recorded trace; name it in"):
        specs.decode({"population": [{"archetype": "replay"}], "profile": {"type": "held", "agents": 1}, "sessions": 1})
    with pytest.raises(BadInput, match="it can be neither drawn nor raised here"):
        Traced().refuse()


@pytest.mark.parametrize(
    "flags", [["--client", "wire", "--workers", "2"], ["--client", "sdk", "--arrivals", "recorded"]]
)
def test_the_box_sees_the_recorded_sizes_and_prefixes(flags: list[str], box: str, trace: Path, tmp_path: Path) -> None:
    agentload("replay", str(trace), "--url", box, "--speed", "40", "--out", str(tmp_path), "--quiet", *flags)
    run = load_run(next(tmp_path.iterdir()))

    assert seen(run) == calls_of(SESSIONS)
    assert hit(run) == approx(analyse(SESSIONS).hit, abs=0.01)


def test_a_real_vllm_gets_every_call_in_its_place(trace: Path, tmp_path: Path) -> None:
    with vllm() as url:
        agentload("replay", str(trace), "--url", f"{url}/v1", "--scale", "0.2", "--speed", "50", "--longest-gap", "5",
                  "--agents", "4", "--out", str(tmp_path), "--quiet")  # fmt: skip
    run = load_run(next(tmp_path.iterdir()))
    calls = run.calls.where(run.calls.session >= 0)

    assert set(calls.status) == {"ok"}
    assert set(run.sessions.outcome) == {"done"}
    for number, session in enumerate(sorted(SESSIONS, key=lambda session: session.start or 0.0)):
        mine = calls.where(calls.session == number)
        order = np.lexsort((mine.step, mine.agent))
        wanted = sorted(((one.agent, one.number, one.call) for one in timed(session)), key=lambda row: row[:2])
        assert [(mine.agent[i], int(mine.step[i])) for i in order] == [place[:2] for place in wanted]
        assert mine.output_tokens[order].tolist() == [max(1, round(0.2 * call.output)) for *_, call in wanted]
        assert mine.input_tokens[order] == approx(
            [0.2 * call.input for *_, call in wanted], rel=0.2
        )  # short ones drift
        assert mine.input_tokens.sum() == approx(0.2 * sum(call.input for *_, call in wanted), rel=0.05)


TRACES = os.environ.get("AGENTLOAD_TRACES")


@pytest.mark.skipif(not TRACES, reason="AGENTLOAD_TRACES names no folder with recorded traces")
def test_the_whole_kv_cache_tester_sample_on_the_box(tmp_path: Path) -> None:
    """Every call of its recorded length, and the real hit rate within a point of the ideal; with a small cache, less;
    sub-agents side by side where they were."""
    sample = Path(TRACES or "") / "kv_cache_tester_sample.jsonl"
    sessions = list(read(sample, Complaints(fatal=True)))
    large = BoxOptions(sigma=0.0, kv_tokens=60_000_000, context=1_000_000)
    with BoxProcess(structs.replace(large, speed=400.0)) as url:
        agentload("replay", str(sample), "--url", url, "--agents", "6", "--speed", "500", "--out", str(tmp_path / "a"),
                  "--quiet")  # fmt: skip
    real = load_run(next((tmp_path / "a").iterdir()))
    spec = structs.replace(
        replaying.resolve(sample, {}, {"agents": 6}), box=structs.replace(large, kv_tokens=400_000, context=390_000)
    )
    small = virtual(spec, tmp_path / "b")

    assert seen(real) == seen(small) == calls_of(sessions)
    ideal = analyse(sessions).hit
    assert hit(real) == approx(ideal, abs=0.01)
    assert hit(small) < (ideal or 1.0) - 0.01
    for number, session in enumerate(sessions):
        assert overlaps(timed(session)) <= overlaps_of(small, number)


def overlaps(calls: list[Timed]) -> set[tuple[str, str]]:
    """Pairs of sub-agents of which one began before the other had ended."""
    spans: dict[str, tuple[float, float]] = {}
    for one in calls:
        begin, end = spans.get(one.agent, (np.inf, 0.0))
        spans[one.agent] = (min(begin, one.begin), max(end, one.end))
    return side_by_side(spans)


def overlaps_of(run: Run, number: int) -> set[tuple[str, str]]:
    mine = run.calls.where(run.calls.session == number)
    own = {agent: mine.where(mine.agent == agent) for agent in set(mine.agent)}
    return side_by_side({agent: (float(c.sent.min()), float(c.end.max())) for agent, c in own.items()})


def side_by_side(spans: dict[str, tuple[float, float]]) -> set[tuple[str, str]]:
    return {(a, b) for a, (begin, end) in spans.items() for b, (start, stop) in spans.items()
            if "" < a < b and begin < stop and start < end}  # fmt: skip
