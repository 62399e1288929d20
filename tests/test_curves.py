"""Curves whose answer is known: power law, scalability law, operational bounds, the knee."""

import numpy as np
import pytest
from pytest import approx

from collectors.curves import bounds, fit_usl, knee, power_law, usl
from collectors.steady import CannotSay

N = np.array([1, 2, 4, 8, 16, 24, 32, 48, 64, 96], float)
SEEDS = 200


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_a_power_law_is_within_both_its_intervals_in_nine_of_ten_seeds() -> None:
    students = resampled = 0
    for rng in np.random.default_rng(0).spawn(SEEDS):
        x = rng.lognormal(3, 1, 60)
        law = power_law(x, 7 * x**1.33 * rng.lognormal(0, 0.3, 60), rng, resamples=300)
        students += law.exponent.low <= 1.33 <= law.exponent.high
        resampled += law.resampled.low <= 1.33 <= law.resampled.high

    assert students >= 0.9 * SEEDS
    assert resampled >= 0.9 * SEEDS


def test_the_test_of_superlinear_growth_rejects_a_linear_law_as_often_as_it_says(rng: np.random.Generator) -> None:
    p = [power_law(N, 3 * N * r.lognormal(0, 0.1, len(N)), r, 10).p_superlinear for r in rng.spawn(400)]

    assert np.mean(np.array(p) < 0.05) == approx(0.05, abs=0.035)  # three standard errors


def test_an_exact_power_law_is_found_exactly(rng: np.random.Generator) -> None:
    law = power_law(N, 3 * N**1.5, rng)

    assert (law.exponent.value, law.scale, law.r_squared) == approx((1.5, 3.0, 1.0))
    assert law.verdict == "superlinear"
    assert power_law(N, 3 * N**0.5, rng).verdict == "sublinear"


@pytest.mark.parametrize("x", [[1.0, 2.0, 4.0], [1.0, 1.1, 1.2, 1.3], [0.0, 0.0, 1.0, 2.0, 4.0]])
def test_too_few_points_or_too_little_span_give_no_power_law(x: list[float], rng: np.random.Generator) -> None:
    with pytest.raises(CannotSay):
        power_law(np.array(x), np.ones(len(x)), rng)


def test_the_scalability_law_is_within_its_intervals_in_nine_of_ten_seeds() -> None:
    held = np.zeros(4)
    for rng in np.random.default_rng(1).spawn(SEEDS):
        fit = fit_usl(N, usl(N, 100, 0.05, 0.0005) * rng.lognormal(0, 0.05, len(N)), rng, resamples=200)
        for i, (found, true) in enumerate(
            [(fit.rate, 100), (fit.contention, 0.05), (fit.coherency, 0.0005), (fit.best, np.sqrt(0.95 / 0.0005))]
        ):
            held[i] += found is not None and found.low <= true <= found.high

    assert (held >= 0.9 * SEEDS).all()


def test_without_retrograde_no_best_n_is_named_in_nine_of_ten_seeds() -> None:
    named = 0
    for rng in np.random.default_rng(2).spawn(SEEDS):
        fit = fit_usl(N, usl(N, 100, 0.05, 0.0) * rng.lognormal(0, 0.05, len(N)), rng, resamples=100)
        named += fit.best is not None
        assert fit.best is not None or "no retrograde seen" in fit.note

    assert named <= 0.1 * SEEDS


def test_an_exact_scalability_law_is_found_exactly(rng: np.random.Generator) -> None:
    fit = fit_usl(N, usl(N, 10, 0.1, 0.001), rng)

    assert (fit.rate.value, fit.contention.value, fit.coherency.value) == approx((10, 0.1, 0.001))
    assert fit.best is not None
    assert fit.best.value == approx(30.0)
    assert fit.throughput(np.array([1.0])) == approx([10.0])


def test_three_parameters_need_five_different_loads(rng: np.random.Generator) -> None:
    with pytest.raises(CannotSay, match="needs 5 different N, got 4"):
        fit_usl(np.array([1, 2, 4, 8, 8.0]), np.ones(5), rng)
    with pytest.raises(CannotSay, match="less than a factor of 4"):
        fit_usl(np.array([10, 11, 12, 13, 14.0]), np.ones(5), rng)


def test_operational_bounds_of_a_worked_example() -> None:
    found = bounds(np.array([1, 10, 20, 40]), demand=0.1, alone=0.5, think=1.5)

    assert found.throughput == approx([0.5, 5.0, 10.0, 10.0])
    assert found.response == approx([0.5, 0.5, 0.5, 2.5])
    assert found.knee == approx(20.0)


def test_bounds_refuse_times_that_are_no_times() -> None:
    with pytest.raises(ValueError, match="must be > 0"):
        bounds(N, 0.0, 1.0, 1.0)


def test_the_knee_lies_where_throughput_stops_to_grow() -> None:
    at = knee(np.array([1, 2, 4, 8, 16, 32.0]), np.array([1, 2, 4, 8, 8, 8.0]))

    assert at is not None
    assert 5 < at < 12
    assert knee(N, 5 * N) is None


def test_the_knee_is_after_the_last_growth_not_at_a_dip() -> None:
    at = knee(np.array([1, 2, 4, 8, 16, 32.0]), np.array([1, 0.9, 4, 8, 16, 16.0]))

    assert at is not None
    assert at > 8


def test_a_sweep_of_one_point_has_no_knee() -> None:
    with pytest.raises(CannotSay, match="a sweep of one point"):
        knee(np.array([4.0]), np.array([1.0]))
