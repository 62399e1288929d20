"""What a trace says of its demand, worked out offline: sizes, structure, sharing of prefixes, growth, burstiness.

The prefix hit is token-weighted: of all input tokens, the share that a cache would have held. It counts pieces of
prompts seen in earlier prompts, and nothing of replies, as the usual figure of these traces does. The ideal cache is
infinite; against size and lifetime it is LRU over pieces, the end of a prompt before its start, as servers do it.
Sessions that are recorded alone (no start time) are taken one after the other: then only what they share counts.
"""

import heapq
import itertools
from array import array
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from agentload.traces.graph import Agent, Call, Gap, Join, Session, Start, Tools
from agentload.traces.sharing import Prompt, Sharing

Array = NDArray[np.float64]

SIZES = tuple(2**i * 1_000 for i in range(4, 21))
"""Cache sizes in tokens at which the hit rate is given."""
LIFETIMES = (5.0, 60.0, 300.0, 480.0, 3_600.0, 86_400.0)
"""Seconds since a piece was last used, likewise."""
WINDOWS = (1.0, 10.0, 60.0)
"""Seconds, of which the dispersion of counts is given."""
FRESH = 40_000
"""Input tokens of its first call below which a session is taken to begin, and not to go on with an older one."""
KEPT = 400_000
"""Numbers of one sort that are kept; of more, a sample of that many."""
WAITING = 20_000
"""Calls that are put in order of time before they are counted."""
QUANTILES = (0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99)


class Timed(NamedTuple):
    """A call with its place. Seconds are from the session's start."""

    agent: str
    number: int  # of the agent's calls
    begin: float
    end: float
    call: Call


def timed(session: Session) -> list[Timed]:
    """The calls of a session by the time at which they begin, as its gaps and durations make them. One of unknown
    duration takes none."""
    calls: list[Timed] = []
    walk(session.root, "", 0.0, calls)
    return sorted(calls, key=lambda one: (one.begin, one.agent))


def walk(agent: Agent, path: str, now: float, calls: list[Timed]) -> float:
    """Add an agent's calls, and its sub-agents', from `now` on; return when it ended."""
    now += agent.delay
    ends: list[float] = []
    number = 0
    for step in agent.steps:
        match step:
            case Call():
                end = now + (step.seconds or 0.0)
                calls.append(Timed(path, number, now, end, step))
                now, number = end, number + 1
            case Gap():
                now += step.seconds
            case Tools():
                now += max((tool.seconds for tool in step.calls), default=0.0)
            case Start():
                born = [
                    walk(child, f"{path}.{n}" if path else str(n), now, calls)
                    for n, child in enumerate(step.agents, len(ends))
                ]
                ends += born
                wait = len(born) if step.wait is None else min(step.wait, len(born))
                if wait:
                    now = max(now, sorted(born)[wait - 1])
            case Join():
                waited = [ends[n] for n in step.agents if n < len(ends)] if step.agents else ends
                now = max([now, *waited])
    return now


class Stats(Struct, frozen=True):
    """The figures of a trace. Lists are quantiles: [p10, p25, p50, p75, p90, p95, p99, mean], or [] of nothing."""

    sessions: int
    calls: int
    input_tokens: int
    output_tokens: int
    in_out: float | None  # input tokens for each of output
    span: float | None  # seconds from the first recorded start to the last; None where none is recorded
    rate: float | None  # sessions a second
    gap_cv: float | None  # coefficient of variation of the gaps between starts
    dispersion: dict[str, float]  # of starts by window (seconds): variance / mean of the count; Poisson is 1
    input: list[float]  # of the calls of main agents, also below
    output: list[float]
    new: list[float]  # tokens of later calls that were in no earlier one
    first: list[float]  # input of first calls
    calls_per_session: list[float]
    input_per_session: list[float]
    think: list[float]  # seconds of people's gaps
    tool_seconds: list[float]  # of each tool call
    tools_per_step: list[float]
    sub_agents: float  # mean of a session
    sub_agent_calls: list[float]
    fan_out: list[float]  # sub-agents started together
    hit: float | None  # ideal; None where the trace says nothing of prefixes
    piece_hit: float | None  # the same, by pieces (blocks)
    hit_by_size: dict[str, float]  # tokens of cache
    hit_by_lifetime: dict[str, float]  # seconds
    growth: float | None  # exponent of a session's input against its calls
    growth_fresh: float | None  # the same of sessions whose first input is below 40,000 tokens
    growth_error: float | None  # 1.96 standard errors of that


