"""One replica of an inference engine: vLLM V1's scheduling loop, with a formula where the accelerator would be.

No clock and no socket live here. Whoever drives it calls `submit` as requests come, asks `ready` when the next step
can begin, calls `begin` then, lets the step's time pass on whatever clock there is, and calls `finish` to learn who
got a token:

    while (start := engine.ready()) is not None:
        step = engine.begin(max(now, start))
        now = step.end
        for request in engine.finish(step): ...

The rules are those of vLLM 0.32.0 (v1/core/sched/scheduler.py): each step has a token budget; running requests come
first, one token for a decode and as much of a prompt as the budget allows; then waiting ones in order of arrival,
while seats and budget last and the whole prompt fits into the cache. A running request that finds no block preempts
the last one running, which starts over from the front of the queue; a step that preempted admits nobody. Every token
of a step comes when the step ends.

Since the budget is at least the seats (vLLM insists on that too), every decoding request gets a token in every step,
and a prompt that is not done yet is the last one running. So those that decode are one set whose leases glide
(`agentload.box.kv`), and a step costs what begins and ends in it, not its batch. Where nothing begins or ends for a
while, `begin` makes one step of many (`most`). Only a step in which blocks run out is walked through request by
request. The tests hold all of this equal, to the last bit, to the plain loop.
"""

from collections import deque
from heapq import heappop, heappush

import numpy as np

from agentload.box.gaps import Gaps
from agentload.box.host import Host
from agentload.box.kv import BlockCache, Lease
from agentload.box.options import Offload
from agentload.box.pace import Pace
from agentload.box.presets import Preset
from agentload.box.request import ARRIVING, DONE, RUNNING, WAITING, Counts, Request, Step


