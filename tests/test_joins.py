"""Sub-agents: how long their parent waits for them, what becomes of the others, and how many there may be."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from agentload.rehearse import mid_session, rehearse
from agents.archetypes import FIXED
from agents.chain import Agent, Chain, Chat, Join, Outcome, Spawn, Wait
from agents.draws import Dice
from agents.sized import delegate
from collectors.load import Run
from tests.test_sessions import ask, calls, drive, session
from tests.test_simulate import virtual


def worker(steps: int, status: str = "done", started: tuple[Agent, ...] = ()) -> Agent:
    """Makes so many calls, and starts others that it does not wait for."""

    def chain() -> Chain:
        if started:
            yield Spawn(started, wait=0)
        for _ in range(steps):
            yield ask()
        return Outcome(status, steps)

    return Agent("worker", chain())


def parent(told: list[Any], *asks: Any) -> Chain:
    """Asks for these in turn, notes the answers, and makes a call at the end."""
    for what in asks:
        told.append((yield what))
    yield ask()
    return Outcome()


def words(outcomes: list[Outcome]) -> list[str]:
    return [outcome.status for outcome in outcomes]


def test_the_first_to_succeed_ends_the_wait_and_the_others_are_cancelled() -> None:
    told: list[Any] = []
    spawn = Spawn((worker(3), worker(1), worker(1, "failed"), worker(3)), wait=1, cancel=True)
    records, _ = drive(parent(told, spawn), seconds=0.02)
    ended = [session(records, str(n)) for n in range(4)]

    assert words(told[0]) == ["cancelled", "done", "failed", "cancelled"]
    assert [s.outcome for s in ended] == words(told[0])
    assert [c.status for c in calls(records) if c.agent in ("0", "3")].count("cancelled") == 2
    first = ended[1].end - min(s.start for s in ended)
    assert session(records).join_seconds == pytest.approx(first, abs=0.03)
    assert max(s.end for s in ended) < session(records).end


def test_losers_may_go_on_and_their_session_ends_with_the_last() -> None:
    told: list[Any] = []
    records, _ = drive(parent(told, Spawn((worker(6), worker(1)), wait=1)), seconds=0.02)
    row, last = session(records), session(records, "0")

    assert words(told[0]) == ["running", "done"]
    assert (last.outcome, last.steps, row.outcome) == ("done", 6, "done")
    assert row.end >= last.end > max(c.end for c in calls(records) if c.agent == "")
    assert row.join_seconds == pytest.approx(row.end - row.start - row.model_seconds, abs=0.03)


def test_a_quorum_counts_those_that_succeed_and_waits_no_longer_than_for_all() -> None:
    told: list[Any] = []
    enough = Spawn((worker(1, "failed"), worker(1), worker(2), worker(9)), wait=2, cancel=True)
    never = Spawn((worker(1, "failed"), worker(2)), wait=2, cancel=True)
    drive(parent(told, enough, never), seconds=0.02)

    assert words(told[0]) == ["failed", "done", "done", "cancelled"]
    assert words(told[1]) == ["failed", "done"]


def test_a_parent_can_join_later_what_it_started_in_the_background() -> None:
    told: list[Any] = []
    records, _ = drive(parent(told, Spawn((worker(2), worker(3)), wait=0), ask(), Join((1,)), Join()), seconds=0.02)
    children = [session(records, str(n)) for n in range(2)]

    assert words(told[0]) == ["running", "running"]
    assert told[2] == [Outcome("done", 3)]
    assert told[3] == [Outcome("done", 2), Outcome("done", 3)]
    assert calls(records)[-1].due >= max(s.end for s in children)


def test_cancelling_an_agent_cancels_all_that_it_has_started() -> None:
    told: list[Any] = []
    deep = worker(9, started=(worker(9, started=(worker(9),)), worker(1)))
    records, endpoint = drive(parent(told, Spawn((worker(2), deep), wait=1, cancel=True)), seconds=0.02)
    ended = {path: session(records, path).outcome for path in ("0", "1", "1.0", "1.0.0", "1.1")}

    assert ended == {"0": "done", "1": "cancelled", "1.0": "cancelled", "1.0.0": "cancelled", "1.1": "done"}
    assert endpoint.open == 0


def brood(**fields: Any) -> dict[str, Any]:
    """Two steps, and between them four sub-agents of one to eight steps."""
    child = {"base": "fixed", "steps": {"type": "uniform", "low": 1, "high": 8}}
    lead = {"base": "fixed", "steps": 2, "children": 4, "child": "kid"} | fields
    return {"population": [{"archetype": "lead"}], "archetypes": {"lead": lead, "kid": child}, "sessions": 1}


def ends(run: Run) -> tuple[np.ndarray[Any, Any], float]:
    """When each sub-agent ended, in order, and when the parent went on."""
    s, c = run.sessions, run.calls
    return np.sort(s.end[s.agent != ""]), float(c.sent[(c.agent == "") & (c.step == 1)][0])


@pytest.mark.parametrize(
    ("fields", "waited_for"),
    [({"join": "first"}, 1), ({"join": "quorum"}, 2), ({"join": "quorum", "quorum": 0.7}, 3), ({"join": "all"}, 4)],
)
@pytest.mark.parametrize("losers", ["cancel", "go on"])
def test_a_join_is_as_long_in_virtual_time(
    fields: dict[str, Any], waited_for: int, losers: str, tmp_path: Path
) -> None:
    run = virtual(tmp_path, **brood(**fields, losers=losers))
    s, c = run.sessions, run.calls
    times, went_on = ends(run)
    root = s.agent == ""

    assert went_on == times[waited_for - 1]
    lost = (s.outcome == "cancelled").sum()
    assert lost == (4 - waited_for if losers == "cancel" else 0)
    assert (c.status == "cancelled").sum() == lost  # each was in the middle of a call
    assert s.end[root][0] == max(times[-1], c.end[c.agent == ""].max())
    assert s.outcome[root][0] == "done"


def test_background_sub_agents_keep_nobody_waiting_but_the_end(tmp_path: Path) -> None:
    run = virtual(tmp_path, **brood(join="background"))
    s, c = run.sessions, run.calls
    root, mine = s.agent == "", c.agent == ""

    assert c.sent[mine][1] == c.end[mine][0]
    assert set(s.outcome.tolist()) == {"done"}
    assert s.end[root][0] == s.end.max() > c.end[mine].max()
    assert s.join_seconds[root][0] == pytest.approx(s.end[root][0] - c.end[mine].max())


def test_a_seat_is_free_when_the_last_of_its_session_has_ended(tmp_path: Path) -> None:
    s = virtual(tmp_path, **brood(join="background") | {"sessions": 2}).sessions

    assert s.start[(s.agent == "") & (s.session == 1)] == s.end[s.session == 0].max()


def test_a_session_has_no_more_agents_than_it_may(tmp_path: Path) -> None:
    """Two children each, to a depth of 40: without the limit, a session of 2 ** 41 agents."""
    lead = {"base": "fixed", "steps": 2, "children": 2, "child": "lead", "depth": 40}
    kinds = {"population": [{"archetype": "lead"}], "archetypes": {"lead": lead}}
    run = virtual(tmp_path, **kinds, sessions=3, max_agents_per_session=50)
    s = run.sessions

    assert np.bincount(s.session).tolist() == [50] * 3
    assert s.children.sum() == 3 * 49
    assert s.refused.sum() == 3 * (2 * 50 - 49)
    assert set(s.outcome.tolist()) == {"done"}


def test_the_limit_on_agents_holds_in_real_time_too() -> None:
    told: list[Any] = []
    records, _ = drive(parent(told, Spawn(tuple(worker(1) for _ in range(1_002)))), seconds=0.0)

    assert words(told[0]) == ["done"] * 999 + ["refused"] * 3
    assert (session(records).children, session(records).refused) == (999, 3)


def test_sub_agents_that_fail_are_started_anew_as_often_as_the_archetype_says() -> None:
    kind = structs.replace(FIXED, children=3.0, child="kid", respawns=2)
    asks, answer, chain = [], None, delegate(kind, Dice(np.random.default_rng(0)), lambda name, rng: worker(1))
    with pytest.raises(StopIteration) as stop:
        while True:
            asks.append(chain.send(answer))
            answer = [Outcome("failed"), Outcome("done", 5), Outcome("failed")][-len(asks[-1].agents) :]

    assert [len(spawn.agents) for spawn in asks] == [3, 2, 1]
    assert stop.value.value == 10  # tokens of the two that came to something


def test_a_rehearsal_takes_as_long_as_the_join() -> None:
    def lasts(**how: Any) -> float:
        children = tuple(Agent("c", iter_wait(seconds)) for seconds in (30.0, 10.0, 20.0))

        def chain() -> Chain:
            yield Spawn(children, **how)
            yield Wait(1.0)
            return Outcome()

        return rehearse(Agent("p", chain()), []).seconds

    assert [lasts(), lasts(wait=1), lasts(wait=2), lasts(wait=0)] == [31.0, 30.0, 30.0, 30.0]


def iter_wait(seconds: float) -> Chain:
    yield Wait(seconds)
    return Outcome()


def test_what_a_session_that_begins_in_its_middle_joins_may_lie_in_its_past() -> None:
    def chain() -> Chain:
        first = yield Spawn((Agent("c", iter_wait(1.0)),), wait=0)
        yield ask()
        second = yield Spawn((Agent("c", iter_wait(1.0)), Agent("c", iter_wait(1.0))), wait=0)
        assert len(first) + len(second) == 3
        got = [(yield Join((0, 2))), (yield Join(())), (yield Join((0,)))]
        yield Wait(float(sum(map(len, got))))
        return Outcome()

    agent = mid_session(Agent("p", chain()), Agent("p", chain()), np.random.default_rng(0))
    asks: list[Any] = []
    answer: Any = None
    with pytest.raises(StopIteration):
        while True:
            asks.append(agent.chain.send(answer))
            match asks[-1]:
                case Spawn(agents):
                    answer = [Outcome("running")] * len(agents)
                case Join(numbers):
                    answer = [Outcome("done")] * (len(numbers) or 2)
                case _:
                    answer = None

    assert isinstance(asks[0], Chat)
    assert asks[2:] == [Join((1,)), Join(()), Wait(2.0 + 3.0 + 1.0)]
