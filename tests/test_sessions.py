"""The loop that drives chains, with a ten-line endpoint and a clock that jumps."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest

from agentload.quota import Quota
from agentload.session import Clock, Lane, World, run_agent
from agentload.spec import Retry
from agents.chain import Agent, Chain, Chat, Context, Message, Outcome, Reply, Spawn, ToolCall, Wait
from agents.endpoint import Emit, Place
from collectors.load import from_records
from collectors.metrics import send_lag
from collectors.records import Call, Session, Tool
from tests.jumping import Jumping, run

QUICK = Retry(first_seconds=0.01)


class Endpoint:
    """Answers after `seconds`, with the given statuses in turn, then "ok"."""

    def __init__(self, clock: Clock, statuses: tuple[str, ...] = (), seconds: float = 0.0, pause: float | None = None):
        self.clock, self.statuses, self.seconds, self.pause = clock, list(statuses), seconds, pause
        self.open = self.most = 0

    async def send(self, chat: Chat, place: Place, emit: Emit) -> Reply:
        sent = self.clock.now()
        self.open += 1
        self.most = max(self.most, self.open)
        status = "cancelled"
        try:
            await asyncio.sleep(self.seconds)
            status = self.statuses.pop(0) if self.statuses else "ok"
        finally:
            self.open -= 1
            end = self.clock.now()
            emit(Call(*place, sent=sent, opened=end, first=end, last=end, end=end, status=status, input_tokens=10,
                      output_tokens=2, cached_tokens=4))  # fmt: skip
        return Reply(status, "hi", input_tokens=10, output_tokens=2, retry_after=self.pause)

    async def close(self) -> None: ...


def ask() -> Chat:
    return Chat(Context([Message("user", 5)]), 2)


def drive(
    chain: Chain,
    during: Callable[[World], Coroutine[Any, Any, None]] | None = None,
    retry: Retry = QUICK,
    quota: Quota | None = None,
    waits: bool = False,
    **endpoint: Any,
) -> tuple[list[Any], Endpoint]:
    """The records of a session, and its endpoint. With `waits`, by the real clock."""
    records: list[Any] = []

    async def main() -> Endpoint:
        clock = Clock() if waits else Jumping()
        client = Endpoint(clock, **endpoint)
        world = World(lambda tenant, session: Lane(client, retry, quota=quota), clock, records.append, seed=0)
        task = asyncio.create_task(run_agent(Agent("test", chain), 7, "", clock.now(), world))
        if during:
            await during(world)
        await asyncio.wait({task})
        assert world.alive == world.in_flight == 0
        if not task.cancelled():
            task.result()
        return client

    return records, asyncio.run(main()) if waits else run(main())


def calls(records: list[Any]) -> list[Call]:
    return [record for record in records if isinstance(record, Call)]


def session(records: list[Any], agent: str = "") -> Session:
    (found,) = [record for record in records if isinstance(record, Session) and record.agent == agent]
    return found


def test_a_session_is_recorded_with_everything_it_did() -> None:
    def chain() -> Chain:
        yield ask()
        yield [ToolCall("a", seconds=0.02, tokens=5), ToolCall("b", seconds=0.05, ok=False)]
        yield Wait(0.03)
        yield ask()
        return Outcome("done", intents=1)

    records, _ = drive(chain(), seconds=0.01)
    made, tools, row = calls(records), [r for r in records if isinstance(r, Tool)], session(records)

    assert [(c.session, c.agent, c.step, c.attempt) for c in made] == [(7, "", 0, 0), (7, "", 1, 0)]
    assert [(t.name, t.ok, round(t.end - t.start, 3)) for t in tools] == [("a", True, 0.02), ("b", False, 0.05)]
    assert (row.outcome, row.steps, row.calls, row.tool_calls, row.intents) == ("done", 2, 2, 2, 1)
    assert (row.input_tokens, row.cached_tokens, row.output_tokens) == (20, 8, 4)
    assert row.tool_seconds == pytest.approx(0.05)
    assert row.wait_seconds == pytest.approx(0.03)
    assert row.model_seconds == pytest.approx(sum(c.end - c.sent for c in made))
    assert row.end - row.start == pytest.approx(row.model_seconds + 0.08)


def test_a_step_is_due_when_its_tools_and_its_person_were_done() -> None:
    def chain() -> Chain:
        yield ask()
        yield [ToolCall("a", seconds=0.05)]
        yield Wait(0.05)
        yield ask()
        return Outcome()

    records, _ = drive(chain())
    first, second = calls(records)

    assert second.due - first.end == pytest.approx(0.1)
    assert second.sent - second.due == pytest.approx(0.0)


def test_sub_agents_run_side_by_side_and_their_parent_waits_for_the_last() -> None:
    def child(pause: float) -> Chain:
        yield ask()
        yield Wait(pause)
        yield ask()
        return Outcome("done", 9)

    told: list[Any] = []

    def parent() -> Chain:
        yield ask()
        told.extend((yield Spawn(tuple(Agent("child", child(pause)) for pause in (0.02, 0.06, 0.04)))))
        yield ask()
        return Outcome()

    records, endpoint = drive(parent(), seconds=0.02)
    row, children = session(records), [session(records, str(i)) for i in range(3)]

    assert endpoint.most == 3
    assert told == [Outcome("done", 9)] * 3
    assert (row.children, row.calls) == (3, 2)
    assert [c.archetype for c in children] == ["child"] * 3
    longest = max(c.end for c in children) - min(c.start for c in children)
    assert row.join_seconds == pytest.approx(longest)
    assert calls(records)[-1].due >= max(c.end for c in children)


@pytest.mark.parametrize("status", ["http_429", "http_503", "reset", "connect_failed"])
def test_a_call_that_may_pass_is_tried_again_and_every_attempt_is_a_record(status: str) -> None:
    def chain() -> Chain:
        reply = yield ask()
        return Outcome("done" if reply.ok else "failed")

    records, _ = drive(chain(), statuses=(status, status))

    assert [(c.step, c.attempt, c.status) for c in calls(records)] == [(0, 0, status), (0, 1, status), (0, 2, "ok")]
    row = session(records)
    assert (row.outcome, row.steps, row.calls) == ("done", 1, 3)
    assert row.wait_seconds > 0


@pytest.mark.parametrize("status", ["http_400", "http_401", "timeout_first", "truncated", "error_event", "bad_reply"])
def test_a_call_that_will_not_pass_is_not_tried_again(status: str) -> None:
    def chain() -> Chain:
        reply = yield ask()
        return Outcome("done" if reply.ok else "failed")

    records, _ = drive(chain(), statuses=(status, status))

    assert [c.status for c in calls(records)] == [status]
    assert (session(records).outcome, session(records).error) == ("failed", status)


def test_the_last_attempt_is_the_last_and_a_servers_pause_is_kept() -> None:
    def chain() -> Chain:
        reply = yield ask()
        return Outcome("done" if reply.ok else "failed")

    records, _ = drive(chain(), statuses=("http_429",) * 9, pause=0.05, retry=Retry(attempts=3))
    made = calls(records)

    assert len(made) == 3
    assert np.diff([c.due for c in made]) == pytest.approx([0.05, 0.05])
    assert session(records).outcome == "failed"


def test_waiting_for_ones_own_quota_is_recorded_apart_and_is_no_send_lag() -> None:
    def chain() -> Chain:
        yield ask()
        yield ask()
        return Outcome()

    records, _ = drive(chain(), quota=Quota(1, None, period=0.2), waits=True)
    first, second = from_records({}, calls(records)).calls, calls(records)[1]

    assert calls(records)[0].throttled < 0.01
    assert second.throttled == pytest.approx(0.2, abs=0.05)
    assert second.sent - second.due >= second.throttled
    assert send_lag(first).max() < 0.01


def test_a_gentle_end_wakes_the_sleeping_and_lets_calls_finish() -> None:
    def sleeper() -> Chain:
        yield Wait(60)
        return Outcome()

    def caller() -> Chain:
        yield ask()
        yield ask()
        return Outcome()

    async def end(world: World) -> None:
        await asyncio.sleep(0.03)
        world.end()

    slept, _ = drive(sleeper(), end)
    called, _ = drive(caller(), end, seconds=0.1)

    assert session(slept).outcome == "unfinished"
    assert [c.status for c in calls(called)] == ["ok"]
    assert session(called).outcome == "unfinished"


@pytest.mark.parametrize(("ending", "outcome"), [(True, "unfinished"), (False, "cancelled")])
def test_what_is_cut_off_is_recorded_children_included(ending: bool, outcome: str) -> None:
    def child() -> Chain:
        yield ask()
        return Outcome()

    def parent() -> Chain:
        yield Spawn((Agent("c", child()), Agent("c", child())))
        return Outcome()

    async def main() -> list[Any]:
        records: list[Any] = []
        clock = Clock()
        lane = Lane(Endpoint(clock, seconds=60), Retry())
        world = World(lambda tenant, session: lane, clock, records.append, 0)
        task = asyncio.create_task(run_agent(Agent("p", parent()), 1, "", 0.0, world))
        await asyncio.sleep(0.03)
        world.ending = ending
        task.cancel()
        await asyncio.wait({task})
        return records

    records = asyncio.run(main())

    assert [c.status for c in calls(records)] == ["cancelled", "cancelled"]
    assert {(r.agent, r.outcome) for r in records if isinstance(r, Session)} == {
        ("", outcome), ("0", outcome), ("1", outcome)}  # fmt: skip


def double(x: int) -> int:
    return 2 * x


async def slowly(x: int) -> dict[str, int]:
    await asyncio.sleep(0.03)
    return {"x": x}


def broken(x: int) -> None:
    raise RuntimeError("no luck")


def test_python_tools_are_called_and_what_they_raise_is_their_result() -> None:
    results: list[Any] = []

    def chain() -> Chain:
        results.extend(
            (
                yield [
                    ToolCall("double", '{"x": 4}', kind="python", run=double),
                    ToolCall("slowly", '{"x": 5}', kind="python", run=slowly),
                    ToolCall("broken", '{"x": 6}', kind="python", run=broken),
                    ToolCall("double", '{"y": 6}', kind="python", run=double),
                ]
            )
        )
        return Outcome()

    records, _ = drive(chain())
    tools = {t.name + str(t.ok): t for t in records if isinstance(t, Tool)}

    assert [r.text for r in results[:3]] == ["8", '{"x":5}', "Error: RuntimeError: no luck"]
    assert results[3].text.startswith("Error: TypeError: double() got an unexpected keyword")
    assert tools["slowlyTrue"].end - tools["slowlyTrue"].start >= 0.03
    assert tools["brokenFalse"].error == "Error: RuntimeError: no luck"


def test_a_bug_in_a_chain_is_not_hidden() -> None:
    def chain() -> Chain:
        yield ask()
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as raised:
        drive(chain())
    assert isinstance(raised.value.exceptions[0], ZeroDivisionError)