class Engine:
    """Continuous batching over a block cache, on the timing of `preset`.

    `sigma` is the standard deviation of the logarithm of a step's time (mean kept); 0 makes it exact. `kv_tokens`
    replaces the preset's cache size. `finish` names every request that got a token if `each`, else only those that got
    their first or their last. With `offload`, blocks that the cache evicts are kept in the host's memory, and a prompt
    that continues with them waits for them to come back instead of computing them. Times between tokens go to `gaps`,
    what is counted to `counts`, which engines may share.
    """

    def __init__(
        self,
        preset: Preset,
        rng: np.random.Generator,
        sigma: float = 0.05,
        kv_tokens: int | None = None,
        *,
        each: bool = True,
        offload: Offload | None = None,
        gaps: Gaps | None = None,
        counts: Counts | None = None,
    ) -> None:
        if preset.step_tokens < preset.seats:
            raise ValueError(f"step_tokens must be at least seats, got {preset.step_tokens} and {preset.seats}")
        self.preset = preset
        self._seats, self._budget = preset.seats, preset.step_tokens
        self.counts = Counts() if counts is None else counts
        self.waiting: deque[Request] = deque()
        self.running: dict[Request, None] = {}  # in order of admission
        self._each = each
        self.pace = Pace(preset, rng, sigma, Gaps() if gaps is None else gaps)
        self._arriving: list[tuple[float, int, Request]] = []  # a heap
        self._numbers = 0  # of arrivals and admissions so far
        self._busy = False  # a step has begun and not ended
        self._decoding = 0  # requests
        self._since = 0  # sum of their leases' `since`
        self._filling: Request | None = None  # the one whose prompt is not computed yet: the last one running
        self._ends: list[tuple[int, int, Request]] = []  # a heap: the tick of each decode's last token, its seat
        blocks = (kv_tokens or preset.kv_tokens) // preset.block - 1  # one is vLLM's null block
        if blocks < 1:
            raise ValueError(
                f"the cache must hold at least two blocks of {preset.block} tokens, got {kv_tokens} tokens"
            )
        self._offload = offload
        self.cache = BlockCache(blocks, preset.block, Host(offload.tokens // preset.block) if offload else None)

    @property
    def capacity(self) -> int:
        """Tokens of prompt and output that one request can have at most."""
        return self.cache.usable * self.preset.block

    @property
    def receptive(self) -> bool:
        """Whether a request that came now would be looked at in the next step: nobody is before it."""
        return not self.waiting and self._decoding < min(self._seats, self._budget)

    def submit(self, request: Request, now: float, offset_ms: float | None = None) -> None:
        """Take a request at time `now` (seconds); it reaches the queue the preset's offset later, or `offset_ms`."""
        if request.prompt + request.output > self.capacity:
            raise ValueError(f"{request.prompt} + {request.output} tokens can never fit a cache of {self.capacity}")
        request.arrival = now + 1e-3 * (self.preset.offset_ms if offset_ms is None else offset_ms)
        request.state = ARRIVING
        self._numbers += 1
        heappush(self._arriving, (request.arrival, self._numbers, request))

    def cancel(self, request: Request) -> None:
        """Forget a request, wherever it is; one that is done stays done."""
        if request.state == RUNNING:
            self._leave(request)
        elif request.state == WAITING:
            self.waiting.remove(request)
        request.state = DONE

    def requests(self) -> list[Request]:
        """Those that were submitted and have not ended."""
        arriving = [request for _, _, request in sorted(self._arriving) if request.state == ARRIVING]
        return [*self.running, *self.waiting, *arriving]

    def ready(self) -> float | None:
        """The earliest time at which a step would have something to do; None while there is nothing at all."""
        if self.running or self.waiting:
            return 0.0
        arriving = self._arriving
        while arriving and arriving[0][2].state == DONE:
            heappop(arriving)
        return arriving[0][0] if arriving else None

    def begin(self, now: float, most: int = 1) -> Step:
        """Schedule a step that starts at `now`, or up to `most` alike. It must be finished before the next begins."""
        arriving = self._arriving
        while arriving and arriving[0][0] <= now:
            request = heappop(arriving)[2]
            if request.state == ARRIVING:
                request.state = WAITING
                self.waiting.append(request)
        step, cache = Step(now), self.cache
        self._busy, count = True, 1
        if self._decoding:
            step.decodes = self._decoding
            step.context = self._decoding * (cache.ticks + 1) - self._since
            if most > 1:
                count = min(min(most, self.pace.left), self._next_end() - cache.ticks)
            count = cache.room(count)
        alike = self._schedule(step) if count else self._walk(step)
        if step.loads and self._offload is not None:
            extra = 1e-3 * self._offload.setup_ms * step.loads + 1e-6 * self._offload.token_us * step.restored
            self.pace.take(step, 1, extra)
            return step
        if step.joined or not alike or not step.decodes:
            count = 1
        self.pace.take(step, count)
        if count > 1 and arriving and self.receptive:
            self.pace.shorten(step, arriving[0][0])
        return step

    def finish(self, step: Step) -> list[Request]:
        """End a step: the requests that got a token in it, in order. Those with all their tokens are done."""
        counts, cache, many = self.counts, self.cache, step.count
        self._busy = False
        counts.steps += many
        self.pace.passed(step, many)
        if many > 1:
            cache.tick(many - 1)
        served: list[Request] = []
        if step.decodes:
            counts.generated += self._decoding * many
            if self._each:
                served = [request for request in self.running if request.lease is not None and request.lease.gliding]
                for request in served:
                    request.generated += many
            if self._ends and self._ends[0][0] <= cache.ticks:
                self._end(served)
        for request in step.joined:
            if request.state == RUNNING and request.computed >= request.known:
                self._speak(request)
                served.append(request)
        return served

    def shorten(self, step: Step, instant: float) -> None:
        """Let a step that is several in a row end at the first of its ends that is not before `instant`."""
        self.pace.shorten(step, instant)

    def catch_up(self, step: Step, now: float) -> None:
        """Make a step that is several in a row the one that is going on at `now`; those before have ended."""
        past = min(self.pace.ended(step, now), step.count - 1)
        if past:
            self.cache.tick(past)
            self.counts.steps += past
            self.counts.generated += self._decoding * past
            self.pace.passed(step, past)
        self.pace.cut(step, 1)

    def _schedule(self, step: Step) -> bool:
        """Give everyone a part of the budget; False where the next step cannot be like this one."""
        cache = self.cache
        if step.decodes:
            cache.tick()
        filling = self._filling
        if filling is None and not self.waiting:
            return True
        budget, preempted = self._budget - step.decodes, False
        if filling is not None and budget:
            n = min(filling.known - filling.computed, budget)
            assert filling.lease is not None
            if cache.grow(filling.lease, filling.computed + n):
                self._take(step, filling, n)
                budget -= n
            else:
                preempted = True
                self._preempt(filling)
        if not preempted:
            return self._admit(step, budget)
        return False

    def _take(self, step: Step, request: Request, n: int) -> None:
        """Compute `n` more tokens of the running prompt that comes last. A last token alone counts as a decode."""
        lacking = request.known - request.computed
        step.take(request, n)
        self._filling = request if n < lacking else None
        if lacking == 1 and request.generated:
            step.prefill -= 1
            step.attention -= request.computed - 0.5
            step.decodes += 1
            step.context += request.computed

    def _admit(self, step: Step, budget: int) -> bool:
        """Admit from the head of the queue while seats, budget and blocks last; False if it may move by itself."""
        waiting, cache = self.waiting, self.cache
        while waiting and budget and len(self.running) < self._seats:
            request = waiting[0]
            known = request.known
            lease = cache.admit(request.ids, known)
            if lease is None:
                return not cache.leans_on_growth(request.ids, known)
            waiting.popleft()
            hit = lease.sealed * self.preset.block
            if self._offload is not None and not request.loaded:
                hit += self._restore(step, request, lease)
            if request.loaded:
                request.cached = max(0, request.cached)
                hit = max(hit, min(request.loaded, known - 1))
            elif request.cached < 0:
                request.cached = hit
                self.counts.queries += request.prompt
                self.counts.hits += hit - request.restored
            if not request.seat:
                request.admitted = step.start
            n = min(known - hit, budget)
            fits = cache.grow(lease, hit + n)
            assert fits
            budget -= n
            self._numbers += 1
            request.lease, request.computed, request.state, request.seat = lease, hit, RUNNING, self._numbers
            self.running[request] = None
            step.take(request, n)
            if request.computed < known:
                self._filling = request
        return True

    def _restore(self, step: Step, request: Request, lease: Lease) -> int:
        """Bring back what the host has of a request that is admitted; how many tokens."""
        hit = lease.sealed * self.preset.block
        restored = self.cache.restore(lease, request.known)
        step.restored += restored
        step.loads += restored > 0
        if request.cached < 0:
            request.restored = restored
            self.counts.host_queries += request.prompt - hit
            self.counts.host_hits += restored
        return restored

    def _walk(self, step: Step) -> bool:
        """`_schedule`, request by request, for a step in which blocks run out or two may fill the same block."""
        cache, landed, budget = self.cache, [], self._budget
        step.decodes = step.context = 0
        for request in self.running:
            lease = request.lease
            assert lease is not None
            if lease.gliding:
                request.computed = self._land(request)
                request.generated = request.computed - request.prompt + 1
                landed.append(request)
        order, i, preempted = list(self.running), 0, False
        while i < len(order) and budget:
            request = order[i]
            decodes = i < len(landed)
            n = 1 if decodes else min(request.known - request.computed, budget)
            assert request.lease is not None
            while not cache.grow(request.lease, request.computed + n):
                preempted = True
                victim = order.pop()
                self._preempt(victim)
                if victim is request:
                    break
            else:
                budget -= n
                if decodes:
                    request.computed += 1
                    step.decodes += 1
                    step.context += request.computed
                else:
                    self._take(step, request, n)
                i += 1
        cache.ticks += 1
        for request in landed:
            if request.state == RUNNING:
                self._glide(request)
        if not preempted:
            self._admit(step, budget)
        return False

    def _next_end(self) -> int:
        """The tick of the next last token."""
        ends = self._ends
        while ends[0][2].until != ends[0][0]:
            heappop(ends)
        return ends[0][0]

    def _end(self, served: list[Request]) -> None:
        """End those whose last token has come."""
        ends = self._ends
        while ends and ends[0][0] <= self.cache.ticks:
            tick, _, request = heappop(ends)
            if request.until == tick:
                self._leave(request)
                request.generated, request.state = request.output, DONE
                if not self._each:
                    served.append(request)

    def _speak(self, request: Request) -> None:
        """A request's prompt is computed: it gets a token, and decodes from now on."""
        request.generated += 1
        if not request.hidden:
            self.counts.generated += 1
            if request.generated == 1:
                self.counts.prompt += request.prompt
                self.counts.cached += request.cached
                self.counts.restored += request.restored
        if request.generated == request.output:
            self._leave(request)
            request.state = DONE
        else:
            self._glide(request)
            heappush(self._ends, (request.until, request.seat, request))

    def _glide(self, request: Request) -> None:
        lease = request.lease
        assert lease is not None
        self.cache.glide(lease, request.computed)
        self._decoding += 1
        self._since += lease.since
        request.until = request.output + request.prompt - 1 + lease.since

    def _land(self, request: Request) -> int:
        """Take a request out of the set that decodes; the tokens that its lease holds."""
        lease = request.lease
        assert lease is not None
        self._decoding -= 1
        self._since -= lease.since
        request.until = -1
        return self.cache.land(lease)

    def _leave(self, request: Request) -> None:
        """Take a request off the running ones and give its blocks back."""
        del self.running[request]
        lease = request.lease
        assert lease is not None
        if lease.gliding:
            request.generated = self._land(request) - request.prompt + 1 - self._busy
        if request is self._filling:
            self._filling = None
        self.cache.release(lease)
        request.lease = None

    def _preempt(self, request: Request) -> None:
        """Send a running request back to the front of the queue to start over."""
        busy, self._busy = self._busy, False
        self._leave(request)
        self._busy = busy
        request.computed = request.loaded = 0
        request.preempted += 1
        request.state = WAITING
        self.waiting.appendleft(request)
        self.counts.preemptions += 1
