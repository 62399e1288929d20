"""Runs in virtual time: the same sessions as real time, exact times, and everything that a run can meet."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest import approx

from agentload import spec as specs
from agentload.box.presets import DEFAULT, PRESETS
from agentload.errors import BadInput
from agentload.simulation import simulate
from collectors.load import Run, load_run
from collectors.report import write_report

TP4 = PRESETS[DEFAULT]
ONE = {"type": "held", "agents": 1}


def virtual(out: Path, **plain: Any) -> Run:
    """A simulated run of a spec; its records."""
    plain = {"salt": 1, "profile": ONE, "population": [{"archetype": "fixed"}]} | plain
    plain["box"] = {"sigma": 0.0, "habits": {"reasoning": 0.0}} | plain.get("box", {})
    folder, _ = simulate(specs.decode(plain), out)
    return load_run(folder)


def rows(run: Run) -> list[tuple[Any, ...]]:
    """What makes two runs the same sessions."""
    c = run.calls
    wanted = [None if np.isnan(x) else x for x in c.wanted_output_tokens]
    columns = (c.session, c.agent, c.archetype, c.step, wanted, c.output_tokens, c.status, c.finish_reason,
               c.tool_calls, c.input_tokens, c.reasoning_tokens, c.argument_tokens)  # fmt: skip
    return sorted(row for row in zip(*columns, strict=True) if row[0] >= 0)


MIX = """
salt = 1
scale = 0.1
longest_wait = 0.05
sessions = 9
profile = { type = "held", agents = 6 }
population = [{ archetype = "coder" }, { archetype = "support" }, { archetype = "lead" }]
[box]
speed = 5
[archetypes.coder]
steps = { type = "lognormal", median = 5, sigma = 0.3, low = 2, high = 9 }
context_limit = 26000
task_tokens = { type = "lognormal", median = 3400, sigma = 0.5 }
[archetypes.support]
turns = 2
[archetypes.lead]
base = "fixed"
steps = 2
children = 3
child = "fixed"
"""


@pytest.mark.parametrize("mode", ["sized", "live"])
def test_the_sessions_are_those_of_a_run_against_the_served_box(mode: str, tmp_path: Path) -> None:
    spec = tmp_path / "mix.toml"
    spec.write_text(f'mode = "{mode}"\n' + MIX)
    command = [sys.executable, "-m", "agentload", "run", str(spec), "-q", "--out", str(tmp_path / "real")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    real = load_run(Path(ended.stdout.strip().splitlines()[-1]).parent)
    folder, reason = simulate(specs.decode(specs.read(spec)), tmp_path / "virtual")
    again = load_run(folder)

    assert reason == "done"
    assert len(rows(real)) > 20
    assert rows(again) == rows(real)
    assert again.header["endpoint"]["calibration"] == real.header["endpoint"]["calibration"]
    assert again.header["endpoint"]["context_length"] == real.header["endpoint"]["context_length"]
    cached = [int(run.calls.cached_tokens[run.calls.session >= 0].sum()) for run in (real, again)]
    assert cached[1] == approx(cached[0], rel=0.01)


def test_a_lone_call_takes_what_the_formula_says(tmp_path: Path) -> None:
    calls = virtual(tmp_path, sessions=1, archetypes={"fixed": {"task_tokens": 1_000.0, "output_tokens": 11.0}}).calls
    decodes = [TP4.step_seconds(0, 1, 1_003 + i, 0.0) for i in range(1, 11)]

    assert calls.input_tokens.tolist() == [1_003]  # three open the answer
    assert calls.sent.tolist() == [0.0]
    assert calls.first[0] == approx(1e-3 * TP4.offset_ms + TP4.step_seconds(1_003, 0, 0, 1_003 * 501.5))
    assert calls.last[0] - calls.first[0] == approx(sum(decodes))
    assert calls.end[0] == calls.last[0]


def test_the_gaps_between_tokens_are_kept_when_asked_for(tmp_path: Path) -> None:
    calls = virtual(tmp_path, sessions=1, itl=True).calls
    gaps = calls.itl.values

    assert len(gaps) == 63
    assert gaps.sum() == approx(calls.last[0] - calls.first[0], rel=1e-5)
    assert gaps[0] == approx(TP4.step_seconds(0, 1, 516, 0.0), rel=1e-5)


def test_their_sketch_agrees_with_the_gaps_themselves(tmp_path: Path) -> None:
    mix = {"sessions": 20, "profile": {"type": "held", "agents": 8}, "archetypes": {"fixed": {"steps": 4}}}
    sketched = virtual(tmp_path / "a", **mix)
    kept = virtual(tmp_path / "b", **mix, itl=True)
    gaps = kept.calls.itl.values

    assert sketched.header["itl"]["count"] == len(gaps) == kept.header["itl"]["count"]
    assert sketched.header["itl"]["p50"] == approx(np.quantile(gaps, 0.5), rel=0.011)
    assert sketched.header["itl"]["mean"] == approx(gaps.mean(), rel=1e-4)


def test_the_same_spec_gives_the_same_records(tmp_path: Path) -> None:
    mix: dict[str, Any] = {
        "sessions": 12, "scale": 0.2, "profile": {"type": "poisson", "rate": 2.0}, "box": {"sigma": 0.05, "replicas": 2,
        "router": "two_choices"}, "population": [{"archetype": "coder"}, {"archetype": "support"}],
    }  # fmt: skip
    one, two = virtual(tmp_path / "a", **mix).calls, virtual(tmp_path / "b", **mix).calls

    assert one.first.tolist() == two.first.tolist()
    assert one.end.tolist() == two.end.tolist()
    assert len(one.end) > 100


def test_tools_people_and_steps_follow_each_other_as_in_real_time(tmp_path: Path) -> None:
    slow = {"name": "look", "seconds": 2.0, "tokens": 50.0, "failure": 0.0}
    kind = {"steps": 3, "turns": 2, "turn_tokens": 20.0, "think_seconds": 7.0, "tools": [slow]}
    run = virtual(tmp_path, sessions=1, archetypes={"fixed": kind})
    calls, tools, session = run.calls, run.tools, run.sessions

    gaps = calls.sent[1:] - calls.end[:-1]
    assert gaps.tolist() == approx([2, 2, 7, 2, 2])
    assert calls.due.tolist() == calls.sent.tolist()
    assert (tools.end - tools.start).tolist() == approx([2] * 4)
    assert session.wait_seconds.tolist() == approx([7])
    assert session.tool_seconds.tolist() == approx([8])
    assert session.end - session.start == approx(15 + (calls.end - calls.sent).sum())


def test_agents_may_begin_mid_session(tmp_path: Path) -> None:
    run = virtual(tmp_path, sessions=40, begin="mid-session", profile={"type": "held", "agents": 40}, scale=0.1,
                  population=[{"archetype": "coder"}])  # fmt: skip
    first = run.calls.where((run.calls.step == 0) & (run.calls.agent == ""))

    assert len(first) == 40
    assert set(first.status.tolist()) == {"ok"}
    assert np.median(first.input_tokens) > 5_000  # a tenth of 50,000: what a coder has gathered half way


def test_a_parent_waits_for_its_children(tmp_path: Path) -> None:
    lead = {"base": "fixed", "steps": 2, "children": 3, "child": "fixed"}
    run = virtual(tmp_path, sessions=1, population=[{"archetype": "lead"}], archetypes={"lead": lead})
    s, c = run.sessions, run.calls

    assert sorted(s.agent.tolist()) == ["", "0", "1", "2"]
    parent, last_child = s.agent == "", s.end[s.agent != ""].max()
    second = c.sent[(c.agent == "") & (c.step == 1)]
    assert second[0] >= last_child
    assert s.children[parent].tolist() == [3]
    assert s.join_seconds[parent][0] == approx(last_child - s.start[s.agent != ""].min())


def test_a_seat_starts_the_next_session_when_one_has_ended(tmp_path: Path) -> None:
    s = virtual(tmp_path, sessions=7, profile={"type": "held", "agents": 3}).sessions

    assert sorted(s.session.tolist()) == list(range(7))
    for number in range(3, 7):
        before = s.end[s.session == number - 3]
        assert s.start[s.session == number] == approx(before)


def test_arrivals_come_whatever_became_of_the_others(tmp_path: Path) -> None:
    spec = specs.decode(
        {
            "salt": 1,
            "duration": 50.0,
            "profile": {"type": "poisson", "rate": 3.0},
            "population": [{"archetype": "fixed"}],
        }
    )
    folder, _ = simulate(spec, tmp_path)
    run = load_run(folder)

    from agentload.plan import arrivals

    assert sorted(run.sessions.start.tolist()) == approx(arrivals(spec).tolist())
    assert run.header["health"]["sessions_offered"] == run.header["health"]["sessions_started"] == len(arrivals(spec))


def test_a_run_that_is_over_cuts_what_still_runs(tmp_path: Path) -> None:
    run = virtual(
        tmp_path, duration=3.0, drain=1.0, profile={"type": "held", "agents": 4},
        archetypes={"fixed": {"output_tokens": 20_000.0}},
    )  # fmt: skip
    calls = run.calls

    assert run.header["health"]["stop_reason"] == "duration"
    assert set(calls.status.tolist()) == {"cancelled"}
    assert calls.end.tolist() == [4.0] * 4
    assert set(run.sessions.outcome.tolist()) == {"unfinished"}
    assert (calls.output_tokens > 200).all()


def test_a_token_limit_ends_a_run_gently(tmp_path: Path) -> None:
    run = virtual(
        tmp_path, sessions=1_000, profile={"type": "held", "agents": 4}, limits={"tokens": 50_000},
        archetypes={"fixed": {"steps": 30, "tools": [{"name": "nap", "seconds": 0.5}]}},
    )  # fmt: skip

    assert run.header["health"]["stop_reason"] == "max_tokens"
    assert 50_000 <= run.calls.input_tokens.sum() + run.calls.output_tokens.sum() < 80_000
    assert set(run.calls.status.tolist()) == {"ok"}  # calls under way were answered
    assert "unfinished" in set(run.sessions.outcome.tolist())


def test_calls_that_wait_too_long_time_out_and_are_tried_again(tmp_path: Path) -> None:
    run = virtual(
        tmp_path, sessions=2, profile={"type": "held", "agents": 2}, box={"seats": 1},
        archetypes={"fixed": {"output_tokens": 1_000.0}}, endpoint={"timeouts": {"first_token": 2.0}},
        retry={"attempts": 2},
    )  # fmt: skip
    calls = run.calls
    late = calls.status == "timeout_first"

    assert late.sum() == 1
    assert (calls.end - calls.sent)[late] == approx(2.0)
    assert np.isnan(calls.first[late][0])
    assert calls.output_tokens[late] == [0]
    assert sorted(run.sessions.outcome.tolist()) == ["done", "failed"]  # a time-out after sending is not tried again


def test_a_whole_call_times_out_too(tmp_path: Path) -> None:
    run = virtual(tmp_path, sessions=1, archetypes={"fixed": {"output_tokens": 2_000.0}}, itl=True,
                  endpoint={"timeouts": {"first_token": 1.0, "call": 3.0}})  # fmt: skip

    assert run.calls.status.tolist() == ["timeout_call"]
    assert run.calls.end.tolist() == approx([3.0])
    assert run.calls.output_tokens[0] == approx(3.0 / 0.0112, rel=0.05)


def test_a_replica_that_dies_breaks_its_calls_and_agents_try_again(tmp_path: Path) -> None:
    run = virtual(
        tmp_path, sessions=8, profile={"type": "held", "agents": 8}, archetypes={"fixed": {"output_tokens": 200.0}},
        box={"replicas": 2, "failures": [{"at": 1.0, "replica": 1, "after": 100.0}]},
    )  # fmt: skip
    calls = run.calls

    assert (calls.status == "reset").sum() == 4
    assert set(calls.end[calls.status == "reset"].tolist()) == {1.0}
    assert set(run.sessions.outcome.tolist()) == {"done"}
    assert (calls.attempt[calls.sent > 1.0] == 1).all()


def test_quotas_and_queues_turn_calls_away(tmp_path: Path) -> None:
    crowd = {"type": "held", "agents": 20}
    quota = virtual(tmp_path / "a", sessions=20, profile=crowd, box={"quota": {"requests": 10}}, retry={"attempts": 1})
    queue = virtual(tmp_path / "b", sessions=20, profile=crowd, box={"seats": 1, "queued": 3}, retry={"attempts": 1})
    waited = virtual(tmp_path / "c", sessions=12, profile=crowd, box={"quota": {"requests": 10}}, retry={"attempts": 9})

    assert (quota.calls.status == "http_429").sum() == 10
    assert "http_503" in set(queue.calls.status.tolist())
    assert set(waited.sessions.outcome.tolist()) == {"done"}
    assert waited.sessions.end.max() > 6.0  # what the server said: a request becomes free every six seconds


@pytest.mark.parametrize(("fault", "status"), [("error", "http_500"), ("reset", "reset"), ("broken", "error_event")])
def test_faults_made_on_purpose_are_met(fault: str, status: str, tmp_path: Path) -> None:
    run = virtual(tmp_path, sessions=200, profile={"type": "held", "agents": 20}, box={"faults": {fault: 0.3}},
                  retry={"attempts": 1})  # fmt: skip
    share = (run.calls.status == status).mean()

    assert set(run.calls.status.tolist()) == {"ok", status}
    assert share == approx(0.3, abs=0.1)  # three standard errors: sqrt(0.3 · 0.7 / 200)
    if fault != "error":
        assert (run.calls.output_tokens[run.calls.status == status] == 33).all()  # half of 64, and one


def test_stalls_and_slow_starts_take_their_time(tmp_path: Path) -> None:
    faults = {"stall": 0.5, "slow": 0.5, "stall_seconds": 10.0, "slow_seconds": 5.0}
    calls = virtual(tmp_path, sessions=40, profile={"type": "held", "agents": 40}, box={"faults": faults}).calls
    slow = calls.first - calls.sent > 5.0

    assert 8 < slow.sum() < 32
    assert (calls.end - calls.first)[~slow].min() > 10.0
    assert (calls.end - calls.first)[slow].max() < 5.0


def test_tenants_are_named(tmp_path: Path) -> None:
    calls = virtual(tmp_path, sessions=4, profile={"type": "held", "agents": 4},
                    tenants=[{"name": "a"}, {"name": "b"}]).calls  # fmt: skip

    assert sorted(calls.tenant.tolist()) == ["a", "a", "b", "b"]


@pytest.mark.parametrize(
    ("plain", "says"),
    [
        ({"endpoint": {"url": "http://127.0.0.1:1/v1"}}, "url"),
        ({"endpoint": {"api": "completions"}}, "completions"),
        ({"tenants": [{"name": "a", "requests_per_minute": 5}]}, "quotas"),
        ({"mode": "live", "archetypes": {"fixed": {"python_tools": [{"function": "math:sqrt"}]}}}, "python tools"),
        ({"archetypes": {"fixed": {"system_tokens": 200_000}}}, "context is 131,072"),
    ],
)
def test_what_virtual_time_cannot_do_is_refused(plain: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=says):
        virtual(tmp_path, sessions=1, **plain)


def test_the_report_of_a_simulated_run_says_so(tmp_path: Path) -> None:
    run = virtual(tmp_path, sessions=3)
    folder = next(tmp_path.iterdir())
    page = write_report(folder)
    summary = json.loads((folder / "summary.json").read_text())

    assert "SIMULATED" in page.read_text().upper()
    assert run.header["virtual"] is True
    assert summary["tokens"]["output"] == 3 * 64
