"""When a run is in its steady state, and how sure a mean of it is: MSER-5 and batch means.

Pure functions over evenly spaced observations (tokens in each second, say). What the data cannot carry raises
`CannotSay`.
"""

import math
from typing import NamedTuple

import numpy as np

from collectors.load import Array

BATCH = 5
"""Observations in a batch of MSER-5 (White, Cobb and Spratt 2000)."""
FEWEST_BATCHES = 10
"""Batches below which MSER says nothing, and a mean of batches has no interval."""


class CannotSay(ValueError):  # noqa: N818  # nothing is in error: the data are too few, or too alike
    """One line that says what the data lack."""


class Estimate(NamedTuple):
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """Half the interval's length, relative to the value; infinite for a value of 0."""
        return (self.high - self.low) / 2 / abs(self.value) if self.value else math.inf


class Warmup(NamedTuple):
    """How much of a series to cut."""

    cut: int  # observations
    steady: bool  # False: the best cut lies at the end of what may be cut, so the run is too short to say


def mser5(values: Array) -> Warmup:
    """Where the warm-up ends, by MSER-5: the cut d that minimises the squared standard error of the mean of the rest,

        MSER(d) = Σ_{i>=d} (Z_i - mean of Z from d)² / (n - d)²,

    over the first half of the means Z of batches of 5 (White 1997, Simulation 69(6); White, Cobb and Spratt 2000).
    CannotSay below 10 batches. No observation may be NaN.
    """
    n = len(values) // BATCH
    if n < FEWEST_BATCHES:
        raise CannotSay(f"{len(values)} observations are {n} batches of {BATCH}; MSER-5 needs {FEWEST_BATCHES}")
    z = values[: n * BATCH].reshape(n, BATCH).mean(axis=1)
    left = n - np.arange(n)  # batches that are left after each cut
    total, squares = np.cumsum(z[::-1])[::-1], np.cumsum((z - z.mean())[::-1] ** 2)[::-1]
    shifted = total - left * z.mean()
    score = ((squares - shifted**2 / left) / left.astype(float) ** 2)[: n // 2 + 1]
    best = int(np.argmin(np.maximum(score, 0.0)))
    return Warmup(best * BATCH, best < n // 2)


def t_quantile(level: float, degrees: float) -> float:
    """The two-sided quantile of Student's t: 2.26 for 0.95 and 9."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.5 + level / 2))


def t_interval(values: Array, level: float = 0.95) -> Estimate:
    """The mean of independent values, with Student's interval. CannotSay below two."""
    if len(values) < 2:
        raise CannotSay(f"{len(values)} independent values have no spread; an interval needs 2")
    mean, half = float(values.mean()), t_quantile(level, len(values) - 1) * float(values.std(ddof=1))
    return Estimate(mean, mean - half / math.sqrt(len(values)), mean + half / math.sqrt(len(values)))


def batches(values: Array, count: int = FEWEST_BATCHES) -> Array:
    """The means of `count` equal stretches; what is over at the front is left out. CannotSay for fewer values."""
    size = len(values) // count
    if size < 1:
        raise CannotSay(f"{len(values)} observations cannot be cut into {count} batches")
    means: Array = values[len(values) - size * count :].reshape(count, size).mean(axis=1)
    return means


def batch_means(values: Array, count: int = FEWEST_BATCHES, level: float = 0.95) -> Estimate:
    """The mean of a steady series with the interval of its batch means (Law and Kelton 2000, 9.5.3).

    Batches must be long against the series' memory. CannotSay where neighbouring batch means are still alike: where
    their lag-1 correlation is above 0.5.
    """
    means = batches(values, count)
    d = means - means.mean()
    spread = float(d @ d)
    if spread and float(d[1:] @ d[:-1]) / spread > 0.5:
        raise CannotSay(f"neighbouring batches of {len(values) // count} observations are still alike; run longer")
    return t_interval(means, level)


def resampled(value: float, draws: Array, items: int) -> Estimate:
    """A figure with its interval from bootstrap draws over `items`: Student's, of the logarithms where all are above 0,
    exp(ln value ± t · sd(ln draws) · sqrt(n/(n-1))), else percentiles.

    Costs and tokens are skewed to the right; plain percentiles then miss the mean too often from below (Efron and
    Tibshirani 1993, 13 and 22). NaN draws are left out; NaN all over where most are, or where the value is.
    """
    finite = draws[np.isfinite(draws)]
    if not np.isfinite(value) or len(finite) < max(2, len(draws) / 2):
        return Estimate(math.nan, math.nan, math.nan)
    if items < 2 or value <= 0 or (finite <= 0).any():
        low, high = np.percentile(finite, (2.5, 97.5))
        return Estimate(float(value), float(low), float(high))
    half = t_quantile(0.95, items - 1) * float(np.log(finite).std()) * math.sqrt(items / (items - 1))
    return Estimate(float(value), value * math.exp(-half), value * math.exp(half))
