"""The engine against vLLM's loop written down plainly (`box_literal`): equal to the last bit."""

import random
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from agentload.box.engine import Engine
from agentload.box.options import Offload
from agentload.box.presets import DEFAULT, PRESETS, Preset
from agentload.box.request import Request, Step
from tests import box_literal as plain
from tests.test_box_kv import flat

PLAIN = structs.replace(PRESETS[DEFAULT], offset_ms=2.0)
Event = tuple[float, str, int, int, int]
Seen = list[tuple[int, float, int, int, int]]


def identities(path: int, blocks: int) -> list[int]:
    """Sequences with the same first digits of `path` (in base 3) begin alike."""
    chain, before = [], 7
    for i in range(blocks):
        before = hash((before, path // 3 ** (i // 2) % 3, i))
        chain.append(before % (1 << 62))
    return chain


def literal(
    preset: Preset, kv: int, sigma: float, events: list[Event], offload: Offload | None
) -> tuple[Seen, list[float], Any]:
    """Play events step by step on the plain loop."""
    engine = plain.Engine(preset, np.random.default_rng(5), sigma, kv, offload)
    requests: dict[int, plain.Request] = {}
    seen: Seen = []
    ends: list[float] = []
    queue, now, step = list(events), 0.0, None
    while True:
        ready = engine.ready()
        start = None if ready is None else max(ready, now)
        until = step.end if step else start
        if queue and (until is None or queue[0][0] < until):
            at, kind, number, prompt, output = queue.pop(0)
            if kind == "submit" and prompt + output <= engine.capacity:
                requests[number] = plain.Request(
                    prompt, output, identities(number % 9, (prompt + output - 1) // 16), number
                )
                engine.submit(requests[number], at)
            elif kind == "cancel" and prompt in requests:
                engine.cancel(requests[prompt])
        elif step:
            now = step.end
            ends.append(now)
            for request in engine.finish(step):
                if request.generated in (1, request.output):
                    seen.append((int(str(request.tag)), now, request.generated, request.cached, request.preempted))
            step = None
        elif start is not None:
            step = engine.begin(start)
        else:
            return seen, ends, engine


def glided(
    preset: Preset, kv: int, sigma: float, events: list[Event], offload: Offload | None, most: int, each: bool
) -> tuple[Seen, list[float], Any]:
    """The same on the engine, `most` steps at a time."""
    engine = Engine(preset, np.random.default_rng(5), sigma, kv, each=each, offload=offload)
    requests: dict[int, Request] = {}
    seen: Seen = []
    ends: list[float] = []
    queue, now, step = list(events), 0.0, None
    while True:
        ready = engine.ready()
        start = None if ready is None else max(ready, now)
        until = step.end if step else start
        if queue and (until is None or queue[0][0] < until):
            at, kind, number, prompt, output = queue.pop(0)
            if kind == "submit" and prompt + output <= engine.capacity:
                request = Request(prompt, output, identities(number % 9, (prompt + output - 1) // 16), number)
                requests[number] = request
                engine.submit(request, at)
                if step and engine.receptive:
                    engine.shorten(step, request.arrival)
            elif kind == "cancel" and prompt in requests:
                if step:
                    ends += [end for end in ends_of(engine, step) if end <= at]
                    engine.catch_up(step, at)
                engine.cancel(requests[prompt])
        elif step:
            now = step.end
            ends += ends_of(engine, step)
            for request in engine.finish(step):
                if request.generated in (1, request.output):
                    seen.append((int(str(request.tag)), now, request.generated, request.cached, request.preempted))
            step = None
        elif start is not None:
            step = engine.begin(start, most)
        else:
            return seen, ends, engine


def ends_of(engine: Engine, step: Step) -> list[float]:
    return [engine.pace.at(step, count) for count in range(1, step.count + 1)]


def made(seed: int, count: int, longest: int) -> list[Event]:
    rng = random.Random(seed)
    events: list[Event] = []
    for number in range(count):
        at = rng.choice([0.0, rng.uniform(0, 0.4), rng.uniform(0, 3.0)])
        events.append((at, "submit", number, rng.randint(1, longest), rng.choice([1, 2, rng.randint(1, 90)])))
        if rng.random() < 0.2:
            events.append((rng.uniform(0, 3.0), "cancel", -number - 1, number, 0))
    return sorted(events)


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 10**9),
    count=st.integers(1, 30),
    blocks=st.integers(9, 60),
    seats=st.integers(1, 8),
    budget=st.integers(8, 200),
    sigma=st.sampled_from([0.0, 0.05]),
    host=st.sampled_from([0, 0, 5, 40]),
    most=st.sampled_from([1, 3, 40, 10_000]),
    each=st.booleans(),
)
def test_many_steps_at_once_are_the_same_as_one_by_one(
    seed, count, blocks, seats, budget, sigma, host, most, each
):  # fmt: skip
    preset, events = structs.replace(PLAIN, seats=seats, step_tokens=budget), made(seed, count, 16 * blocks // 2)
    each = each and most == 1
    offload = Offload(tokens=16 * host, setup_ms=1.0, token_us=5.0) if host else None
    seen, ends, engine = literal(preset, 16 * (blocks + 1), sigma, events, offload)
    again, fast_ends, other = glided(preset, 16 * (blocks + 1), sigma, events, offload, most, each)

    assert again == seen
    assert fast_ends == ends
    for name in ("prompt", "cached", "generated", "queries", "hits", "host_hits", "preemptions", "steps"):
        assert getattr(other.counts, name) == getattr(engine.counts, name), name
    assert other.cache.free == engine.cache.free == blocks
    assert flat(other.cache) == flat(engine.cache)
    if offload:
        assert list(other.cache.host._blocks) == list(engine.cache.host._blocks)
