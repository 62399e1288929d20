"""The box's engine: its step time by hand, its scheduling rules, measured rows, and a fuzz of its invariants."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from pytest import approx

from agentload.box.engine import Engine
from agentload.box.options import Offload
from agentload.box.presets import DEFAULT, PRESETS, Preset
from agentload.box.request import DONE, RUNNING, Request, Step

TP4 = PRESETS[DEFAULT]
PLAIN = structs.replace(TP4, offset_ms=0.0)


def engine(preset: Preset = PLAIN, sigma: float = 0.0, kv_tokens: int | None = None) -> Engine:
    return Engine(preset, np.random.default_rng(0), sigma, kv_tokens)


def submit(to: Engine, prompt: int, output: int, now: float = 0.0, ids: list[int] | None = None) -> Request:
    request = Request(prompt, output, ids or [])
    to.submit(request, now)
    return request


def advance(to: Engine, now: float) -> tuple[Step, list[Request]]:
    step = to.begin(now)
    return step, to.finish(step)


def test_step_time_is_the_formula():
    lone = engine()
    submit(lone, 1_000, 3)
    prefill, first = advance(lone, 0.0)
    decode, second = advance(lone, prefill.end)

    assert prefill.end == approx(1e-3 * (11.11 + 0.0369 * 1_000 + 7e-8 * 1_000 * 500))
    assert decode.end - decode.start == approx(1e-3 * (11.11 + 0.0365 + 4.64e-5 * 1_001))
    assert len(first) == len(second) == 1


def test_attention_of_a_chunk_counts_the_context_before_it():
    chunked = engine(structs.replace(PLAIN, step_tokens=600))
    submit(chunked, 1_000, 1)
    one, none = advance(chunked, 0.0)
    two, token = advance(chunked, one.end)

    assert (one.prefill, one.attention, none) == (600, 600 * 300, [])
    assert (two.prefill, two.attention) == (400, 400 * (600 + 200))
    assert len(token) == 1


def test_a_request_reaches_the_queue_the_offset_after_it_came():
    late = engine(TP4)
    submit(late, 10, 1, now=1.0)

    assert late.ready() == approx(1.018)
    assert not late.begin(1.01).joined
    assert late.begin(1.02).joined


def test_noise_keeps_the_mean_and_has_its_sigma():
    noisy = engine(sigma=0.05)
    submit(noisy, 1, 20_001)
    advance(noisy, 0.0)
    factors = []
    for _ in range(20_000):
        step, _ = advance(noisy, 0.0)
        factors.append(step.end / PLAIN.step_seconds(0, 1, step.context, 0.0))

    assert np.mean(factors) == approx(1.0, abs=5 * 0.05 / np.sqrt(20_000))
    assert np.std(np.log(factors)) == approx(0.05, rel=0.03)


def test_running_requests_come_before_waiting_ones_and_share_the_budget():
    shared = engine(structs.replace(PLAIN, step_tokens=100, seats=4))
    old = submit(shared, 50, 10)
    advance(shared, 0.0)
    new = submit(shared, 500, 10)
    step, served = advance(shared, 1.0)

    assert step.joined == [new]
    assert (step.decodes, step.prefill) == (1, 99)
    assert served == [old]  # the new one has had a chunk of its prompt only


def test_seats_are_given_in_order_of_arrival():
    small = engine(structs.replace(PLAIN, seats=2))
    requests = [submit(small, 10, 2) for _ in range(4)]

    assert advance(small, 0.0)[1] == requests[:2]
    assert advance(small, 1.0)[1] == requests[:2]
    assert advance(small, 2.0)[1] == requests[2:]


def test_a_prompt_that_does_not_fit_waits_and_holds_back_those_behind_it():
    tight = engine(kv_tokens=16 * 11)  # ten blocks and vLLM's null block
    first, big, small = submit(tight, 90, 5), submit(tight, 100, 2), submit(tight, 10, 2)
    advance(tight, 0.0)

    assert first.state == RUNNING
    assert list(tight.waiting) == [big, small]


def test_the_last_running_starts_over_at_the_front_when_blocks_run_out():
    tight = engine(kv_tokens=16 * 5)  # four blocks
    first, second, third = submit(tight, 31, 10), submit(tight, 31, 10), submit(tight, 5, 1)
    advance(tight, 0.0)
    assert list(tight.waiting) == [third]
    advance(tight, 1.0)  # both fill their second block
    step, served = advance(tight, 2.0)  # and both want a third

    assert served == [first]
    assert list(tight.waiting) == [second, third]  # nobody is admitted in a step that preempted
    assert (second.computed, second.preempted, second.generated, tight.counts.preemptions) == (0, 1, 2, 1)
    assert step.decodes == 1
    run_out(tight)
    assert (first.generated, second.generated, third.generated) == (10, 10, 1)


def test_a_second_turn_computes_only_what_is_new():
    served = engine()
    first = submit(served, 64, 33, ids=list(range(6)))  # 64 + 33 - 1 tokens fill six blocks
    run_out(served)
    second = submit(served, 200, 1, ids=[*range(6), *range(100, 106)])
    step, _ = advance(served, 9.0)

    assert (first.cached, second.cached) == (0, 96)
    assert step.prefill == 200 - 96
    assert (served.counts.queries, served.counts.hits) == (264, 96)
    assert (served.counts.prompt, served.counts.cached, served.counts.generated) == (264, 96, 34)


def test_a_prompt_that_was_evicted_comes_back_from_the_host_at_its_bandwidth():
    offload = Offload(tokens=16 * 100, setup_ms=2.0, token_us=10.0)
    served = Engine(PLAIN, np.random.default_rng(0), 0.0, 16 * 11, offload=offload)  # ten blocks on the device
    submit(served, 96, 1, ids=list(range(6)))
    run_out(served)
    submit(served, 128, 1, ids=list(range(100, 108)))  # evicts four of the six
    run_out(served)
    again = submit(served, 100, 1, ids=list(range(6)))
    step, _ = advance(served, 9.0)

    assert (again.cached, again.restored) == (96, 64)
    assert (step.prefill, step.restored) == (4, 64)
    assert step.end - 9.0 == approx(PLAIN.step_seconds(4, 0, 0, 4 * 98.0) + 0.002 + 64 * 10e-6)
    counts = served.counts
    assert (counts.hits, counts.host_queries, counts.host_hits) == (32, 96 + 128 + 68, 64)
    assert (counts.cached, counts.restored) == (96, 64)


def test_two_equal_prompts_in_one_step_share_what_the_first_computes():
    served = engine()
    one, two = submit(served, 64, 1, ids=[1, 2, 3, 4]), submit(served, 64, 1, ids=[1, 2, 3, 4])
    step, _ = advance(served, 0.0)

    assert (one.cached, two.cached, step.prefill) == (0, 48, 64 + 16)  # the last block is always computed


def test_cancelled_requests_leave_nothing_behind():
    served = engine(structs.replace(PLAIN, seats=1))
    running, waiting = submit(served, 100, 5), submit(served, 100, 5)
    step = served.begin(0.0)
    arriving = submit(served, 100, 5, now=99.0)
    for request in (running, waiting, arriving):
        served.cancel(request)

    assert served.finish(step) == []
    assert served.cache.usage == 0.0
    assert served.ready() is None


def test_a_request_that_can_never_fit_is_refused():
    with pytest.raises(ValueError, match="can never fit a cache of 64"):
        submit(engine(kv_tokens=16 * 5), 60, 5)


def run_out(to: Engine, now: float = 0.0) -> float:
    """Let an engine work until it has nothing to do; the time then."""
    while (ready := to.ready()) is not None:
        step, _ = advance(to, max(now, ready))
        now = step.end
    return now


def closed_loop(preset: Preset, users: int, prompt: int, output: int, each: int = 6) -> tuple[float, float]:
    """Mean TTFT and TPOT in ms; users ask again at once, lengths are uniform in 0.8–1.0 of nominal, as in the fit."""
    rng = np.random.default_rng(0)
    served, now, times = engine(preset), 0.0, []
    left = itertools.count(users * each, -1)

    def ask() -> None:
        if next(left) > 0:
            lengths = [int(rng.integers(0.8 * most, most + 1)) for most in (prompt, output)]
            submit(served, *lengths, now=now).tag = now

    for _ in range(users):
        ask()
    first: dict[Request, float] = {}
    while (ready := served.ready()) is not None:
        step, tokens = advance(served, max(now, ready))
        now = step.end
        for request in tokens:
            first.setdefault(request, now)
            if request.state == DONE:
                times.append((first[request] - request.tag, (now - first[request]) / (request.output - 1)))
                ask()
    ttft, tpot = np.mean(times, axis=0)
    return 1e3 * float(ttft), 1e3 * float(tpot)


@pytest.mark.parametrize(
    ("name", "users", "prompt", "ttft", "tpot"),
    [
        ("llama-3.1-70b-4xh100", 4, 1_024, 81, 11.78),
        ("llama-3.1-70b-4xh100", 16, 1_024, 121, 13.19),
        ("llama-3.1-70b-4xh100", 64, 1_024, 256, 19.51),
        ("llama-3.1-70b-4xh100", 4, 8_192, 453, 13.27),
        ("llama-3.1-70b-4xh100", 16, 8_192, 732, 21.06),
        ("llama-3.1-70b-4xh100", 64, 8_192, 1_745, 53.49),
        ("llama-3.1-70b-8xh100", 4, 1_024, 70, 9.11),
        ("llama-3.1-70b-8xh100", 64, 1_024, 185, 15.45),
        ("llama-3.1-70b-8xh100", 4, 8_192, 301, 10.22),
        ("llama-3.1-70b-8xh100", 64, 8_192, 1_150, 34.48),
        ("llama-3.1-70b-2xh100", 64, 1_024, 415, 28.77),
        ("llama-3.1-70b-2xh100", 64, 8_192, 59_175, 52.41),
    ],
)
def test_measured_rows_are_met(name, users, prompt, ttft, tpot):
    """Measured with vLLM on H100 (aiconfigurator 095f58a), 1,024 output tokens.

    Decoding is met within 4 %. Mean TTFT is met within 25 %: it depends on how much of the burst at the start, when
    all users ask at once, is in the mean, and the rows do not say how many requests each user made.
    """
    simulated_ttft, simulated_tpot = closed_loop(PRESETS[name], users, prompt, 1_024)

    assert simulated_tpot == approx(tpot, rel=0.04)
    assert simulated_ttft == approx(ttft, rel=0.25)


actions = st.lists(
    st.tuples(st.sampled_from(["submit", "submit", "cancel", "step", "step"]), st.integers(1, 90), st.integers(1, 40)),
    max_size=80,
)


@settings(max_examples=150, deadline=None)
@given(st.integers(8, 20), st.sampled_from([0, 0, 4, 30]), st.integers(1, 5), st.integers(10, 100), actions)
def test_no_sequence_of_events_breaks_the_engine(blocks, host, seats, budget, events):
    tiny = structs.replace(PLAIN, seats=seats, step_tokens=budget)
    offload = Offload(tokens=16 * host) if host else None
    served = Engine(tiny, np.random.default_rng(0), 0.0, 16 * (blocks + 1), offload=offload)
    tokens: dict[Request, int] = {}
    cancelled: set[Request] = set()
    first_seats: list[Request] = []
    now = 0.0
    for kind, a, b in [*events, *[("step", 1, 1)] * 3]:
        if kind == "submit" and a + b <= served.capacity:
            tokens[submit(served, a, b, now, ids=[100 * (a % 3) + i for i in range((a + b) // 16)])] = 0
        elif kind == "cancel" and tokens:
            victim = list(tokens)[a % len(tokens)]
            served.cancel(victim)
            cancelled.add(victim)
        elif kind == "step":
            now = check_step(served, now, budget, seats, tokens, first_seats)
    while served.ready() is not None:
        now = check_step(served, now, budget, seats, tokens, first_seats)

    assert served.cache.free == blocks
    assert all(tokens[request] == request.output for request in tokens if request not in cancelled)
    order = {request: i for i, request in enumerate(tokens)}
    assert [order[request] for request in first_seats] == sorted(order[request] for request in first_seats)  # FCFS


def check_step(
    served: Engine, now: float, budget: int, seats: int, tokens: dict[Request, int], first_seats: list[Request]
) -> float:
    step = served.begin(now)
    assert len(served.running) <= seats
    assert len(set(step.joined)) == len(step.joined)
    assert step.prefill + step.decodes <= budget
    assert step.joined or step.decodes or not served.waiting  # somebody always gets on
    first_seats += [request for request in step.joined if request not in first_seats]
    leases = [request.lease for request in served.running if request.lease is not None]
    blocks = [-(-(served.cache.ticks - lease.since) // 16) if lease.gliding else lease.blocks for lease in leases]
    assert max(blocks, default=0) <= served.cache.held <= sum(blocks)
    assert served.cache.free >= 0
    assert served.cache.idle >= 0
    assert served.cache.host is None or 0 <= served.cache.host.held <= served.cache.host.usable
    for request in served.finish(step):
        tokens[request] += 1
        assert tokens[request] == request.generated <= request.output
    return step.end
