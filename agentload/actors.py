"""Who acts in virtual time, and what all of them have in common: agents under way, time limits, back-off."""

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any, Protocol

from agentload.flights import Flight
from agentload.spec import Retry
from agentload.tally import Tally
from agents.chain import Agent, Ask, Chat, Outcome, ToolCall, ToolResult


class Clocked(Protocol):
    """A world with a clock and an agenda."""

    now: float  # seconds

    def enter(self, at: float, act: Callable[[Any], None], what: Any) -> int: ...


class Joining:
    """What an agent waits for that waits for sub-agents."""

    __slots__ = ("cancel", "left", "numbers", "start", "wait")

    def __init__(self, numbers: Sequence[int], wait: int | None, cancel: bool, start: float) -> None:
        self.numbers = numbers
        self.wait = wait  # for so many to succeed
        self.cancel = cancel
        self.start = start
        self.left: set[int] = set()  # those that have not ended


class Actor:
    """One agent under way, and what it waits for."""

    __slots__ = ("after", "chain", "children", "due", "family", "flight", "joining", "number", "outcome", "over",
                 "parent", "running", "session", "sleep", "tally", "task", "tenant")  # fmt: skip

    def __init__(
        self, agent: Agent, tally: Tally, due: float, tenant: int, parent: "Actor | None", number: int
    ) -> None:
        self.chain = agent.chain
        self.tally = tally
        self.due = due
        self.tenant = tenant
        self.parent = parent
        self.number = number  # among its parent's sub-agents
        self.after: Callable[[Outcome], None] | None = None  # what follows when it has ended
        self.family: list[int] = [0] if parent is None else parent.family  # [how many agents its session has had]
        self.children: list[Actor | Outcome] = []  # an outcome once it has ended, so that no cycle is left behind
        self.running = 0  # of them
        self.joining: Joining | None = None
        self.outcome: Outcome | None = None  # of its chain, once that is over
        self.over = 0.0  # when that was
        self.flight: Flight | None = None  # the call it waits for
        self.sleep = 0  # number of the entry that wakes it; 0: it does not wait for an instant
        self.task: Ask | tuple[Chat, int] | None = None  # what it sleeps for: a Wait, tools, or a call once more

    def became(self, number: int) -> Outcome:
        """What has become of a sub-agent so far."""
        child = self.children[number]
        return child if isinstance(child, Outcome) else child.outcome or Outcome("running")


class Deadlines:
    """A limit on calls that fall due in the order they were sent: one entry in the agenda for all of them."""

    def __init__(self, world: Clocked, limit: float, act: Callable[[Flight], None]) -> None:
        self._world, self._limit, self._act = world, limit, act
        self._flights: dict[Flight, None] = {}  # under way, in that order
        self._armed = False

    def watch(self, flight: Flight) -> None:
        self._flights[flight] = None
        if not self._armed:
            self._armed = True
            self._world.enter(flight.sent + self._limit, self._look, None)

    def forget(self, flight: Flight) -> None:
        """It is over: what it holds is let go at once, and not when it would have been due."""
        self._flights.pop(flight, None)

    def _look(self, _: None) -> None:
        for flight in [*takewhile(lambda flight: flight.sent + self._limit <= self._world.now, self._flights)]:
            if not flight.over:
                self.forget(flight)
                self._act(flight)
        oldest = next(iter(self._flights), None)
        self._armed = oldest is not None
        if oldest is not None:
            self._world.enter(oldest.sent + self._limit, self._look, None)


def results(calls: list[ToolCall]) -> list[ToolResult]:
    return [ToolResult(call.tokens, call.text, call.ok) for call in calls]


def back_off(retry: Retry, seed: int, flight: Flight) -> float:
    """Seconds before the next attempt, drawn as `agentload.session` draws them."""
    tally = flight.actor.tally
    return retry.pause(flight.attempt, [seed, tally.session, tally.steps - 1, flight.attempt, len(tally.agent)])
