"""vLLM's scheduling loop written down plainly, request by request and step by step: what the engine must equal."""

from bisect import insort
from collections import deque

import numpy as np

from agentload.box.host import Host
from agentload.box.kv import BlockCache, Ids, Lease
from agentload.box.options import Offload
from agentload.box.pace import NOISE, NUMBERS, UNITS, noise, units
from agentload.box.presets import Preset

ARRIVING, WAITING, RUNNING, DONE = range(4)


class Request:
    """What the engine knows of a call: how many tokens go in, how many come out, and which blocks they make.

    `ids` are the identities of the full blocks of prompt and output together (`agentload.box.words.identities`); they
    may stop early, and what lies beyond is never found in the cache again.
    """

    __slots__ = (
        "arrival",
        "cached",
        "computed",
        "generated",
        "ids",
        "lease",
        "output",
        "preempted",
        "prompt",
        "state",
        "tag",
    )

    def __init__(self, prompt: int, output: int, ids: Ids, tag: object = None) -> None:
        if prompt < 1 or output < 1:
            raise ValueError(f"a request needs at least one token in and one out, got {prompt} and {output}")
        self.prompt = prompt
        self.output = output
        self.ids = ids
        self.tag = tag  # the caller's own
        self.arrival = 0.0  # seconds, when it reached the queue
        self.cached = -1  # prompt tokens found in the cache when it was first admitted
        self.computed = 0  # tokens whose keys and values are in the cache, or will be when the step ends
        self.generated = 0
        self.preempted = 0  # times it had to start over
        self.state = ARRIVING
        self.lease: Lease | None = None


class Step:
    """One iteration: who takes part, and how long it takes."""

    __slots__ = (
        "attention", "clock", "context", "decodes", "end", "loads", "prefill", "restored", "scheduled", "start",
    )  # fmt: skip

    def __init__(self, start: float) -> None:
        self.start = start  # seconds
        self.end = start
        self.clock = 0  # `end` in whole units
        self.prefill = 0  # P: prompt tokens computed
        self.decodes = 0  # D: requests that decode
        self.context = 0  # K: tokens of context they read
        self.attention = 0.0  # A: sum over chunks of n·(context before + n/2)
        self.restored = self.loads = 0  # tokens brought back from the host, for so many prompts
        self.scheduled: list[Request] = []


class Counts:
    """What an engine counts over its life, as vLLM's /metrics does: tokens unless said otherwise."""

    __slots__ = ("cached", "generated", "hits", "host_hits", "preemptions", "prompt", "queries", "steps")

    def __init__(self) -> None:
        self.prompt = 0  # of requests that got their first token
        self.cached = 0  # of `prompt`
        self.generated = 0
        self.queries = 0  # looked up in the prefix cache, when first admitted
        self.hits = 0  # of `queries`
        self.host_hits = 0
        self.preemptions = 0  # times
        self.steps = 0  # iterations


