"""Warm-up by MSER-5, and intervals of steady means."""

import numpy as np
import pytest

from collectors.steady import CannotSay, Estimate, batch_means, mser5, t_interval


def test_mser_cuts_a_warm_up_and_little_more() -> None:
    cuts = []
    for rng in np.random.default_rng(0).spawn(50):
        values = rng.normal(100, 5, 400)
        values[:80] *= np.linspace(0.1, 1, 80)
        cuts.append(mser5(values))

    assert all(cut.steady for cut in cuts)
    assert 50 <= np.median([cut.cut for cut in cuts]) <= 100


def test_mser_leaves_a_steady_series_nearly_whole() -> None:
    cuts = [mser5(rng.normal(100, 5, 400)).cut for rng in np.random.default_rng(1).spawn(50)]

    assert np.median(cuts) <= 40


def test_mser_says_that_a_series_that_only_climbs_is_not_steady() -> None:
    assert not mser5(np.arange(200.0)).steady


def test_mser_needs_ten_batches_of_five() -> None:
    with pytest.raises(CannotSay, match="49 observations are 9 batches"):
        mser5(np.ones(49))


def test_mser_score_is_that_of_the_formula() -> None:
    values = np.random.default_rng(3).normal(10, 2, 100)
    z = values.reshape(20, 5).mean(axis=1)
    by_hand = [((z[d:] - z[d:].mean()) ** 2).sum() / (20 - d) ** 2 for d in range(11)]

    assert mser5(values).cut == 5 * int(np.argmin(by_hand))


def test_batch_means_hold_the_mean_of_a_correlated_series_in_nine_of_ten_seeds() -> None:
    held = 0
    for rng in np.random.default_rng(2).spawn(200):
        noise = rng.normal(size=2_000)
        for i in range(1, 2_000):
            noise[i] += 0.7 * noise[i - 1]
        try:
            found = batch_means(50 + noise)
        except CannotSay:
            continue
        held += found.low <= 50 <= found.high

    assert held >= 180


def test_batches_that_are_still_alike_get_no_interval() -> None:
    with pytest.raises(CannotSay, match="still alike"):
        batch_means(np.linspace(0, 1, 1_000))


def test_the_interval_of_two_values_is_students() -> None:
    found = t_interval(np.array([1.0, 3.0]))

    assert found.value == 2.0
    assert found.high - found.value == pytest.approx(12.7062)
    assert Estimate(2.0, 1.0, 3.0).width == 0.5
