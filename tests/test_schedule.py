"""Scheduled agents wake on a grid of the clock, whatever they did before; what their harness did is in the records."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest import approx

from agentload.rehearse import mid_session, rehearse
from agents.archetypes import BATCH, FIXED
from agents.chain import Agent, Chain, Note, Outcome, Until, Wait
from agents.schedule import Alarm, Schedule
from agents.sized import sized
from collectors.habits import habits
from collectors.load import Run
from tests.test_chains import ROOM, play
from tests.test_sessions import ask, calls, drive, session
from tests.test_simulate import virtual


def nightly(schedule: Schedule, work: list[float]) -> Chain:
    """Wakes by the schedule, and is then at work for so many seconds."""
    alarm, rng = Alarm(schedule), np.random.default_rng(0)
    for seconds in work:
        yield from alarm.next(rng)
        yield ask()
        yield Wait(seconds)
    return Outcome()


def waking(schedule: Schedule, work: list[float], start: float = 0.0) -> tuple[list[float], int]:
    """When such an agent begins its turns, its calls taking no time, and how many instants it missed."""
    now, begun, missed, chain, answer = start, list[float](), 0, nightly(schedule, work), None
    while True:
        try:
            what: Any = chain.send(answer)
        except StopIteration:
            return begun, missed
        answer = None
        match what:
            case Until(instant):
                now = max(now, instant)
                answer = now
            case Wait(seconds):
                now += seconds
            case Note():
                missed += what.times
            case _:
                begun.append(now)


@pytest.mark.parametrize(
    ("schedule", "work", "start", "begun", "missed"),
    [
        (Schedule(10), [1, 1, 1], 3.0, [10, 20, 30], 0),
        (Schedule(10), [1, 1], 20.0, [20, 30], 0),
        (Schedule(10, aligned=False), [1, 1, 1], 3.0, [3, 13, 23], 0),
        (Schedule(10), [1, 25, 1], 0.0, [0, 10, 40], 2),
        (Schedule(10, busy="queue"), [1, 25, 1, 1, 1], 0.0, [0, 10, 35, 36, 40], 2),
        (Schedule(10, jitter=2.0), [1, 9, 1], 0.0, [2, 12, 22], 0),
        (Schedule(10, jitter=2.0), [10.5, 1], 0.0, [2, 22], 1),
    ],
)
def test_turns_begin_on_the_grid(
    schedule: Schedule, work: list[float], start: float, begun: list[float], missed: int
) -> None:
    assert waking(schedule, work, start) == (begun, missed)


def test_jitter_is_drawn_for_every_turn_and_does_not_add_up() -> None:
    begun, _ = waking(Schedule(10, jitter=BATCH.schedule.jitter if BATCH.schedule else 0.0), [0.0] * 200)
    after = np.array(begun) % 10

    assert after.max() < 2.0
    assert np.var(after) == approx(4 / 12, rel=0.2)
    assert np.diff(begun).mean() == approx(10, abs=0.02)


def test_the_clock_of_a_run_wakes_agents_too() -> None:
    records, _ = drive(nightly(Schedule(0.1, aligned=False), [0.0, 0.15, 0.0]), seconds=0.01)
    made, row = calls(records), session(records)

    assert np.diff([c.due for c in made]) == approx([0.1, 0.2])
    assert row.missed == 1
    assert row.wait_seconds == approx(row.end - row.start - row.model_seconds)


def test_what_ends_a_run_wakes_who_sleeps_until_an_instant() -> None:
    def chain() -> Chain:
        yield Until(60.0)
        return Outcome()

    async def end(world: Any) -> None:
        await asyncio.sleep(0.02)
        world.end()

    records, _ = drive(chain(), end)

    assert session(records).outcome == "unfinished"


def batch(out: Path, schedule: dict[str, Any], **plain: Any) -> Run:
    kind = {"steps": 1, "turns": 4, "turn_tokens": 20.0, "schedule": schedule}
    return virtual(out, archetypes={"fixed": kind}, profile={"type": "held", "agents": 5, "stagger": 8}, **plain)


def test_aligned_agents_wake_together_and_others_by_their_own_start(tmp_path: Path) -> None:
    together = batch(tmp_path / "a", {"every": 10}, sessions=5).calls
    apart = batch(tmp_path / "b", {"every": 10, "aligned": False}, sessions=5)

    assert sorted(set(together.sent.tolist())) == [0.0, 10.0, 20.0, 30.0, 40.0]  # those that came later begin later
    assert (together.due == together.sent).all()
    start = dict(zip(apart.sessions.session.tolist(), apart.sessions.start.tolist(), strict=True))
    for number, sent in zip(apart.calls.session.tolist(), apart.calls.sent.tolist(), strict=True):
        assert (sent - start[number]) / 10 == approx(round((sent - start[number]) / 10))


def test_no_schedule_is_slower_than_the_longest_wait(tmp_path: Path) -> None:
    calls = batch(tmp_path, {"every": 3_600}, sessions=5, longest_wait=2.0).calls

    assert calls.sent.max() == 14.0  # the last agent begins at 6.4 s, and wakes at 8, 10, 12 and 14


@pytest.mark.parametrize("busy", ["skip", "queue"])
def test_work_that_takes_longer_than_the_period_is_missed_or_made_up_for(busy: str, tmp_path: Path) -> None:
    """A call of 64 tokens takes about 0.7 s, four turns on a grid of half a second: each but the first is late."""
    run = batch(tmp_path, {"every": 0.5, "busy": busy}, sessions=5)

    assert run.sessions.missed.tolist() == [3] * 5
    assert habits(run)["missed"] == 15
    late = run.calls.sent % 0.5
    assert (late == 0).all() if busy == "skip" else (late > 0).sum() == 15


def test_an_agent_in_the_middle_of_its_session_goes_on_with_its_schedule() -> None:
    def agent() -> Agent:
        return Agent("a", nightly(Schedule(10.0), [1.0] * 50))

    asks = play(mid_session(agent(), agent(), np.random.default_rng(1)).chain)[0]
    instants = [what.instant for what in asks if isinstance(what, Until)]

    assert 5 < len(instants) < 50
    assert instants[:3] == [10.0, 10.0 + 10.0, 30.0]
    assert rehearse(agent(), []).seconds == approx(491.0, abs=1.0)


def test_what_a_harness_does_to_a_history_is_noted(tmp_path: Path) -> None:
    kind = {
        "steps": 60,
        "growth_tokens": 3_000.0,
        "at_limit": "compact",
        "compact_at": 6_000.0,
        "reset": 0.1,
        "rewrite": 0.2,
    }
    run = virtual(tmp_path, archetypes={"fixed": kind}, sessions=3, duration=9.0, drain=0.0)
    row = {name: int(getattr(run.sessions, name).sum()) for name in ("compactions", "resets", "rewrites")}
    asks = play(sized("fixed", FIXED, np.random.default_rng(0), 0, ROOM))[0]

    assert "unfinished" in run.sessions.outcome.tolist()
    assert all(row.values())  # also of sessions that were cut off
    assert {name: habits(run)[name] for name in row} == row
    assert not [what for what in asks if isinstance(what, Note)]
