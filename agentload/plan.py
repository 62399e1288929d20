"""Which agent each session is, and when it starts: decided by spec and seed alone, in whatever process it runs."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from agentload.errors import BadInput
from agentload.recorded import recorded
from agentload.rehearse import mid_session
from agentload.seeds import generator
from agentload.spec import REPLAY, Spec, Traced
from agents.chain import Agent
from agents.live import live
from agents.own import own
from agents.replay import Way
from agents.sized import Sized
from agents.text import Room, filler
from agents.tools import Toolbox


class Plan:
    """Which agent each session is: the same seed and spec give the same sessions, in whatever order they start."""

    def __init__(self, spec: Spec, room: Room, salt: int, tell: Callable[[int, int], str] = filler) -> None:
        """`tell` makes what models are taken to have said before an agent began mid-session."""
        self.spec, self.room, self.salt, self.tell = spec, room, salt, tell
        self.kinds, self.own = spec.kinds(), spec.own_agents()
        self.order = interleave(spec.shares())
        self.mixed = any(name != REPLAY for _, name in spec.shares())  # others beside a replayed trace
        self.trace = recorded(spec) if spec.replay else None
        lives = spec.mode == "live"
        self.toolboxes = {name: Toolbox(self.kinds[name]) for name in self.kinds} if lives else {}
        self.sized = {} if lives else {name: Sized(name, self.kinds[name], salt, room) for name in self.kinds}

    def agent(self, number: int, seat: int | None = None) -> Agent:
        """The agent of session `number`; in a closed loop its seat decides what it is."""
        tenant, name = self.order[(number if seat is None else seat) % len(self.order)]
        if name == REPLAY:
            agent = self.replayed(number, begins=seat == number)
            return structs.replace(agent, tenant=tenant) if tenant else agent
        agent = self.make(name, generator(self.spec.seed, number))
        if seat == number and self.spec.begin == "mid-session":
            twin = self.make(name, generator(self.spec.seed, number))
            agent = mid_session(agent, twin, np.random.default_rng([self.spec.seed, number, 1]), self.tell)
        return structs.replace(agent, tenant=tenant) if tenant else agent

    def replayed(self, number: int, begins: bool) -> Agent:
        """An agent that follows a session of the trace: the next one, round and round; beside other archetypes, any.
        `begins`: it is the first of a seat, and may start later or mid-session."""
        how, trace = self.spec.replay, self.trace
        assert how is not None and trace is not None
        rng = np.random.default_rng([self.spec.seed, number, 1])
        copy, which = divmod(number, len(trace))
        if self.mixed:
            copy, which = number, int(rng.integers(len(trace)))
        past, wait = rng.random(2) if begins else (0.0, 0.0)
        way = Way(
            self.salt,
            copy if how.bust else 0,
            past=float(past) if self.spec.begin == "mid-session" else 0.0,
            wait=float(wait) * how.jitter,
        )
        return trace.agent(which, self.room, way)

    def arrivals(self) -> NDArray[np.float64]:
        """When sessions start, open loop."""
        if not isinstance(self.spec.profile, Traced):
            return arrivals(self.spec)
        assert self.trace is not None
        times = self.trace.times()[: self.spec.sessions]
        return times[times < (self.spec.duration or np.inf)]

    def make(self, name: str, rng: np.random.Generator, depth: int | None = None, task: str = "") -> Agent:
        """A root agent, or one that may start sub-agents to that depth; `task` is what a live one is told."""
        if name in self.own:
            return own(name, self.own[name], rng)
        kind = self.kinds[name]
        depth = kind.depth if depth is None else depth
        if self.spec.mode == "live":
            team = (lambda inner, r, task: self.make(inner, r, depth - 1, task)) if depth else None
            return Agent(name, live(name, kind, self.toolboxes[name], rng, self.salt, self.room, task, team))
        child = (lambda inner, r: self.make(inner, r, depth - 1)) if depth else None
        return Agent(name, self.sized[name].chain(rng, child))


Name = TypeVar("Name")


def interleave(weights: dict[Name, float]) -> list[Name]:
    """Names in proportion to their weights, spread as evenly as can be, so that any first few have the right mix.

    Smooth weighted round robin: each name gains its weight, the richest is picked and pays the total.
    """
    total, gained = sum(weights.values()), dict.fromkeys(weights, 0.0)
    order: list[Name] = []
    for _ in range(max(len(weights), min(1000, round(100 * total / min(weights.values()))))):
        for name, weight in weights.items():
            gained[name] += weight
        best = max(gained, key=lambda name: gained[name])
        gained[best] -= total
        order.append(best)
    return order


def arrivals(spec: Spec) -> NDArray[np.float64]:
    """When sessions start, open loop: within the duration, or as long as it takes for the number asked for."""

    def until(duration: float) -> NDArray[np.float64]:
        return spec.profile.arrivals(duration, np.random.default_rng([spec.seed, 1 << 32]))[: spec.sessions]

    if spec.duration is not None or spec.sessions is None:
        return until(spec.duration or np.inf)
    duration, times = 60.0, until(60.0)
    while times.size < spec.sessions and duration < 1e9:
        duration *= 2
        times = until(duration)
    return times


NO_LIMIT = 10_000_000
"""Context length where nobody states one."""


def check_room(spec: Spec, context: int) -> None:
    """Every archetype's preamble and a little more must fit the endpoint's context."""
    kinds = spec.kinds()
    for name in spec.named():
        kind = kinds[name]
        head, limit = kind.system_tokens + kind.schema_tokens, min(context, kind.context_limit or context)
        if head > 0.8 * limit:
            raise BadInput(
                f"archetype {name!r}: its system prompt and tools are {head:,} tokens, and the context is {limit:,}; "
                f"shrink it with --scale {spec.scale * 0.4 * limit / head:.2g}, or raise endpoint.context_length"
            )
