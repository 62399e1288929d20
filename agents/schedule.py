"""Scheduled agents: when one wakes, whatever it did before."""

import math
from collections.abc import Generator
from typing import Any, Literal

from msgspec import Struct

from agents.chain import Ask, Note, Until
from agents.dice import Numbers, draw
from agents.draws import Draw, Positive


class Schedule(Struct, frozen=True, forbid_unknown_fields=True):
    """Each turn begins at an instant of a grid, as cron or a timer would begin it."""

    every: Positive  # seconds
    jitter: Draw = 0.0  # seconds after the instant, drawn for each turn
    busy: Literal["skip", "queue"] = "skip"  # instants at which it is still at work are left out, or made up for
    aligned: bool = True  # the grid is the run clock's, and all agents wake together; False: from its own start on


class Alarm:
    """Wakes one agent by its schedule; no instant is further from the next than `longest` seconds."""

    def __init__(self, schedule: Schedule, longest: float = math.inf) -> None:
        self.schedule, self.every = schedule, min(schedule.every, longest)
        self.last: float | None = None  # instant of the grid that was used

    def next(self, rng: Numbers) -> Generator[Ask, Any, None]:
        """Sleep until the next turn begins. Instants that found the agent at work are noted as missed."""
        late = draw(self.schedule.jitter, rng)
        if self.last is None:
            now = yield Until(0.0)
            self.last = self.every * math.ceil(now / self.every) if self.schedule.aligned else now
            yield Until(self.last + late)
            return
        self.last += self.every
        now = yield Until(self.last + late)
        if now <= self.last + late:
            return
        missed = 1
        if self.schedule.busy == "skip":
            missed = math.floor((now - self.last) / self.every) + 1
            self.last += missed * self.every
        yield Note("missed", missed)
        yield Until(self.last + late)  # at once, where it queues
