"""Every kind of draw has the mean and the variance of its name, one by one and in blocks."""

import math

import numpy as np
import pytest
from pytest import approx

from agents.dice import Dice, draw, pick, rounded
from agents.draws import Draw, Exponential, Gamma, Geometric, LogNormal, Mixture, Pareto, Uniform, Weibull

COUNT = 20_000
MOMENTS: list[tuple[Draw, float, float]] = [  # mean and variance, from the textbook
    (3.0, 3.0, 0.0),
    (Uniform(2.0, 8.0), 5.0, 3.0),
    (LogNormal(2.0, 0.5), 2 * math.exp(0.125), 4 * math.exp(0.25) * (math.exp(0.25) - 1)),
    (Exponential(4.0), 4.0, 16.0),
    (Geometric(5.0), 5.0, 20.0),  # (1 − p) / p²
    (Geometric(1.0), 1.0, 0.0),
    (Pareto(1.0, 6.0), 1.2, 6 / (25 * 4)),  # α / ((α − 1)² (α − 2))
    (Gamma(3.0, 2.0), 6.0, 12.0),
    (Weibull(2.0, 3.0), 3 * math.gamma(1.5), 9 * (1 - math.gamma(1.5) ** 2)),
    (Mixture([1.0, 4.0], [3.0, 1.0]), 1.75, 9 * 3 / 16),
]


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize(("what", "mean", "variance"), MOMENTS, ids=lambda value: type(value).__name__)
def test_a_draw_has_its_mean_and_its_variance(what: Draw, mean: float, variance: float, blocks: bool) -> None:
    rng = np.random.default_rng(11)
    numbers = Dice(rng) if blocks else rng
    values = np.array([draw(what, numbers) for _ in range(COUNT)])

    assert values.mean() == approx(mean, abs=5 * math.sqrt(variance / COUNT) + 1e-12)  # five standard errors
    assert values.var() == approx(variance, rel=0.2, abs=1e-12)


def test_counts_are_rounded_as_round_does() -> None:
    values = [
        0.0,
        0.5,
        1.5,
        2.5,
        0.49999999999999994,
        4503599627370495.5,
        1e300,
        *np.random.default_rng(3).random(1_000),
    ]

    assert [rounded(sign * value) for value in values for sign in (1, -1)] == [
        round(sign * value) for value in values for sign in (1, -1)
    ]


def test_numbers_in_blocks_are_independent_and_all_different() -> None:
    dice = Dice(np.random.default_rng(5))
    values = np.array([dice.random() for _ in range(COUNT)])

    assert len(np.unique(values)) == COUNT
    assert np.corrcoef(values[:-1], values[1:])[0, 1] == approx(0, abs=5 / math.sqrt(COUNT))


def test_the_same_generator_makes_the_same_dice() -> None:
    one, two = Dice(np.random.default_rng(5)), Dice(np.random.default_rng(5))

    assert [one.random() + one.standard_normal() for _ in range(500)] == [
        two.random() + two.standard_normal() for _ in range(500)
    ]


def test_a_weight_of_nothing_is_never_picked() -> None:
    assert [pick([0.0, 1.0, 0.0, 3.0], u) for u in (0.0, 0.2499, 0.25, 1 - 2**-53)] == [1, 1, 3, 3]
