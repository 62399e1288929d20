"""Weka / kv-cache-tester traces: one JSON object for each session, prompts as blocks, sub-agents nested.

Source: callanjfox/kv-cache-tester, README and traces; SemiAnalysis' AgentX sets have the same fields. Two things are
told from the data. A sub-agent's `t` is when it *ended* in the repository's files: it is taken so where `t` less
`duration_ms` lies nearer to the end of some call (which then started it) than `t` does, else as its start. Times inside
a sub-agent count from its start in the repository, from the session's start in the AgentX sets: they are taken as the
latter where the first of them is not before the sub-agent's own start.

A sub-agent is started by the call before it, and joined before the first call that began after it had ended.
"""

from collections.abc import Iterator
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct, field, structs

from agentload.traces.graph import (
    Agent,
    Gap,
    Join,
    Key,
    Session,
    Start,
    Step,
    Text,
    Thread,
    Tokens,
    Tool,
    Tools,
    blocks,
)
from agentload.traces.source import Source

Seconds = Annotated[float, Meta(ge=-1e6, le=1e10)]


class Entry(Struct, frozen=True):
    """A request, or a sub-agent with requests of its own."""

    t: Seconds
    type: str = "n"
    in_: Tokens = field(default=0, name="in")
    out: Tokens = 0
    hash_ids: list[Key] = []
    input_types: list[str] = []
    stop: str | None = None
    api_time: Seconds | None = None
    think_time: Seconds | None = None
    subagent_type: Text | None = None
    duration_ms: Annotated[float, Meta(ge=0, le=1e13)] | None = None
    requests: list["Entry"] = []

    @property
    def nested(self) -> bool:
        return self.type == "subagent"

    @property
    def end(self) -> float:
        return self.t + max(0.0, self.api_time or 0.0)


class Trace(Struct, frozen=True):
    """One session."""

    id: Text
    requests: list[Entry]
    block_size: Annotated[int, Meta(ge=1, le=1_000_000)] = 64
    hash_id_scope: str = "local"


class Child(NamedTuple):
    """A sub-agent with its place among its parent's calls. Seconds from the session's start."""

    start: float
    end: float
    after: int  # which call started it
    entry: Entry


def read(source: Source) -> Iterator[Session]:
    for number, trace in source.values(Trace):
        for i, entry in enumerate(trace.requests):
            if not entry.nested and not entry.in_:
                source.complain(number, f"requests[{i}].in", "must be above 0; this request is left out")
        if any(not entry.nested and entry.in_ for entry in trace.requests):
            root = agent_of(trace.requests, trace.block_size, "", 0.0)
            yield Session(trace.id, root, shared=trace.hash_id_scope == "global")
        else:
            source.complain(number, "requests", "there is no request in it")


def agent_of(entries: list[Entry], block: int, name: str, start: float) -> Agent:
    """The steps of one agent, started at `start`, from its requests and the sub-agents among them."""
    calls = sorted((entry for entry in entries if not entry.nested and entry.in_), key=lambda entry: entry.t)
    children = born(entries, calls)
    steps: list[Step] = []
    thread, running = Thread(), dict[int, float]()
    for i, call in enumerate(calls):
        if i:
            own = {n: child for n, child in enumerate(children) if child.after == i - 1}
            steps += between(calls[i - 1], call, own, running, block)
        took = None if call.api_time is None else max(0.0, call.api_time)
        steps.append(thread.call(blocks(call.hash_ids, block, call.in_), call.in_, call.out, seconds=took))
    last = [child for child in children if child.after == len(calls) - 1]
    if last:
        steps.append(started(last, calls[-1].end, block, None))
    if running:
        steps.append(Join())
    return Agent(tuple(steps), name, max(0.0, calls[0].t - start))


def born(entries: list[Entry], calls: list[Entry]) -> list[Child]:
    """The sub-agents of an agent, in the order in which they started."""
    children = []
    for entry in entries:
        if not entry.nested or not any(inner.in_ and not inner.nested for inner in entry.requests):
            continue
        took = (entry.duration_ms or 0.0) / 1000
        start = entry.t
        if took and nearest(start - took, calls) <= nearest(start, calls):
            start -= took
        inner = [request.t for request in entry.requests]
        base = 0.0 if min(inner) >= start - 1 and start > 1 else start
        requests = [structs.replace(request, t=base + request.t) for request in entry.requests]
        end = start + took if took else max(request.end for request in requests)
        after = max((i for i, call in enumerate(calls) if call.t <= start), default=0)
        children.append(Child(start, end, after, structs.replace(entry, requests=requests)))
    return sorted(children, key=lambda child: (child.after, child.start))


def nearest(instant: float, calls: list[Entry]) -> float:
    """Seconds from an instant to the nearest end of a call."""
    return min(abs(instant - call.end) for call in calls)


def started(children: list[Child], now: float, block: int, wait: int | None) -> Start:
    return Start(
        tuple(
            structs.replace(agent, delay=agent.delay + max(0.0, child.start - now))
            for child in children
            for agent in [agent_of(child.entry.requests, block, child.entry.subagent_type or "", child.start)]
        ),
        wait,
    )


def between(before: Entry, call: Entry, own: dict[int, Child], running: dict[int, float], block: int) -> Iterator[Step]:
    """What lies between two calls: sub-agents, tools or a person. `running`: when those not joined yet end."""
    gap = max(0.0, call.t - before.end) if call.think_time is None else max(0.0, call.think_time)
    children = list(own.values())
    if children and not running and all(child.end <= call.t + 1 for child in children):
        yield started(children, before.end, block, None)
        gap = max(0.0, call.t - max(before.end, *(child.end for child in children)))
    elif children:
        yield started(children, before.end, block, 0)
        running |= {number: child.end for number, child in own.items()}
    if gap:
        types = call.input_types
        yield after_tool(gap) if "tool_result" in types or (not types and before.stop == "tool_use") else by_person(gap)
    done = tuple(number for number, end in running.items() if end <= call.t)
    for number in done:
        del running[number]
    if done:
        yield Join(done)


def after_tool(gap: float) -> Tools:
    return Tools((Tool(seconds=gap),))


def by_person(gap: float) -> Gap:
    return Gap(gap, person=True)
