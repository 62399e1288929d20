"""What agents did beside calling, counted: by hand where that is possible, against theory where it is not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collectors.habits import habits, retries, sub_agents
from collectors.load import Run, from_records
from collectors.records import Call, Session
from collectors.report import write_report
from collectors.summary import summarise
from collectors.text import to_text
from tests.test_simulate import virtual


def agent(session: int, path: str = "", kind: str = "lead", children: int = 0, **fields: Any) -> Session:
    return Session(session, path, kind, 0.0, 0.0, 9.0, fields.pop("outcome", "done"), 1, 1, 1, 0, children, 0, 0, 0, 0,
                   0, 0, 0.0, 0.0, 0.0, 0.0, **fields)  # fmt: skip


def call(sent: float, attempt: int = 0, status: str = "ok") -> Call:
    return Call(0, "", "lead", 0, attempt, sent, sent, None, None, None, sent, status=status, input_tokens=100,
                output_tokens=10)  # fmt: skip


def test_children_per_agent_and_agents_per_session_are_those_of_sessions_that_ended() -> None:
    rows = [
        agent(0, children=2, refused=3), agent(0, "0", "kid", children=1), agent(0, "1", "kid"), agent(0, "0.0", "kid"),
        agent(1), agent(2, children=1, outcome="unfinished"), agent(2, "0", "kid", outcome="cancelled"),
    ]  # fmt: skip
    found = sub_agents(from_records({}, list(rows)).sessions)

    assert (found["started"], found["refused"], found["cancelled"]) == (4, 3, 1)
    assert found["reproduction"]["mean"] == pytest.approx(3 / 5)  # five agents in sessions 0 and 1, three started
    assert np.isnan(found["reproduction"]["low"])  # two sessions say nothing about their spread
    assert found["reproduction"]["archetypes"]["lead"]["mean"] == 1.0
    assert found["reproduction"]["archetypes"]["kid"]["mean"] == pytest.approx(1 / 3)
    assert (found["progeny"]["mean"], found["progeny"]["max"]) == (2.5, 4)
    assert found["by_depth"] == [2, 2, 1]


def test_the_interval_of_r_is_that_of_a_ratio_of_sums_over_sessions() -> None:
    """Ten sessions: five of one agent, five of three. R = 10 / 20; residuals ±0.5 each, so the standard error is
    sqrt(10 / 9 × 10 × 0.25) / 20."""
    rows = [agent(i, children=2 * (i % 2)) for i in range(10)]
    rows += [agent(i, str(k), "kid") for i in (1, 3, 5, 7, 9) for k in range(2)]
    r = sub_agents(from_records({}, list(rows)).sessions)["reproduction"]

    assert r["mean"] == 0.5
    assert r["high"] - r["mean"] == pytest.approx(1.96 * np.sqrt(10 / 9 * 10 * 0.25) / 20)


def test_retries_are_counted_and_their_worst_stretch_is_found() -> None:
    calm = [call(float(t)) for t in range(20)]
    storm = [call(20.0 + i / 10, attempt=i % 4, status="http_429" if i % 4 < 3 else "ok") for i in range(40)]
    found = retries(from_records({}, [*calm, *storm]).calls)

    assert found["attempts_per_call"] == pytest.approx(60 / 30)
    assert (found["again"], found["again_tokens"], found["refused"]) == (30, 30 * 110, 30)
    assert found["worst"] == {"attempts_per_call": 4.0, "from": 20.0, "seconds": 10.0}


def test_faults_of_own_agents_are_told_apart_and_the_most_frequent_comes_first() -> None:
    rows = [agent(i, outcome="broken", error="a.py:3: KeyError: 'x'" if i else "a.py:9: ValueError") for i in range(4)]
    run = from_records({}, list(rows))

    assert list(habits(run)["faults"].items()) == [("a.py:3: KeyError: 'x'", 3), ("a.py:9: ValueError", 1)]
    assert "own code    3 × a.py:3: KeyError: 'x'" in to_text(summarise(run))


def test_a_branching_population_has_the_mean_and_the_spread_of_theory(tmp_path: Path) -> None:
    """Poisson offspring of mean R: 1 / (1 - R) agents in a session, with variance R / (1 - R)³ (Harris 1963, I.13)."""
    r, sessions = 0.6, 400
    kind = {"base": "fixed", "steps": 2, "child": "lead", "depth": 1_000, "output_tokens": 2,
            "children": {"type": "poisson", "mean": r}}  # fmt: skip
    run = virtual(tmp_path, sessions=sessions, population=[{"archetype": "lead"}], archetypes={"lead": kind},
                  profile={"type": "held", "agents": 50})  # fmt: skip
    found = sub_agents(run.sessions)
    progeny = np.bincount(run.sessions.session)
    deviation = np.sqrt(r / (1 - r) ** 3)

    assert found["progeny"]["mean"] == pytest.approx(1 / (1 - r), abs=4 * deviation / np.sqrt(sessions))
    assert progeny.std() == pytest.approx(deviation, rel=0.25)
    measured = found["reproduction"]
    error = (1 - r) ** 2 * deviation / np.sqrt(sessions)  # of 1 - 1 / mean, by the delta method
    assert measured["mean"] == pytest.approx(r, abs=4 * error)
    assert measured["high"] - measured["mean"] == pytest.approx(1.96 * error, rel=0.3)
    assert measured["archetypes"]["lead"] == {k: v for k, v in measured.items() if k != "archetypes"}


def test_a_storm_of_retries_shows_in_the_report(tmp_path: Path) -> None:
    """Every attempt fails with chance p: (1 - p⁴) / (1 - p) attempts per call, with three retries."""
    p = 0.5
    lead = {"base": "fixed", "steps": 2, "children": 14, "child": "fixed"}
    virtual(tmp_path, sessions=60, population=[{"archetype": "lead"}], archetypes={"lead": lead},
            profile={"type": "held", "agents": 10}, box={"faults": {"error": p}}, retry={"attempts": 4})  # fmt: skip
    page = write_report(next(tmp_path.iterdir()))
    text = page.read_text()

    found = json.loads((page.parent / "summary.json").read_text())["habits"]["retries"]

    calls = found["again"] / (found["attempts_per_call"] - 1)
    wanted = (1 - p**4) / (1 - p)
    assert found["attempts_per_call"] == pytest.approx(wanted, abs=4 * 1.1 / np.sqrt(calls))
    assert found["worst"]["attempts_per_call"] >= found["attempts_per_call"]
    assert "What agents did beside calling" in text
    assert "calls tried again" in text


@pytest.mark.parametrize(
    ("plain", "all_", "chat", "says"),
    [
        ({"longest_wait": 2.0}, 2.0, 2.0, "no tool, person or schedule took more than 2 s"),
        ({"longest_wait": 3_600.0}, 3_600.0, 1_800.0, "people before chat agents took at most 1,800 s"),
        ({}, None, 1_800.0, "people before chat agents took at most 1,800 s"),
        (
            {"archetypes": {"chat": {"think_seconds": {"type": "exponential", "mean": 2.0}}}},
            None,
            None,
            "was cut short",
        ),
    ],
)
def test_the_report_states_the_caps_on_waiting(
    plain: dict[str, Any], all_: float | None, chat: float | None, says: str, tmp_path: Path
) -> None:
    virtual(tmp_path, sessions=2, population=[{"archetype": "chat"}], **plain)
    page = write_report(next(tmp_path.iterdir()))
    caps = json.loads((page.parent / "summary.json").read_text())["habits"]["caps"]

    assert caps == {"all": all_, "people": {"chat": chat}}
    assert says in page.read_text()


def storm(out: Path, together: int, waves: int, **lead: Any) -> tuple[dict[str, Any], Run]:
    """Ten agents, two at a time, with fourteen sub-agents each, and a limit of two requests a second."""
    kind = {"base": "fixed", "steps": waves + 1, "children": together, "spawns": waves, "child": "fixed"} | lead
    run = virtual(out, sessions=10, population=[{"archetype": "lead"}], archetypes={"lead": kind},
                  profile={"type": "held", "agents": 2}, box={"quota": {"requests": 120}},
                  retry={"attempts": 2 if lead else 4})  # fmt: skip
    return habits(run), run


def test_the_same_work_is_refused_when_it_fans_out_and_passes_in_waves(tmp_path: Path) -> None:
    """Public reports of agents' rate limits: a 14-way fan-out meets 429s, waves of two pass, and agents that are
    started again where they fail make more of them."""
    at_once, run = storm(tmp_path / "a", 14, 1)
    waves, calm = storm(tmp_path / "b", 2, 7)
    again, _ = storm(tmp_path / "c", 14, 1, respawns=5)

    assert at_once["sub_agents"]["started"] == waves["sub_agents"]["started"] == 140
    assert (at_once["retries"]["refused"], waves["retries"]["refused"]) == ((run.calls.status == "http_429").sum(), 0)
    assert at_once["retries"]["refused"] > 30
    assert (
        at_once["retries"]["worst"]["attempts_per_call"] > 1.5 > waves["retries"]["worst"]["attempts_per_call"] == 1.0
    )
    assert "failed" in run.sessions.outcome and set(calm.sessions.outcome.tolist()) == {"done"}
    assert again["sub_agents"]["started"] > 160
    assert again["retries"]["refused"] > 1.5 * at_once["retries"]["refused"]


def test_models_that_call_tools_badly_are_told_and_put_it_right(tmp_path: Path) -> None:
    run = virtual(tmp_path, mode="live", sessions=30, profile={"type": "held", "agents": 10}, scale=0.1,
                  archetypes={"support": {"turns": 2, "think_seconds": 0.0}}, population=[{"archetype": "support"}],
                  box={"habits": {"malformed": 0.2, "unknown": 0.1, "output_median": 20}})  # fmt: skip
    bad = np.isin(run.tools.kind, ["malformed", "unknown"])
    found = habits(run)["mistakes"]

    assert found == {kind: (run.tools.kind == kind).sum() for kind in ("unknown", "malformed")}
    assert bad.mean() == pytest.approx(0.28, abs=4 * np.sqrt(0.28 * 0.72 / len(bad)))
    assert (run.tools.end - run.tools.start)[bad].max() == 0.0  # the harness answers at once
    assert (run.sessions.outcome == "done").mean() > 0.8  # and the model goes on
    assert all(text.startswith("Error: ") for text in run.tools.error[bad])
