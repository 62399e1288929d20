"""Steps from times: what an agent did, from when its calls and its sub-agents began and ended.

A sub-agent is started after the last call that had ended when it began, and joined before the first that began after
its own end. What is left of the time between two calls is tools where the first asked for some, else a wait.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from msgspec import structs

from agentload.traces.graph import Agent, Call, Gap, Join, Start, Step, Tool, Tools

LEAST_GAP = 0.002
"""Seconds between a call and the next that are overhead, and not a wait."""


class Made(NamedTuple):
    """One call of an agent. Seconds, on any clock."""

    begin: float
    end: float
    call: Call
    tools: tuple[Tool, ...] = ()  # that it asked for
    took: float | None = None  # the longest of them; None: as long as there was time
    person: bool = False  # it answered a person


class Born(NamedTuple):
    """A sub-agent: all of it had ended at `end`."""

    begin: float
    end: float
    agent: Agent


def steps_of(calls: Sequence[Made], children: Sequence[Born]) -> Iterator[Step]:
    """The steps of an agent, from its calls in order and its sub-agents in any."""
    started: dict[int, list[Born]] = {}
    for child in sorted(children, key=lambda child: child.begin):
        after = sum(made.end <= child.begin for made in calls)
        started.setdefault(max(0, after - 1), []).append(child)
    running: dict[int, float] = {}  # sub-agents not joined yet, by number, and when they end
    number = 0
    for i, made in enumerate(calls):
        yield made.call
        born = started.get(i, [])
        yield from between(made, calls[i + 1] if i + 1 < len(calls) else None, born, number, running)
        number += len(born)


def between(
    made: Made, following: Made | None, born: list[Born], number: int, running: dict[int, float]
) -> Iterator[Step]:
    """What lies between a call and the next, or after the last. `number` is that of the first sub-agent in `born`."""
    since, tools = made.end, made.tools
    if tools and made.took is not None and all(child.begin >= since + made.took - LEAST_GAP for child in born):
        yield Tools(tools)  # they had ended before any sub-agent began
        since, tools = since + made.took, ()
    until = following.begin if following else max([made.end, *(child.end for child in born)])
    joined = not running and all(child.end <= until + LEAST_GAP for child in born)
    if born:
        delayed = (
            structs.replace(child.agent, delay=child.agent.delay + max(0.0, child.begin - since)) for child in born
        )
        yield Start(tuple(delayed), None if joined else 0)
        if joined:
            since = max(since, *(child.end for child in born))
        else:
            running |= {number + i: child.end for i, child in enumerate(born)}
    gap = max(0.0, until - since) if following else 0.0
    if tools:
        took = gap if made.took is None else made.took
        yield Tools(tools if made.took is not None else tuple(structs.replace(tool, seconds=gap) for tool in tools))
        gap -= took
    if gap > LEAST_GAP and following:
        yield Gap(gap, person=following.person)
    done = tuple(number for number, end in running.items() if following is None or end <= until)
    for number in done:
        del running[number]
    if done:
        yield Join(done if following else ())
