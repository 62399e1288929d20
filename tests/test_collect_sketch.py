"""The sketch against exact quantiles."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.sketch import ERROR, Sketch


@pytest.mark.parametrize("q", [0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0])
def test_quantiles_are_within_one_percent_of_exact_ones(q: float) -> None:
    values = np.random.default_rng(3).lognormal(-2, 2, 50_000)
    sketch = Sketch()
    sketch.add(values)

    exact = np.quantile(values, q, method="inverted_cdf" if q else "lower")
    assert sketch.quantile(q) == pytest.approx(exact, rel=1.05 * ERROR)


def test_merging_two_sketches_counts_what_both_counted() -> None:
    values = np.random.default_rng(4).exponential(1.0, 3_000)
    whole, left, right = Sketch(), Sketch(), Sketch()
    whole.add(values)
    left.add(values[:1_000])
    right.add(values[1_000:])
    left.merge(right)

    assert left.counts.tolist() == whole.counts.tolist()
    assert left.total == pytest.approx(whole.total)
    assert left.count == 3_000


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=20))
def test_every_value_is_counted_and_the_extremes_are_kept_within_the_range(values: list[float]) -> None:
    sketch = Sketch()
    for value in values:
        sketch.add(value)

    assert sketch.count == len(values)
    assert sketch.quantile(0.0) == pytest.approx(min(*values, 1e6), rel=1.01 * ERROR, abs=1e-6)
    assert sketch.quantile(1.0) == pytest.approx(min(max(values), 1e6), rel=1.01 * ERROR, abs=1e-6)


def test_zero_counts_as_zero_and_nan_not_at_all() -> None:
    sketch = Sketch()
    sketch.add([0.0, 0.0, math.nan, 5.0])

    assert sketch.count == 3
    assert sketch.quantile(0.5) == 0.0
    assert math.isnan(Sketch().quantile(0.5))
