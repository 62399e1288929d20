"""Sub-agents: how long their parent waits for them, what becomes of the others, and how many there may be."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from agentload.expect import expect
from agentload.rehearse import mid_session, rehearse
from agentload.spec import decode
from agents.archetypes import CODER, FIXED, Archetype
from agents.chain import Agent, Chain, Chat, Join, Outcome, Reply, Spawn, ToolCall, ToolResult, Wait
from agents.dice import Dice
from agents.live import live
from agents.sized import delegate
from agents.tools import Toolbox
from collectors.load import Run
from tests.test_chains import ROOM
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


def test_what_to_expect_of_agents_without_end_is_said_at_once() -> None:
    lead = {"base": "fixed", "steps": 2, "children": 2, "child": "lead", "depth": 40}
    plain = {"population": [{"archetype": "lead"}], "archetypes": {"lead": lead}, "max_agents_per_session": 8}
    expected = expect(decode(plain | {"sessions": 3, "profile": {"type": "held", "agents": 1}}), ROOM)

    assert expected is not None
    assert (expected["sessions"], expected["calls"]) == (3, 3 * 8 * 2)


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


def lead(team: Archetype, started: list[tuple[str, str]], depth: int = 1) -> Chain:
    """A live agent that may start workers."""

    def child(name: str, r: np.random.Generator, task: str) -> Agent:
        started.append((name, task))
        return worker(1)

    return live("lead", team, Toolbox(team), np.random.default_rng(0), 0, ROOM, child=child if depth else None)


def calling(*names: str) -> Reply:
    """A model's reply that calls these tools."""
    calls = tuple(
        ToolCall(name, f'{{"task": "t{i}"}}' if name.startswith("start") else '{"command": "ls"}', str(i))
        for i, name in enumerate(names)
    )
    return Reply("ok", "", tool_calls=calls, finish_reason="tool_calls", input_tokens=100, output_tokens=10)


TEAM = structs.replace(CODER, children=3.0, child="kid", spawns=1.0, variants=[])


def test_a_live_model_starts_sub_agents_by_a_tool_beside_its_other_tools() -> None:
    started: list[tuple[str, str]] = []
    chain = lead(TEAM, started)
    chat = next(chain)
    assert isinstance(chat, Chat)
    assert "start_kid" in [tool.name for tool in chat.context.tools]
    spawn = chain.send(calling("start_kid", "shell", "start_kid"))
    assert isinstance(spawn, Spawn) and (len(spawn.agents), spawn.wait) == (2, 0)
    tools = chain.send([Outcome("running")] * 2)
    assert isinstance(tools, list) and [call.name for call in tools] == ["shell"]
    assert chain.send([ToolResult(40)]) == Join((0, 1), None, cancel=True)
    again = chain.send([Outcome("done", 9, "Found it."), Outcome("failed")])
    assert isinstance(again, Chat)
    told = [message.text for message in again.context.messages if message.role == "tool"]

    assert started == [("kid", "t0"), ("kid", "t2")]
    assert told == ["Found it.", "ok:", "(failed)"]

    one = chain.send(calling("start_kid", "start_kid"))  # one more of three is left
    assert isinstance(one, Spawn) and len(one.agents) == 1
    assert chain.send([Outcome("running")]) == Join((2,), None, cancel=True)
    last = chain.send([Outcome("done", 9, "Nothing.")])
    assert isinstance(last, Chat)
    assert last.context.messages[-1].text == "Error: as many agents as there may be have been started."


@pytest.mark.parametrize(("team", "depth"), [(TEAM, 0), (structs.replace(TEAM, children=0.0), 1)])
def test_a_live_model_that_may_start_none_is_not_offered_any(team: Archetype, depth: int) -> None:
    chain = lead(team, [], depth)
    chat = next(chain)
    assert isinstance(chat, Chat)
    assert "start_kid" not in [tool.name for tool in chat.context.tools]
    asked = chain.send(calling("start_kid"))

    assert isinstance(asked, list) and asked[0].kind == "unknown"


def test_live_sub_agents_are_joined_as_their_archetype_says() -> None:
    first = lead(structs.replace(TEAM, join="first", losers="go on"), [])
    background = lead(structs.replace(TEAM, join="background"), [])
    for chain in (first, background):
        next(chain)
        chain.send(calling("start_kid", "start_kid"))

    assert first.send([Outcome("running")] * 2) == Join((0, 1), 1, cancel=False)
    chat = background.send([Outcome("running")] * 2)
    assert isinstance(chat, Chat)
    assert [m.text for m in chat.context.messages if m.role == "tool"] == ["(running)"] * 2


def test_live_agents_start_others_against_the_box(tmp_path: Path) -> None:
    kid = {"base": "fixed", "max_steps": 4}
    team = {"base": "fixed", "children": 2, "child": "kid", "spawns": 2, "join": "first"}
    run = virtual(tmp_path, mode="live", population=[{"archetype": "team"}], archetypes={"team": team, "kid": kid},
                  sessions=12, box={"habits": {"output_median": 20}})  # fmt: skip
    s = run.sessions
    children = s.children[s.agent == ""]

    assert children.mean() >= 1 and children.max() <= 4
    assert (s.agent != "").sum() == children.sum()
    assert (s.outcome == "cancelled").sum() > 0
    assert set(run.calls.archetype.tolist()) == {"team", "kid"}
