"""The engine on the wall clock: it begins and ends steps at absolute times and says who got tokens."""

import time
from collections.abc import Callable

from agentload.box.alarm import Alarm
from agentload.box.engine import Engine, Request, Step


class Lag:
    """How late tokens were written, against the model's time, in seconds: the machine's fault, not the model's."""

    def __init__(self) -> None:
        self.steps = 0
        self.total = 0.0
        self.worst = 0.0
        self.last = 0.0

    def add(self, seconds: float) -> None:
        self.steps += 1
        self.total += seconds
        self.last = seconds
        self.worst = max(self.worst, seconds)


class Replica:
    """Drives one engine on the running event loop; `serve` is called with the requests that got a token, once a step.

    `speed` is how many seconds of the engine pass in one of the wall. A step begins when the one before it ended,
    whenever the machine got round to noticing, so lateness never adds up.
    """

    def __init__(self, engine: Engine, serve: Callable[[list[Request]], None], speed: float = 1.0) -> None:
        self.engine = engine
        self.lag = Lag()
        self._serve = serve
        self._speed = speed
        self._origin = time.monotonic()
        self._alarm = Alarm(self._ring)
        self._step: Step | None = None
        self._free_at = 0.0  # engine time at which the last step ended

    def now(self) -> float:
        """Seconds on the engine's clock."""
        return (time.monotonic() - self._origin) * self._speed

    def submit(self, request: Request, received: float) -> None:
        """Hand over a request that came at `received` (time.monotonic()); the time since is part of its offset."""
        self.engine.submit(request, (received - self._origin) * self._speed)
        if self._step is None:
            self._plan()

    def cancel(self, request: Request) -> None:
        self.engine.cancel(request)

    def close(self) -> None:
        self._alarm.close()

    def _plan(self) -> None:
        """Begin the next step, or wait for the time when there will be something to do."""
        ready = self.engine.ready()
        if ready is None:
            return
        start = max(ready, self._free_at)
        if start > self.now():
            self._alarm.set(self._wall(start))
        else:
            self._step = self.engine.begin(start)
            self._alarm.set(self._wall(self._step.end))

    def _ring(self) -> None:
        step = self._step
        if step is not None:
            self._step, self._free_at = None, step.end
            served = self.engine.finish(step)
            if served:
                self._serve(served)
                self.lag.add(time.monotonic() - self._wall(step.end))
        self._plan()

    def _wall(self, instant: float) -> float:
        return self._origin + instant / self._speed
