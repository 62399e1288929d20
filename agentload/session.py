"""One loop drives every chain: give it the answer, take what it asks for next, get that from the world.

Absolute deadlines throughout: a step is due when the last one ended plus what tools or people took, and the gap between
`due` and `sent` is our own fault.
"""

import asyncio
import contextlib
import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter, time
from typing import Any

import msgspec
from msgspec import structs

from agentload.quota import Quota
from agentload.spec import Retry
from agentload.tally import Tally
from agents.answer import whole
from agents.chain import Agent, Chain, Chat, Join, Note, Outcome, Reply, Spawn, ToolCall, ToolResult, Until, Wait
from agents.endpoint import Client, Place
from agents.text import CHARACTERS_PER_TOKEN
from agents.trouble import shorten
from collectors.records import Call, Session, Tool

RETRYABLE = {"http_408", "http_409", "http_429", "connect_failed", "reset", "timeout_connect"}
"""What the openai SDK retries, 5xx apart. Time-outs after the request was sent are not: the server may be at work."""


BREATH = 1.0
"""Seconds before a place in the population is taken again after an agent whose own code failed, or that did nothing
that takes time: it would be started for ever in one instant."""


def again(chat: Chat, status: str, attempt: int, retry: Retry) -> bool:
    """Whether a call is tried once more after an attempt (from 0) that ended so."""
    if status == "gave_up":
        return chat.hang_up is not None and attempt < chat.hang_up.again
    return attempt + 1 < retry.attempts and (status in RETRYABLE or status.startswith("http_5"))


class Clock:
    """The run clock: seconds since the run began, monotonic."""

    def __init__(self, epoch: float | None = None) -> None:
        self.epoch = perf_counter() if epoch is None else epoch

    def anchor(self) -> dict[str, float]:
        """What ties the run clock to others: its zero on this machine's monotonic clock and in wall time (Unix)."""
        return {"monotonic": self.epoch, "unix": time() - self.now()}

    def now(self) -> float:
        return perf_counter() - self.epoch

    async def until(self, instant: float) -> None:
        """Sleep until that instant; return at once if it is past. Event loops round to about a millisecond."""
        delay = instant - self.now()
        while delay > 0:
            await asyncio.sleep(delay)
            delay = instant - self.now()


class Lane:
    """How the calls of one tenant reach one endpoint."""

    def __init__(
        self, client: Client, retry: Retry, tenant: str = "", endpoint: str = "", quota: Quota | None = None
    ) -> None:
        self.client, self.retry, self.tenant, self.endpoint, self.quota = client, retry, tenant, endpoint, quota


class World:
    """What the chains of a run share."""

    def __init__(
        self,
        lane_of: Callable[[int, int], Lane],  # of a tenant (index) and a session
        clock: Clock,
        emit: Callable[[Call | Tool | Session], None],
        seed: int,
        most_agents: int = 1_000,  # of one session, its root included
        begin: Callable[[], None] = lambda: None,  # told of every model call just before it is made
    ) -> None:
        self.lane_of = lane_of
        self.clock = clock
        self.emit = emit
        self.seed = seed
        self.most_agents = most_agents
        self.begin = begin
        self.ending = False  # agents stop before their next model call
        self.offered: int | None = None  # sessions that the schedule wants; None in a closed loop
        self.started = 0  # sessions
        self.alive = 0  # agents, sub-agents included
        self.in_flight = 0  # model calls
        self.sleeping: set[asyncio.Task[object]] = set()  # agents that wait for a tool or a person

    def end(self) -> None:
        """Stop agents at their next step: those asleep now, those in a model call when it is answered."""
        self.ending = True
        for task in list(self.sleeping):
            task.cancel()

    async def sleep_until(self, instant: float) -> None:
        """Sleep in a way that `end` may cut short."""
        with self.asleep():
            await self.clock.until(instant)

    @contextlib.contextmanager
    def asleep(self) -> Iterator[None]:
        """Inside, `end` cancels this task."""
        task = asyncio.current_task()
        assert task is not None
        self.sleeping.add(task)
        try:
            yield
        finally:
            self.sleeping.discard(task)


