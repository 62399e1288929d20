"""The engine's clock: the formula, and that steps add up whichever way they are taken."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import approx

from agentload.box.gaps import Gaps
from agentload.box.pace import GRAIN, NOISE, NUMBERS, Pace, noise
from agentload.box.presets import DEFAULT, PRESETS
from agentload.box.request import Counts, Step

PRESET = PRESETS[DEFAULT]


def pace(sigma: float = 0.05, gaps: Gaps | None = None) -> Pace:
    return Pace(PRESET, np.random.default_rng(3), sigma, gaps or Gaps())


def decoding(start: float, decodes: int, context: int) -> Step:
    step = Step(start)
    step.decodes, step.context = decodes, context
    return step


def one_by_one(clock: Pace, count: int, start: float, decodes: int, context: int) -> list[float]:
    ends = []
    for i in range(count):
        step = decoding(start, decodes, context + i * decodes)
        clock.take(step, 1)
        clock.passed(step, 1)
        start = step.end
        ends.append(start)
    return ends


def test_without_noise_steps_take_what_the_formula_says():
    clock, step = pace(sigma=0.0), decoding(7.0, 200, 900_000)
    step.prefill, step.attention = 1_000, 5e8
    clock.take(step, 1)

    assert step.end - 7.0 == approx(PRESET.step_seconds(1_000, 200, 900_000, 5e8), rel=1e-6)

    clock.take(step := decoding(7.0, 3, 1_000), 500)
    assert step.end - 7.0 == approx(sum(PRESET.step_seconds(0, 3, 1_000 + 3 * i, 0.0) for i in range(500)), rel=1e-6)


def test_noise_keeps_the_mean_and_has_the_spread_it_is_asked_for():
    assert set(noise(0.0).numbers.tolist()) == {1 << GRAIN}
    for sigma in (0.05, 0.3):
        numbers = noise(sigma).numbers / (1 << GRAIN)
        assert list(numbers[:NOISE]) == list(numbers[NUMBERS:])  # it goes round
        assert numbers[:NUMBERS].mean() == approx(1.0, abs=1e-5)
        logs = np.log(numbers[:NUMBERS])
        assert logs.std() == approx(sigma, rel=0.02)
        assert logs.mean() == approx(-0.5 * sigma**2, abs=4 * sigma / NUMBERS**0.5)
        assert abs(np.corrcoef(logs[1:], logs[:-1])[0, 1]) < 4 / NUMBERS**0.5  # a step says nothing of the next


def test_engines_have_noise_of_their_own():
    ends = []
    for seed in range(20):
        clock = Pace(PRESET, np.random.default_rng(seed), 0.05, Gaps())
        clock.take(step := decoding(0.0, 4, 1_000), 1)
        ends.append(step.end)
    assert len(set(ends)) > 15


@settings(max_examples=200, deadline=None)
@given(
    start=st.floats(0, 1e6),
    decodes=st.integers(1, 1_000),
    context=st.integers(1, 10**7),
    count=st.integers(1, 300),
    cut=st.floats(0, 1),
)
def test_steps_end_when_they_do_one_by_one_to_the_last_bit(start, decodes, context, count, cut):
    ends = one_by_one(pace(), count, start, decodes, context)
    clock, step = pace(), decoding(start, decodes, context)
    clock.take(step, count)

    assert [clock.at(step, n) for n in range(1, count + 1)] == ends
    instant = start + cut * (ends[-1] - start)
    past = sum(end <= instant for end in ends)
    assert clock.ended(step, instant) == past
    if 0 < past < count:
        clock.passed(step, past)
        assert (step.start, step.context) == (ends[past - 1], context + past * decodes)
        assert [clock.at(step, n) for n in range(1, step.count + 1)] == ends[past:]
    clock.shorten(step, instant)
    assert step.end == next(end for end in ends if end >= instant or end == ends[-1])


def test_gaps_hold_each_step_once_for_each_request_in_it():
    together, apart = Gaps(), Gaps()
    many, single = pace(gaps=together), pace(gaps=apart)
    start, expected = 0.0, []
    for count, decodes, context in [
        (100, 5, 1_000),
        (1, 0, 0),
        (NOISE - 300, 2, 50),
        (199, 90, 10_000),
        (40, 7, 7),
    ] * 3:
        count = min(count, many.left)  # noise is drawn so many at a time
        many.take(step := decoding(start, decodes, context), count)
        ends = one_by_one(single, count, start, decodes, context)
        assert step.end == ends[-1]
        many.passed(step, count)
        expected += [(end - before, decodes) for before, end in zip([start, *ends], ends, strict=False)]
        start = step.end
    many.fold()
    single.fold()
    seconds, weights = np.array(expected).T

    for gaps in (together, apart):
        found = gaps.summary()
        assert found["count"] == weights.sum()
        assert found["mean"] == approx(float((seconds * weights).sum() / weights.sum()), rel=1e-9)
        assert found["max"] == approx(seconds[weights > 0].max(), rel=1e-9)
        for q in (50, 90, 99):
            assert found[f"p{q}"] == approx(float(np.percentile(np.repeat(seconds, weights.astype(int)), q)), rel=0.011)


def test_a_gap_holds_what_knows_no_noise_too():
    gaps = Gaps()
    clock, step = pace(gaps=gaps), decoding(3.0, 4, 1_000)
    clock.take(step, 1, 0.25)
    clock.passed(step, 1)
    clock.fold()

    assert step.end - 3.0 > 0.25
    assert gaps.summary()["max"] == approx(step.end - 3.0, rel=1e-9)


COUNTED = (
    "cached", "generated", "hits", "host_hits", "host_queries", "preemptions", "prompt", "queries", "restored", "steps",
)  # fmt: skip


def test_counts_add_up_all_of_them():
    one, whole = Counts(), Counts()
    for i, name in enumerate(COUNTED):
        setattr(one, name, i + 1)
    whole.add(one)
    whole.add(one)

    assert [getattr(whole, name) for name in COUNTED] == [2 * i + 2 for i in range(len(COUNTED))]
    assert {name for name in dir(one) if name[0] != "_"} == {*COUNTED, "add"}
