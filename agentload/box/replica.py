"""The cluster on the wall clock: it is woken at the instants it names, and says who got tokens."""

import time
from collections.abc import Callable

from agentload.box.alarm import Alarm
from agentload.box.cluster import Cluster
from agentload.box.request import Request

BEHIND = 0.020
"""Seconds of write lag above which the machine is said to be measured and not the model."""


class Lag:
    """How late tokens were written, against the model's time, in seconds: the machine's fault, not the model's."""

    def __init__(self) -> None:
        self.steps = 0
        self.total = 0.0
        self.worst = 0.0
        self.last = 0.0
        self.behind = 0  # steps later than `BEHIND`

    def add(self, seconds: float) -> None:
        self.steps += 1
        self.total += seconds
        self.last = seconds
        self.worst = max(self.worst, seconds)
        self.behind += seconds > BEHIND

    @property
    def too_much(self) -> bool:
        """Whether it is this machine that is measured and not the model: one step in a hundred was written late."""
        return self.behind > 0.01 * max(100, self.steps)


class Driver:
    """Drives a cluster on the running event loop.

    `serve` is called with an instant and the requests that got a token at it.

    `speed` is how many seconds of the cluster pass in one of the wall. A step begins when the one before it ended,
    whenever the machine got round to noticing, so lateness never adds up.
    """

    def __init__(self, cluster: Cluster, serve: Callable[[float, list[Request]], None], speed: float = 1.0) -> None:
        self.cluster = cluster
        self.lag = Lag()
        self._serve = serve
        self._speed = speed
        self._origin = time.monotonic()
        self._alarm = Alarm(self._ring)
        self._set = float("inf")  # what the alarm is set to, on the cluster's clock
        self._plan()

    def now(self) -> float:
        """Seconds on the cluster's clock."""
        return self.at(time.monotonic())

    def at(self, instant: float) -> float:
        """That instant of time.monotonic() on the cluster's clock."""
        return (instant - self._origin) * self._speed

    def submit(self, request: Request, received: float) -> bool:
        """Hand over a request that came at `received` (time.monotonic()); the time since is part of its offset.

        False where no replica is up.
        """
        taken = self.cluster.submit(request, self.at(received))
        self._plan()
        return taken

    def cancel(self, request: Request) -> None:
        self.cluster.cancel(request, self.now())
        self._plan()

    def close(self) -> None:
        self._alarm.close()

    def _plan(self) -> None:
        """Set the alarm to what happens next."""
        at = self.cluster.next()
        if at is not None and at != self._set:
            self._set = at
            self._alarm.set(self._wall(at))

    def _ring(self) -> None:
        self._set = float("inf")
        while (at := self.cluster.next()) is not None and at <= self.now():
            served = self.cluster.advance()
            if served:
                self._serve(at, served)
                self.lag.add(time.monotonic() - self._wall(at))
        self._plan()

    def _wall(self, instant: float) -> float:
        return self._origin + instant / self._speed