class Engine:
    """Continuous batching over a block cache, on the timing of `preset`.

    `sigma` is the standard deviation of the logarithm of a step's time (mean kept); 0 makes it exact. `kv_tokens`
    replaces the preset's cache size.
    """

    def __init__(
        self,
        preset: Preset,
        rng: np.random.Generator,
        sigma: float = 0.05,
        kv_tokens: int | None = None,
        offload: Offload | None = None,
    ) -> None:
        self.preset = preset
        self.offload = offload
        self.counts = Counts()
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self._rng = rng
        self._sigma = sigma
        self._noise: list[int] = []
        self._clock, self._ended = 0, -1.0  # when the last step ended, in units and in seconds
        self._arriving: deque[Request] = deque()
        blocks = (kv_tokens or preset.kv_tokens) // preset.block - 1  # one is vLLM's null block
        if blocks < 1:
            raise ValueError(
                f"the cache must hold at least two blocks of {preset.block} tokens, got {kv_tokens} tokens"
            )
        self.cache = BlockCache(blocks, preset.block, Host(offload.tokens // preset.block) if offload else None)

    @property
    def capacity(self) -> int:
        """Tokens of prompt and output that one request can have at most."""
        return self.cache.usable * self.preset.block

    def submit(self, request: Request, now: float) -> None:
        """Take a request at time `now` (seconds); it reaches the queue the preset's offset later."""
        if request.prompt + request.output > self.capacity:
            raise ValueError(f"{request.prompt} + {request.output} tokens can never fit a cache of {self.capacity}")
        request.arrival = now + 1e-3 * self.preset.offset_ms
        insort(self._arriving, request, key=lambda other: other.arrival)

    def cancel(self, request: Request) -> None:
        """Forget a request, wherever it is; one that is done stays done."""
        if request.state == RUNNING:
            self.running.remove(request)
            self._free(request)
        elif request.state == WAITING:
            self.waiting.remove(request)
        elif request.state == ARRIVING:
            self._arriving.remove(request)
        request.state = DONE

    def ready(self) -> float | None:
        """The earliest time at which a step would have something to do; None while there is nothing at all."""
        if self.running or self.waiting:
            return 0.0
        return self._arriving[0].arrival if self._arriving else None

    def begin(self, now: float) -> Step:
        """Schedule a step that starts at `now`. It must be finished before the next begins."""
        arriving = self._arriving
        while arriving and arriving[0].arrival <= now:
            request = arriving.popleft()
            request.state = WAITING
            self.waiting.append(request)
        step = Step(now)
        budget, preempted = self._schedule_running(step, self.preset.step_tokens)
        if not preempted:
            self._schedule_waiting(step, budget)
        step.clock = self._clock if now == self._ended else int(now * UNITS)
        step.clock += self._units(step) * self._factor()
        if self.offload and step.loads:
            extra = 1e-3 * self.offload.setup_ms * step.loads + 1e-6 * self.offload.token_us * step.restored
            step.clock += int(extra * UNITS)
        second, part = divmod(step.clock, int(UNITS))
        step.end = second + part / UNITS
        return step

    def _units(self, step: Step) -> int:
        """The formula, part by part in whole units."""
        p = self.preset
        prompts = units(p.prefill_ms * step.prefill + p.attention_ms * step.attention)
        return units(p.base_ms + p.decode_ms * step.decodes) + units(p.context_ms) * step.context + prompts

    def _factor(self) -> int:
        """The next number of noise; as many from one place as the engine takes, so that they are the same."""
        if not self._noise:
            place = int(self._rng.integers(NUMBERS))
            self._noise = noise(self._sigma).numbers[place : place + NOISE].tolist()[::-1]
        return self._noise.pop()

    def finish(self, step: Step) -> list[Request]:
        """End a step: the requests that got a token in it, in order. Those with all their tokens are done."""
        counts = self.counts
        counts.steps += 1
        self._clock, self._ended = step.clock, step.end
        served, ended = [], False
        for request in step.scheduled:
            if request.state != RUNNING or request.computed < request.prompt + request.generated:
                continue  # cancelled meanwhile, or a chunk that was not the last
            request.generated += 1
            if request.generated == 1:
                counts.prompt += request.prompt
                counts.cached += request.cached
            served.append(request)
            if request.generated == request.output:
                request.state = DONE
                self._free(request)
                ended = True
        counts.generated += len(served)
        if ended:
            self.running = [request for request in self.running if request.state == RUNNING]
        return served

    def _schedule_running(self, step: Step, budget: int) -> tuple[int, bool]:
        """Give running requests their part of the budget; what is left of it, and whether somebody was preempted."""
        running, grow, scheduled = self.running, self.cache.grow, step.scheduled
        decodes = context = i = 0
        preempted = False
        while i < len(running) and budget:
            request = running[i]
            computed = request.computed
            lacking = request.prompt + request.generated - computed
            n = min(lacking, budget)
            lease = request.lease
            assert lease is not None
            while not grow(lease, computed + n):
                preempted = True
                victim = running.pop()
                self._preempt(victim)
                if victim is request:
                    break
            else:
                budget -= n
                request.computed = computed + n
                scheduled.append(request)
                if lacking == 1 and request.generated:
                    decodes += 1
                    context += computed + 1
                else:
                    step.prefill += n
                    step.attention += n * (computed + 0.5 * n)
                i += 1
        step.decodes, step.context = decodes, context
        return budget, preempted

    def _schedule_waiting(self, step: Step, budget: int) -> None:
        """Admit from the head of the queue while seats, budget and blocks last."""
        waiting, running, cache = self.waiting, self.running, self.cache
        while waiting and budget and len(running) < self.preset.seats:
            request = waiting[0]
            known = request.prompt + request.generated
            lease = cache.admit(request.ids, known)
            if lease is None:
                break
            waiting.popleft()
            hit = lease.sealed * self.preset.block
            restored = cache.restore(lease, known)
            step.restored += restored
            step.loads += restored > 0
            if request.cached < 0:
                request.cached = hit + restored
                self.counts.queries += request.prompt
                self.counts.hits += hit
                self.counts.host_hits += restored
            hit += restored
            n = min(known - hit, budget)
            fits = cache.grow(lease, hit + n)
            assert fits
            budget -= n
            request.lease, request.computed, request.state = lease, hit + n, RUNNING
            running.append(request)
            step.scheduled.append(request)
            step.prefill += n
            step.attention += n * (hit + 0.5 * n)

    def _preempt(self, request: Request) -> None:
        """Send a running request, already taken from the list, back to the front of the queue to start over."""
        self._free(request)
        request.computed = 0
        request.preempted += 1
        request.state = WAITING
        self.waiting.appendleft(request)
        self.counts.preemptions += 1

    def _free(self, request: Request) -> None:
        if request.lease is not None:
            self.cache.release(request.lease)
            request.lease = None
