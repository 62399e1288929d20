"""Many replicas behind a router, still with no clock and no socket: the cluster says when it wants to be woken.

    cluster.submit(request, now)
    while (at := cluster.next()) is not None:   # let that instant come
        for request in cluster.advance(): ...   # who got a token at it

`advance` acts at the instant that `next` named. Requests that got lost with a replica are named too; their `state` is
DONE and they lack tokens.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from math import inf
from typing import Any, Final

import numpy as np

from agentload.box.engine import Engine
from agentload.box.gaps import Gaps
from agentload.box.options import BoxOptions
from agentload.box.request import DONE, NEW, Counts, Request, Step
from agentload.box.routers import Candidate, Choose, router
from agentload.box.tournament import Tournament

STRETCH: Final = 256
"""Most steps taken at once; more would mostly be cut short by the next arrival."""


class Replica(Candidate):
    """An engine, what it is doing, and what routers know of it."""

    __slots__ = ("counts", "engine", "free_at", "loads", "place", "step", "up")

    def __init__(self, index: int, engine: Engine, loads: list[int]) -> None:
        super().__init__(index, engine.cache)
        self.counts: list[Counts] = []  # of its lives
        self.live(engine)
        self.up = True
        self.loads, self.place = loads, len(loads)  # requests sent to each of its group and not ended, and which is its
        loads.append(0)
        self.step: Step | None = None
        self.free_at = 0.0  # when the last step ended

    def live(self, engine: Engine) -> None:
        """Begin, or begin again, with that engine."""
        self.engine, self.cache = engine, engine.cache
        self.counts.append(engine.counts)

    @property
    def outstanding(self) -> int:
        """Requests sent here and not ended."""
        return self.loads[self.place]


class Cluster:
    """Replicas, a router, and what happens to them.

    `each` names every request at every token; else steps are taken many at a time where nothing begins or ends, and all
    replicas count together, not each for itself. Where a cluster is a part of several (`agentload.shards`), its number
    makes its noise its own.
    """

    def __init__(self, options: BoxOptions, *, each: bool = True, part: int = 0) -> None:
        self.options = options
        self.preset = options.scaled()
        self._gaps = Gaps()
        self.watch: Callable[[int, Step], None] | None = None  # called with every step that ended, and whose it was
        self._each = each
        self._whole = None if each else Counts()  # of all replicas
        seed = options.seed & (2**64 - 1)
        self._seeds = np.random.default_rng([seed, part] if part else seed)
        self._turns = Tournament(options.replicas + options.prefill)  # when replicas act next
        self._agenda: list[tuple[float, int, Any, Any]] = []  # a heap of what else happens: instant, order, what, which
        self._entries = 0  # in both
        self._idle: list[Replica] = []  # may begin a step
        decoding, filling = list[int](), list[int]()
        self._down = 0  # replicas that are not up
        self._decoders = [self._start(index, decoding) for index in range(options.replicas)]
        self._fillers = [self._start(options.replicas + index, filling) for index in range(options.prefill)]
        self.replicas = [*self._decoders, *self._fillers]
        self._choose: Choose = router(options.router, self._seeds.spawn(1)[0])
        self._choose_decoder: Choose = router(
            "round_robin" if options.router == "round_robin" else "least_outstanding", self._seeds.spawn(1)[0]
        )
        self._first_leg: dict[Request, Request] = {}  # of those whose prompt is computed elsewhere
        self._coming = 0  # replicas that are starting
        for failure in options.failures:
            self._enter(failure.at, self._fail, failure)

    @property
    def capacity(self) -> int:
        """Tokens of prompt and output that one request can have at most."""
        return self.replicas[0].engine.capacity

    @property
    def gaps(self) -> Gaps:
        """Times between tokens so far."""
        for replica in self.replicas:
            replica.engine.pace.fold()
        return self._gaps

    @property
    def running(self) -> int:
        """Requests in a batch."""
        return sum([len(replica.engine.running) for replica in self.replicas])

    @property
    def waiting(self) -> int:
        """Requests that no replica works on yet."""
        return sum(replica.outstanding - len(replica.engine.running) for replica in self.replicas)

    @property
    def queued(self) -> int:
        """Requests that have reached a queue and are not in a batch."""
        return sum([len(replica.engine.waiting) for replica in self.replicas])

    @property
    def usage(self) -> float:
        """Share of all replicas' blocks that somebody holds, 0 to 1."""
        free = sum([replica.cache.free for replica in self.replicas])
        return 1.0 - free / sum([replica.cache.usable for replica in self.replicas])

    def submit(self, request: Request, now: float) -> bool:
        """Take a request at time `now` (seconds); False where no replica is up to take it."""
        if self.options.prefill:
            return self._submit_leg(request, now)
        return self._send(request, self._decoders, self._choose, now, None)

    def cancel(self, request: Request, now: float) -> None:
        """Forget a request; one that is done stays done."""
        leg = self._first_leg.pop(request, None)
        if leg is not None:
            self.cancel(leg, now)
        if request.state not in (NEW, DONE):
            replica = self.replicas[request.replica]
            if replica.step is not None and replica.step.count > 1:
                replica.engine.catch_up(replica.step, now)
                self._enter_turn(replica, replica.step.end)
            replica.engine.cancel(request)
            self._leave(request, replica)
        request.state = DONE

    def next(self) -> float | None:
        """When something happens next; None while nothing will."""
        if self._idle:
            for replica in self._idle:
                self._plan(replica)
            self._idle.clear()
        turns = self._turns
        first = turns.first
        at = turns.instant(first)
        if self._agenda and self._sooner(at, turns.order(first)):
            return self._agenda[0][0]
        return at if at < inf else None

    def advance(self) -> list[Request]:
        """Let happen what `next` has just named; the requests that got a token by it, or were lost, in order."""
        turns = self._turns
        first = turns.first
        at = turns.instant(first)
        if self._agenda and self._sooner(at, turns.order(first)):
            at, _, what, which = heappop(self._agenda)
            lost: list[Request] = what(which, at)
            return lost
        replica = self.replicas[first]
        step = replica.step
        self._idle.append(replica)
        if step is None:  # a request has arrived
            replica.free_at = max(replica.free_at, at)
            return []
        replica.step, replica.free_at = None, step.end
        if self.watch is not None:
            self.watch(replica.index, step)
        served = replica.engine.finish(step)
        for request in served:
            if request.generated == 1:
                replica.filling -= request.prompt
            if request.state == DONE:
                self._leave(request, replica)
        return [request for request in served if not request.hidden] if self._fillers else served

    def _sooner(self, at: float, order: int) -> bool:
        """Whether the agenda comes before what a replica does."""
        instant, entry, _, _ = self._agenda[0]
        return instant < at or (instant == at and entry < order)

    def counts(self) -> Counts:
        """What all replicas have counted, added up."""
        if self._whole is not None:
            return self._whole
        whole = Counts()
        for replica in self.replicas:
            for counts in replica.counts:
                whole.add(counts)
        return whole

    def _start(self, index: int, loads: list[int]) -> Replica:
        return Replica(index, self._engine(), loads)

    def _engine(self) -> Engine:
        options, rng = self.options, self._seeds.spawn(1)[0]
        return Engine(
            self.preset, rng, options.sigma, each=self._each, offload=options.offload, gaps=self._gaps,
            counts=self._whole,
        )  # fmt: skip

    def _send(
        self, request: Request, group: list[Replica], choose: Choose, now: float, offset_ms: float | None
    ) -> bool:
        up, loads = group, group[0].loads
        if self._down:
            up = [replica for replica in group if replica.up]
            loads = [replica.outstanding for replica in up]
        if not up:
            return False
        replica = up[choose(request, up, loads) if len(up) > 1 else 0]
        engine, step = replica.engine, replica.step
        engine.submit(request, now, offset_ms)
        request.replica = replica.index
        replica.loads[replica.place] += 1
        replica.filling += request.prompt
        if step is None:
            self._idle.append(replica)
        elif step.count > 1 and step.end > request.arrival and engine.receptive:
            engine.shorten(step, request.arrival)
            self._enter_turn(replica, step.end)
        if self.options.scaling is not None and group is self._decoders:
            self._scale(now)
        return True

    def _submit_leg(self, request: Request, now: float) -> bool:
        """Have the prompt computed by a replica for prompts; the rest follows when it is."""
        leg = Request(request.prompt, 1, request.ids, request)
        leg.hidden = True
        if not any(replica.up for replica in self._decoders):
            return False
        self._first_leg[request] = leg
        return self._send(leg, self._fillers, self._choose, now, None)

    def _leave(self, request: Request, replica: Replica) -> None:
        """A request is over, or its first leg is, and then its keys and values travel."""
        replica.loads[replica.place] -= 1
        if request.generated == 0:
            replica.filling -= request.prompt
        if request.hidden and request.generated:
            whole: Any = request.tag
            transfer = self.options.transfer
            travel = 1e-3 * transfer.setup_ms + 1e-6 * transfer.token_us * request.prompt
            self._enter(replica.free_at + travel, self._receive, whole)

    def _receive(self, request: Request, at: float) -> list[Request]:
        """Keys and values of a prompt have come to the replicas that decode."""
        leg = self._first_leg.pop(request, None)
        if leg is None:  # cancelled meanwhile
            return []
        request.loaded, request.cached = request.prompt, leg.cached
        if self._send(request, self._decoders, self._choose_decoder, at, 0.0):
            return []
        request.state = DONE
        return [request]

    def _plan(self, replica: Replica) -> None:
        """Begin the next step, or wait for the time when there will be something to do."""
        if replica.step is not None or not replica.up:
            return
        engine, ready = replica.engine, replica.engine.ready()
        if ready is None:
            self._enter_turn(replica, inf)
        elif ready > replica.free_at:
            self._enter_turn(replica, ready)
        else:
            replica.step = engine.begin(replica.free_at, 1 if self._each else STRETCH)
            self._enter_turn(replica, replica.step.end)

    def _enter_turn(self, replica: Replica, at: float) -> None:
        self._entries += 1
        self._turns.enter(replica.index, at, self._entries)

    def _enter(self, at: float, what: Any, which: Any) -> None:
        self._entries += 1
        heappush(self._agenda, (at, self._entries, what, which))

    def _fail(self, failure: Any, at: float) -> list[Request]:
        """A replica dies: all that it had is lost, its cache too. It comes back as a new engine."""
        replica = self.replicas[failure.replica]
        lost: list[Request] = []
        if replica.step is not None:
            replica.engine.catch_up(replica.step, at)
        for request in replica.engine.requests():
            replica.engine.cancel(request)
            whole: Any = request.tag if request.hidden else request
            self._first_leg.pop(whole, None)
            whole.state = DONE
            lost.append(whole)
        replica.loads[replica.place] = replica.filling = 0
        self._down += replica.up
        replica.up, replica.step = False, None
        self._enter_turn(replica, inf)
        replica.engine.pace.fold()
        replica.live(self._engine())
        self._enter(at + failure.after, self._recover, replica)
        return lost

    def _recover(self, replica: Replica, at: float) -> list[Request]:
        self._down -= not replica.up
        replica.up, replica.free_at = True, at
        return []

    def _scale(self, now: float) -> None:
        """Start a replica where there are too many requests for those up and coming."""
        scaling = self.options.scaling
        assert scaling is not None
        count = len(self._decoders) + self._coming
        if count < scaling.most and sum(self._decoders[0].loads) > scaling.outstanding * count:
            self._coming += 1
            self._enter(now + scaling.cold_start, self._join, None)

    def _join(self, _: None, at: float) -> list[Request]:
        """A replica that was started is up."""
        self._coming -= 1
        replica = self._start(len(self.replicas), self._decoders[0].loads)
        replica.free_at = at
        self.replicas.append(replica)
        self._decoders.append(replica)
        return []
