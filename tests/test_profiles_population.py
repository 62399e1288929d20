"""Populations: step functions worked out by hand, curves rounded exactly, and the seats they open."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pytest import approx

from loadprofiles import (
    Bass,
    Exponential,
    Held,
    Logistic,
    Population,
    Profile,
    Ramp,
    Scaled,
    Sine,
    Spike,
    Steps,
    slots,
)

Array = NDArray[np.float64]


def steps(profile: Profile, duration: float) -> list[tuple[float, int]]:
    times, counts = profile.population(duration)
    assert times.dtype == np.float64
    assert counts.dtype == np.int64
    return list(zip(times.tolist(), counts.tolist(), strict=True))


def count_at(times: Array, counts: NDArray[np.int64], instants: Array) -> NDArray[np.int64]:
    return counts[np.searchsorted(times, instants, side="right") - 1]


def test_held_is_one_step() -> None:
    assert steps(Held(agents=7), 60) == [(0, 7)]


def test_held_spreads_its_starts_evenly_over_the_stagger() -> None:
    profile = Held(agents=4, stagger=2)

    assert steps(profile, 60) == [(0, 1), (0.5, 2), (1, 3), (1.5, 4)]
    assert slots(*profile.population(60), 60).tolist() == [[0, 60], [0.5, 60], [1, 60], [1.5, 60]]
    assert steps(profile, 1.2) == [(0, 1), (0.5, 2), (1, 3)]  # the run ends first


def test_ramp_steps_where_its_line_crosses_a_half() -> None:
    assert steps(Ramp(agents=3, start=0, over=6), 100) == [(0, 0), (1, 1), (3, 2), (5, 3)]
    assert steps(Ramp(agents=0, start=3, over=6), 100) == [(0, 3), (1, 2), (3, 1), (5, 0)]
    assert steps(Ramp(agents=3, start=1), 8) == [(0, 1), (2, 2), (6, 3)]  # over the whole duration
    assert steps(Ramp(agents=2, start=2), 8) == [(0, 2)]


def test_steps_take_equal_parts_and_the_last_stays() -> None:
    assert steps(Steps(levels=(2, 5, 5, 1), each=10), 100) == [(0, 2), (10, 5), (30, 1)]
    assert steps(Steps(levels=(2, 4)), 100) == [(0, 2), (50, 4)]


def test_spike_goes_up_and_comes_back() -> None:
    assert steps(Spike(agents=9, at=10, width=5, base=2), 100) == [(0, 2), (10, 9), (15, 2)]
    assert steps(Spike(agents=9, at=0, width=5, base=0), 100) == [(0, 9), (5, 0)]


def test_sine_turns_where_it_should() -> None:
    times, counts = Sine(agents=2, amplitude=1, period=12).population(13)

    assert times.tolist() == approx([0, 1, 5, 7, 11])  # sin = 1/2 at a twelfth of a turn
    assert counts.tolist() == [2, 3, 2, 1, 2]


def test_sine_smaller_than_half_an_agent_is_flat() -> None:
    assert steps(Sine(agents=5, amplitude=0.4, period=10), 100) == [(0, 5)]
    assert steps(Sine(agents=5, amplitude=0, period=10), 100) == [(0, 5)]


def test_exponential_doubles_on_time_and_stops_at_its_top() -> None:
    times, counts = Exponential(agents=4, doubling=10).population(100)

    assert counts.tolist() == [1, 2, 3, 4]
    assert times.tolist() == approx([0, 10 * math.log2(1.5), 10 * math.log2(2.5), 10 * math.log2(3.5)])


def test_recorded_counts_hold_until_the_next_and_nobody_was_there_before() -> None:
    points = ((5.0, 3), (5.0, 4), (9.0, 4), (12.0, 0))

    assert steps(Population(points), 100) == [(0, 0), (5, 4), (12, 0)]


def test_a_run_without_an_end_needs_a_population_that_settles() -> None:
    assert steps(Held(agents=3), math.inf) == [(0, 3)]
    assert slots(*Ramp(agents=2, over=4).population(math.inf), math.inf).tolist() == [[0, math.inf], [2, math.inf]]
    for restless in (Ramp(agents=2), Steps((1, 2)), Sine(agents=2, amplitude=1, period=9)):
        with pytest.raises(ValueError, match="needs a run with an end, got no duration"):
            restless.population(math.inf)


def test_levels_are_scaled_before_they_are_rounded_half_up() -> None:
    assert steps(Scaled(Spike(agents=9, at=10, width=5), rate=0.5), 100) == [(0, 1), (10, 5), (15, 1)]
    assert steps(Scaled(Steps(levels=(1, 3, 5), each=10), rate=0.49), 100) == [(0, 0), (10, 1), (20, 2)]
    assert steps(Scaled(Population(((0.0, 1), (9.0, 3))), rate=1.5), 100) == [(0, 2), (9, 5)]
    assert steps(Scaled(Held(agents=5, stagger=6), rate=0.5), 100) == [(0, 1), (2, 2), (4, 3)]


CURVES: list[tuple[Profile, Callable[[Array], Array]]] = [
    (Ramp(agents=40, start=3), lambda t: 3 + 37 * t / 100),
    (Ramp(agents=2, start=33, over=50), lambda t: np.maximum(33 - 31 * t / 50, 2)),
    (Sine(agents=20, amplitude=13.7, period=37, crossing=11), lambda t: 20 + 13.7 * np.sin(2 * np.pi * (t - 11) / 37)),
    (Exponential(agents=60, doubling=12, start=0.2), lambda t: np.minimum(0.2 * 2 ** (t / 12), 60)),
    (Logistic(agents=30, midpoint=40, growth=0.11), lambda t: 30 / (1 + np.exp(-0.11 * (t - 40)))),
    (
        Bass(agents=50, unit=6),
        lambda t: 50 * (1 - np.exp(-0.41 * t / 6)) / (1 + 0.38 / 0.03 * np.exp(-0.41 * t / 6)),
    ),
    (Bass(agents=50, unit=6, p=0.2, q=0), lambda t: 50 * (1 - np.exp(-0.2 * t / 6))),
]


@pytest.mark.parametrize("scale", [1.0, 0.37, 3.3])
@pytest.mark.parametrize(("profile", "curve"), CURVES)
def test_the_count_is_the_curve_rounded_half_up_at_every_instant(
    profile: Profile, curve: Callable[[Array], Array], scale: float
) -> None:
    instants = np.random.default_rng(4).uniform(0, 100, 20_000)

    times, counts = Scaled(profile, rate=scale).population(100)

    assert np.array_equal(count_at(times, counts, instants), np.floor(scale * curve(instants) + 0.5))
    assert times[0] == 0
    assert np.all(np.diff(times) > 0)
    assert np.all(np.diff(counts) != 0)
    assert times[-1] < 100


@pytest.mark.parametrize(("profile", "curve"), CURVES)
def test_mean_population_is_the_curve_s_mean(profile: Profile, curve: Callable[[Array], Array]) -> None:
    middles = (np.arange(100_000) + 0.5) / 1_000

    assert profile.mean(100) == approx(np.floor(curve(middles) + 0.5).mean(), rel=1e-4)


def test_bass_grows_fastest_when_bass_says() -> None:
    times, counts = Bass(agents=100_000, unit=1).population(40)

    yearly = np.diff(count_at(times, counts, np.arange(0, 40, 0.1)))
    assert np.argmax(yearly) * 0.1 == approx(math.log(0.38 / 0.03) / 0.41, abs=0.15)


def test_who_came_last_leaves_first() -> None:
    times, counts = np.array([0.0, 10.0, 20.0, 30.0]), np.array([2, 4, 1, 3])

    seats = slots(times, counts, 40)

    assert seats.tolist() == [[0, 20], [0, 40], [10, 20], [10, 20], [30, 40], [30, 40]]


def test_an_empty_population_has_no_slots() -> None:
    assert slots(*Population(((0.0, 0),)).population(10), 10).shape == (0, 2)


@given(points=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), min_size=1).map(sorted))
@settings(derandomize=True, deadline=None, max_examples=100)
def test_open_slots_add_up_to_the_population_at_every_instant(points: list[tuple[int, int]]) -> None:
    times, counts = Population(tuple((float(t), n) for t, n in points)).population(40)

    rows = slots(times, counts, 40)

    instants = np.arange(0.5, 40)
    seats_open = (rows[:, :1] <= instants) & (instants < rows[:, 1:])
    assert np.array_equal(seats_open.sum(axis=0), count_at(times, counts, instants))
    assert np.all(rows[:, 0] < rows[:, 1])
    assert np.all(np.diff(rows[:, 0]) >= 0)
    assert len(rows) == np.maximum(np.diff(counts, prepend=0), 0).sum()  # no seat is closed and opened at once
