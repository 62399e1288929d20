"""Who acts in virtual time, and what all of them have in common: agents under way, time limits, back-off."""

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from agentload.flights import Flight
from agentload.session import Tally
from agentload.spec import Retry
from agents.chain import Agent, Ask, Chat, Outcome, ToolCall, ToolResult


class Clocked(Protocol):
    """A world with a clock and an agenda."""

    now: float  # seconds

    def enter(self, at: float, act: Callable[[Any], None], what: Any) -> int: ...


class Actor:
    """One agent under way, and what it waits for."""

    __slots__ = ("after", "chain", "due", "error", "flight", "session", "sleep", "tally", "task", "tenant")

    def __init__(self, agent: Agent, tally: Tally, due: float, tenant: int, after: Callable[[Outcome], None]) -> None:
        self.chain = agent.chain
        self.tally = tally
        self.due = due
        self.tenant = tenant
        self.after = after  # what follows when it has ended
        self.error = ""
        self.flight: Flight | None = None  # the call it waits for
        self.sleep = 0  # number of the entry that wakes it; 0: it does not wait for an instant
        self.task: Ask | tuple[Chat, int] | None = None  # what it sleeps for: a Wait, tools, or a call once more


class Deadlines:
    """A limit on calls that fall due in the order they were sent: one entry in the agenda for all of them."""

    def __init__(self, world: Clocked, limit: float, act: Callable[[Flight], None]) -> None:
        self._world, self._limit, self._act = world, limit, act
        self._flights: deque[Flight] = deque()
        self._armed = False

    def watch(self, flight: Flight) -> None:
        self._flights.append(flight)
        if not self._armed:
            self._armed = True
            self._world.enter(flight.sent + self._limit, self._look, None)

    def _look(self, _: None) -> None:
        flights, now = self._flights, self._world.now
        while flights and (flights[0].over or flights[0].sent + self._limit <= now):
            flight = flights.popleft()
            if not flight.over:
                self._act(flight)
        self._armed = bool(flights)
        if flights:
            self._world.enter(flights[0].sent + self._limit, self._look, None)


def results(calls: list[ToolCall]) -> list[ToolResult]:
    return [ToolResult(call.tokens, call.text, call.ok) for call in calls]


def back_off(retry: Retry, seed: int, flight: Flight) -> float:
    """Seconds before the next attempt, drawn as `agentload.session` draws them."""
    tally = flight.actor.tally
    return retry.pause(flight.attempt, [seed, tally.session, tally.steps - 1, flight.attempt, len(tally.agent)])