class Family:
    """What the agents of one session share: their way to the endpoint, and how many they are."""

    def __init__(self, lane: Lane) -> None:
        self.lane, self.agents = lane, 1


class Children:
    """The sub-agents that one agent has started, by number. They live inside its task group."""

    def __init__(self, group: asyncio.TaskGroup, tally: Tally, world: World, family: Family) -> None:
        self.group, self.tally, self.world, self.family = group, tally, world, family
        self.tasks: list[asyncio.Task[Outcome] | None] = []  # None: refused

    def start(self, agents: Sequence[Agent]) -> range:
        """Start them, as far as the session may have more agents; their numbers."""
        tally, world, now = self.tally, self.world, self.world.clock.now()
        for number, agent in enumerate(agents, len(self.tasks)):
            if self.family.agents >= world.most_agents:
                agent.chain.close()
                tally.refused += 1
                self.tasks.append(None)
                continue
            self.family.agents += 1
            tally.children += 1
            path = f"{tally.agent}.{number}" if tally.agent else str(number)
            self.tasks.append(self.group.create_task(run_agent(agent, tally.session, path, now, world, self.family)))
        return range(len(self.tasks) - len(agents), len(self.tasks))

    async def join(self, numbers: Sequence[int], wait: int | None, cancel: bool) -> list[Outcome]:
        """Wait for all of them, or until `wait` have succeeded; what became of each."""
        start, tasks = self.world.clock.now(), [self.tasks[number] for number in numbers]
        left = {task for task in tasks if task is not None and not task.done()}
        while left and (wait is None or sum(became(task).ok for task in tasks) < wait):
            when = asyncio.ALL_COMPLETED if wait is None else asyncio.FIRST_COMPLETED
            _, left = await asyncio.wait(left, return_when=when)
        if cancel:
            for task in left:
                task.cancel()
        self.tally.join += self.world.clock.now() - start
        return [became(task) for task in tasks]


def became(task: asyncio.Task[Outcome] | None) -> Outcome:
    """What has become of a sub-agent so far."""
    if task is None:
        return Outcome("refused")
    if task.cancelled() or task.cancelling():
        return Outcome("cancelled")
    return task.result() if task.done() else Outcome("running")


async def run_agent(
    agent: Agent, session: int, path: str, due: float, world: World, family: Family | None = None
) -> Outcome:
    """Drive one chain to its end, wait for the sub-agents it has left running, and record it. What the end of the run
    cuts short is "unfinished", what is cancelled before that "cancelled"."""
    now = world.clock.now
    family = family or Family(world.lane_of(agent.tenant, session))
    tally = Tally(path, agent.archetype, session, due, now(), family.lane.tenant)
    outcome = Outcome("unfinished")
    world.alive += 1
    try:
        async with asyncio.TaskGroup() as group:
            children = Children(group, tally, world, family)
            outcome = await follow(agent.chain, tally, due, world, children)
            over = now()
        if children.tasks:
            tally.join += now() - over
        return outcome
    except asyncio.CancelledError:
        outcome = Outcome("unfinished" if world.ending else "cancelled")
        raise
    finally:
        world.alive -= 1
        agent.chain.close()
        world.emit(tally.record(now(), outcome))


async def follow(chain: Chain, tally: Tally, due: float, world: World, children: Children) -> Outcome:
    """Give the chain what it asks for until it ends, or the run does."""
    now, lane = world.clock.now, children.family.lane
    answer: Any = None
    while not world.ending:
        try:
            ask = chain.send(answer)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # a chain returns its Outcome
        match ask:
            case Chat():
                answer = await call_model(ask, tally, due, world, lane)
                tally.error = "" if answer.ok else answer.status
                due = now()
            case Wait(seconds):
                due += seconds
                tally.wait += seconds
                await world.sleep_until(due)
                answer = None
            case Until(instant):
                tally.wait += max(0.0, instant - due)
                due = answer = max(due, instant)
                await world.sleep_until(due)
            case Note():
                tally.note(ask)
                answer = None
            case Spawn(agents, wait, cancel):
                answer = await children.join(children.start(agents), wait, cancel)
                due = now()
            case Join(numbers, wait, cancel):
                answer = await children.join(numbers or range(len(children.tasks)), wait, cancel)
                due = now()
            case _:
                answer, due = await use(ask, tally, due, world)
    return Outcome("unfinished")


