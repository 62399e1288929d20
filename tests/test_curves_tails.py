"""Heavy tails and bursts whose answer is known."""

import numpy as np
import pytest
from pytest import approx

from collectors.steady import CannotSay
from collectors.tails import dispersion_by_window, hill, power_tail

SEEDS = 200


def pareto(rng: np.random.Generator, size: int, index: float, low: float = 1.0) -> np.ndarray:
    return low * (1 - rng.random(size)) ** (-1 / index)


def test_the_exponent_of_a_tail_is_within_its_interval_in_nine_of_ten_seeds() -> None:
    held = 0
    for rng in np.random.default_rng(0).spawn(SEEDS):
        body, tail = rng.uniform(1, 10, 400), pareto(rng, 600, 1.5, low=10.0)
        found = power_tail(np.concatenate([body, tail]))
        held += found.alpha.low <= 2.5 <= found.alpha.high

    assert held >= 0.9 * SEEDS


def test_a_given_start_of_the_tail_is_taken() -> None:
    held = 0
    for rng in np.random.default_rng(1).spawn(SEEDS):
        found = power_tail(pareto(rng, 500, 1.5), start=1.0)
        held += found.alpha.low <= 2.5 <= found.alpha.high

    assert held >= 0.9 * SEEDS


def test_a_lognormal_is_told_from_a_power_law_and_not_the_other_way_round() -> None:
    rng = np.random.default_rng(2)
    logs = [power_tail(r.lognormal(5, 1, 2_000), start=100.0).verdict for r in rng.spawn(20)]
    laws = [power_tail(pareto(r, 2_000, 1.5), start=1.0).verdict for r in rng.spawn(20)]

    assert logs.count("lognormal") == 20
    assert laws.count("lognormal") <= 2


def test_the_start_of_the_tail_is_found_where_the_body_ends() -> None:
    rng = np.random.default_rng(3)
    found = power_tail(np.concatenate([rng.uniform(1, 10, 2_000), pareto(rng, 2_000, 1.5, low=10.0)]))

    assert found.start == approx(10.0, rel=0.3)


def test_forty_values_have_no_tail() -> None:
    with pytest.raises(CannotSay, match="needs 50"):
        power_tail(np.arange(1.0, 41.0))
    with pytest.raises(CannotSay):
        power_tail(np.full(100, 3.0))


def test_hill_finds_the_index_in_nine_of_ten_seeds() -> None:
    held = 0
    for rng in np.random.default_rng(4).spawn(SEEDS):
        found = hill(pareto(rng, 2_000, 1.5), share=0.1)
        held += found.low <= 1.5 <= found.high

    assert held >= 0.9 * SEEDS
    with pytest.raises(CannotSay, match="are 5"):
        hill(np.arange(1.0, 501.0), share=0.01)
    with pytest.raises(ValueError, match="between 0 and 1"):
        hill(np.arange(1.0, 501.0), share=2.0)


def test_poisson_lies_in_its_band_and_bursts_lie_above() -> None:
    rng = np.random.default_rng(5)
    even = np.sort(rng.uniform(0, 1_000, 5_000))
    starts = rng.uniform(0, 1_000, 250)
    bursts = np.sort((starts[:, None] + rng.exponential(0.2, (250, 20))).ravel())
    inside = [r["low"] <= r["index"] <= r["high"] for r in dispersion_by_window(even, (1.0, 3.0, 10.0), 0.0, 1_000.0)]
    above = [r["index"] > r["high"] for r in dispersion_by_window(bursts, (1.0, 3.0, 10.0), 0.0, 1_000.0)]

    assert all(inside)
    assert all(above)
    assert dispersion_by_window(even, (500.0,), 0.0, 1_000.0)[0]["index"] is None