def analyse(sessions: Iterable[Session]) -> Stats:
    """The figures of a trace, read once."""
    tally = Tally()
    for session in sessions:
        tally.add(session)
    return tally.stats()


class Sample:
    """Numbers of a stream: all of them, or a uniform sample of so many (Vitter 1985, algorithm R)."""

    def __init__(self, most: int = KEPT) -> None:
        self.most, self.seen, self.total = most, 0, 0.0
        self.values = array("d")
        self._rng = np.random.default_rng(0)

    def add(self, value: float) -> None:
        self.seen += 1
        self.total += value
        if len(self.values) < self.most:
            self.values.append(value)
        elif (place := int(self._rng.integers(self.seen))) < self.most:
            self.values[place] = value

    def quantiles(self) -> list[float]:
        if not self.seen:
            return []
        return [*(float(q) for q in np.quantile(np.array(self.values), QUANTILES)), self.total / self.seen]


class Tally:
    """A trace being counted."""

    def __init__(self) -> None:
        self.sessions = self.calls = self.input_tokens = self.output_tokens = self.agents = 0
        self.starts = array("d")
        self.of = {name: Sample() for name in ("input", "output", "new", "first", "calls_per_session",
                                               "input_per_session", "think", "tool_seconds", "tools_per_step",
                                               "sub_agent_calls", "fan_out")}  # fmt: skip
        self.totals = array("d"), array("d"), array("d")  # calls, input and first input of sessions
        self.sharing = Sharing(SIZES, LIFETIMES)
        self._waiting: list[tuple[float, int, Timed, Place]] = []  # a heap
        self._order = itertools.count()
        self._recorded = False

    def add(self, session: Session) -> None:
        """Take one session."""
        calls = timed(session)
        self.sessions += 1
        self.calls += len(calls)
        self.input_tokens += sum(one.call.input for one in calls)
        self.output_tokens += sum(one.call.output for one in calls)
        main = [one.call for one in calls if not one.agent]
        if main:
            total = sum(call.input for call in main)
            self.of["first"].add(main[0].input)
            self.of["calls_per_session"].add(len(main))
            self.of["input_per_session"].add(total)
            if len(self.totals[0]) < KEPT:
                for column, value in zip(self.totals, (len(main), total, main[0].input), strict=True):
                    column.append(value)
        for call in main:
            self.of["input"].add(call.input)
            self.of["output"].add(call.output)
        self.look(session.root)
        self.agents -= 1
        self.share(session, calls)

    def look(self, agent: Agent) -> None:
        """Take an agent's gaps and tools, and the agents below it."""
        self.agents += 1
        for step in agent.steps:
            match step:
                case Gap(seconds, True):
                    self.of["think"].add(seconds)
                case Tools(calls):
                    self.of["tools_per_step"].add(len(calls))
                    for tool in calls:
                        self.of["tool_seconds"].add(tool.seconds)
                case Start(children):
                    self.of["fan_out"].add(len(children))
                    for child in children:
                        self.of["sub_agent_calls"].add(sum(isinstance(step, Call) for step in child.steps))
                        self.look(child)

    def share(self, session: Session, calls: list[Timed]) -> None:
        """Look what the prompts share, in the order of time where that is recorded."""
        place = Place(session)
        if session.start is not None:
            self.starts.append(session.start)
            self._recorded = True
        elif not session.shared and not self._recorded:
            self.sharing.forget()
        offset = session.start if session.start is not None else 0.0
        for one in calls:
            heapq.heappush(self._waiting, (offset + one.begin, next(self._order), one, place))
        while len(self._waiting) > (WAITING if session.start is not None else 0):
            self.count()

    def count(self) -> None:
        """Count the sharing of the earliest call that waits."""
        at, _, one, place = heapq.heappop(self._waiting)
        seen = self.sharing.add(place.prompt(one), one.call, at, place.scope)
        if not one.agent and one.number:
            self.of["new"].add(one.call.input - seen)

    def stats(self) -> Stats:
        """The figures."""
        while self._waiting:
            self.count()
        starts, sharing = np.sort(np.array(self.starts)), self.sharing
        span = float(starts[-1] - starts[0]) if starts.size > 1 else None
        gaps = np.diff(starts)
        calls, inputs, first = map(np.array, self.totals)
        fresh = first < FRESH
        return Stats(
            sessions=self.sessions,
            calls=self.calls,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            in_out=self.input_tokens / self.output_tokens if self.output_tokens else None,
            span=span,
            rate=starts.size / span if span else None,
            gap_cv=float(gaps.std() / gaps.mean()) if span else None,
            dispersion={f"{w:g}": found for w in WINDOWS if (found := dispersion(starts, w)) is not None},
            sub_agents=self.agents / self.sessions if self.sessions else 0.0,
            hit=sharing.ideal / sharing.input if sharing.known and sharing.input else None,
            piece_hit=sharing.seen_pieces / sharing.pieces if sharing.known and sharing.pieces else None,
            hit_by_size={str(s): float(h / sharing.input) for s, h in zip(SIZES, sharing.by_size, strict=True)}
            if sharing.known else {},
            hit_by_lifetime={f"{s:g}": float(h / sharing.input)
                             for s, h in zip(LIFETIMES, sharing.by_lifetime, strict=True)} if sharing.known else {},
            growth=slope(calls, inputs)[0],
            growth_fresh=slope(calls[fresh], inputs[fresh])[0],
            growth_error=slope(calls[fresh], inputs[fresh])[1],
            **{name: sample.quantiles() for name, sample in self.of.items()},
        )  # fmt: skip