async def call_model(chat: Chat, tally: Tally, due: float, world: World, lane: Lane) -> Reply:
    """One model call, with its retries: a record for each attempt."""
    throttled = 0.0

    def emit(call: Call) -> None:
        if lane.tenant or lane.endpoint or throttled:
            call = structs.replace(call, tenant=lane.tenant, endpoint=lane.endpoint, throttled=throttled)
        tally.count(call)
        world.emit(call)

    step, retry = tally.steps, lane.retry
    tally.steps += 1
    for attempt in itertools.count():
        if lane.quota is not None:
            start = world.clock.now()
            with world.asleep():
                await lane.quota.wait(chat)
            throttled = world.clock.now() - start
        world.in_flight += 1
        world.begin()
        try:
            reply = await lane.client.send(
                chat, Place(tally.session, tally.agent, tally.archetype, step, attempt, due), emit
            )
        finally:
            world.in_flight -= 1
        if reply.ok or not again(chat, reply.status, attempt, retry) or world.ending:
            break
        pause = 0.0 if reply.status == "gave_up" else reply.retry_after
        if pause is None:
            pause = retry.pause(attempt, [world.seed, tally.session, step, attempt, len(tally.agent)])
        due = world.clock.now() + pause
        tally.wait += pause
        await world.sleep_until(due)
    return reply


async def use(calls: list[ToolCall], tally: Tally, start: float, world: World) -> tuple[list[ToolResult], float]:
    """Run the tools of one step in parallel, asked for at `start`; return their results and when the last was due."""
    real = [(i, call) for i, call in enumerate(calls) if call.run is not None]
    results: list[ToolResult] = [ToolResult(call.tokens, call.text, call.ok) for call in calls]
    ends = [start + call.seconds for call in calls]
    errors = ["" if call.ok else call.text or "the tool failed" for call in calls]
    try:
        if real:
            answers = await asyncio.gather(*(execute(call, world.clock) for _, call in real))
            for (i, _), (result, end) in zip(real, answers, strict=True):
                results[i], ends[i], errors[i] = result, end, "" if result.ok else result.text or ""
        await world.sleep_until(max(ends, default=start))
    finally:  # a tool that the end of the run cut short has still been called
        reached = world.clock.now()
        for call, result, end, error in zip(calls, results, ends, errors, strict=True):
            end = min(end, reached)
            world.emit(
                Tool(
                    session=tally.session,
                    agent=tally.agent,
                    archetype=tally.archetype,
                    step=tally.steps - 1,
                    name=call.name,
                    start=start,
                    end=max(start, end),
                    ok=result.ok,
                    result_tokens=result.tokens,
                    kind=call.kind,
                    error=shorten(error),
                )
            )
        tally.tool_calls += len(calls)
        tally.tools += max(0.0, min(max(ends, default=start), reached) - start)
    return results, max(ends, default=start)


async def execute(call: ToolCall, clock: Clock) -> tuple[ToolResult, float]:
    """Call a user's Python function: a coroutine on the loop, anything else in a thread. Its error is its result."""
    assert call.run is not None
    arguments = msgspec.json.decode(call.arguments or "{}")
    try:
        if inspect.iscoroutinefunction(call.run):
            value = await call.run(**arguments)
        else:
            value = await asyncio.to_thread(call.run, **arguments)
        text, ok = value if isinstance(value, str) else msgspec.json.encode(value, enc_hook=str).decode(), True
    except Exception as error:  # noqa: BLE001  # the user's code may raise anything; a harness tells the model
        text, ok = f"Error: {type(error).__name__}: {error}", False
    text = whole([text])  # it may repeat what the model said
    return ToolResult(round(len(text) / CHARACTERS_PER_TOKEN), text, ok), clock.now()
