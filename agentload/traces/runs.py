"""Our own run folders as traces: what agents did in a run, from its records.

Agents of a run only add to their history, so a prompt that is larger than the last one starts with it; one that is
smaller (a compaction) starts with the archetype's preamble, which all its sessions share. Where the archetype rewrites
its history, the server's own count of cached tokens says from where. Of several attempts at a call the last is taken.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from agentload.errors import BadInput
from agentload.spec import decode
from agentload.traces.graph import Agent, Call, Run, Session, Tool, identity, runs
from agentload.traces.source import Source
from agentload.traces.timed import Born, Made, steps_of
from agents.kind import Archetype
from collectors.load import Columns, load_run
from collectors.load import Run as Recorded


def read(source: Source) -> Iterator[Session]:
    try:
        run = load_run(source.path)
    except (OSError, ValueError, msgspec.DecodeError) as error:
        raise BadInput(f"run {str(source.path)!r} cannot be read: {error}") from None
    kinds = kinds_of(run)
    calls, tools = by_session(run.calls), by_session(run.tools)
    for number in sorted(calls):
        if number >= 0:
            yield Builder(run, calls[number], tools.get(number, []), kinds).session(number)


def kinds_of(run: Recorded) -> dict[str, Archetype]:
    """The archetypes of the run's spec; none where the header does not have it."""
    try:
        return decode(run.header["spec"]).kinds()
    except (KeyError, TypeError, BadInput):
        return {}


def by_session(columns: Columns) -> dict[int, list[int]]:
    """Rows of each session."""
    found: dict[int, list[int]] = {}
    for i, session in enumerate(columns.session.tolist()):
        found.setdefault(session, []).append(i)
    return found


class Builder:
    """Makes one session from its rows."""

    def __init__(self, run: Recorded, calls: list[int], tools: list[int], kinds: dict[str, Archetype]) -> None:
        self.run, self.kinds = run, kinds
        self.calls: dict[str, list[int]] = {}
        for i in calls:
            self.calls.setdefault(run.calls.agent[i], []).append(i)
        self.tools: dict[tuple[str, int], list[int]] = {}
        for i in tools:
            self.tools.setdefault((run.tools.agent[i], int(run.tools.step[i])), []).append(i)

    def session(self, number: int) -> Session:
        roots = [path for path in self.calls if path.rpartition(".")[0] not in self.calls or path == ""]
        first = min(roots, key=len)
        start = float(self.run.calls.due[self.calls[first]].min())
        return Session(str(number), self.agent(first), start, shared=True)

    def agent(self, path: str) -> Agent:
        children = [child for child in self.calls if child != path and child.rpartition(".")[0] == path]
        born = [Born(self.begun(child), self.ended(child), self.agent(child)) for child in children]
        kind = str(self.run.calls.archetype[self.calls[path][0]])
        return Agent(tuple(steps_of(list(self.made(path)), born)), kind)

    def made(self, path: str) -> Iterator[Made]:
        """The agent's calls, the last attempt at each."""
        c = self.run.calls
        last = {int(c.step[i]): i for i in self.calls[path]}
        kind = self.kinds.get(str(c.archetype[self.calls[path][0]]))
        head = kind.system_tokens + kind.schema_tokens if kind else 0
        key, before = identity("preamble", c.archetype[self.calls[path][0]]), 0
        for step, i in sorted(last.items()):
            input, cached = int(c.input_tokens[i]), int(c.cached_tokens[i])
            if not input:
                continue
            keep, new = min(before, input), tuple[Run, ...]()
            if not before or input < before:
                keep, new = (min(head, input), ()) if before else (0, runs([(key, min(head, input))]) if head else ())
            elif kind is not None and kind.rewrite and 0 < cached < 0.95 * before:
                keep = cached
            call = Call(
                input, int(c.output_tokens[i]), keep, new, min(int(c.reasoning_tokens[i]), int(c.output_tokens[i])),
                cached, max(0.0, float(c.end[i] - c.sent[i])),
            )  # fmt: skip
            rows = self.tools.get((path, step), [])
            tools = tuple(self.tool(i) for i in rows)
            yield Made(float(c.due[i]), float(c.end[i]), call, tools, max((t.seconds for t in tools), default=0.0),
                       person=int(c.attempt[i]) == 0)  # fmt: skip
            before = input

    def tool(self, i: int) -> Tool:
        t: Any = self.run.tools
        return Tool(
            str(t.name[i])[:1000], max(0.0, float(t.end[i] - t.start[i])), int(t.result_tokens[i]), bool(t.ok[i])
        )

    def begun(self, path: str) -> float:
        """When an agent wanted its first call."""
        return float(self.run.calls.due[self.calls[path]].min())

    def ended(self, path: str) -> float:
        """When an agent and all below it had ended."""
        return max(
            float(self.run.calls.end[rows].max())
            for child, rows in self.calls.items()
            if child == path or child.startswith(f"{path}.")
        )