class Place:
    """A session whose calls are counted: its agents' prompts."""

    def __init__(self, session: Session) -> None:
        self.scope = 0 if session.shared else hash(("session", session.id))
        self.prompts: dict[str, Prompt] = {}

    def prompt(self, one: Timed) -> Prompt:
        """The prompt before a call: its agent's last; for a sub-agent's first call, its parent's."""
        prompt = self.prompts.get(one.agent)
        if prompt is None:
            parent = self.prompts.get(one.agent.rpartition(".")[0]) if one.agent else None
            prompt = self.prompts[one.agent] = parent.copy() if parent else Prompt()
        return prompt


def dispersion(starts: Array, window: float) -> float | None:
    """Variance over mean of how many start in each whole window; None with fewer than two windows."""
    if starts.size < 2 or starts[-1] - starts[0] < 2 * window:
        return None
    windows = int((starts[-1] - starts[0]) // window)
    counts = np.bincount(((starts - starts[0]) // window).astype(int), minlength=windows)[:windows]
    return float(counts.var() / counts.mean()) if counts.any() else None


def slope(calls: Array, inputs: Array) -> tuple[float | None, float | None]:
    """Exponent of input against calls, by least squares on logarithms, and 1.96 of its standard errors."""
    some = (calls > 0) & (inputs > 0)
    x, y = np.log(calls[some]), np.log(inputs[some])
    if x.size < 3 or x.std() == 0:
        return None, None
    x, y = x - x.mean(), y - y.mean()
    found = float((x * y).sum() / (x * x).sum())
    rest = y - found * x
    error = float(np.sqrt((rest * rest).sum() / (x.size - 2) / (x * x).sum()))
    return found, 1.96 * error
