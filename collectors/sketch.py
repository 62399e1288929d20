"""A mergeable sketch of a distribution, for the live view: quantiles within 1 % from 11 KB, however many values."""

import math

import numpy as np
from numpy.typing import ArrayLike

ERROR = 0.01
"""Largest relative error of a quantile."""

LOWEST, HIGHEST = 1e-6, 1e6
"""Values (seconds, mostly) are told apart in this range; below it they count as 0, above it as `HIGHEST`."""

_GAMMA = (1 + ERROR) / (1 - ERROR)
_LOG_GAMMA = math.log(_GAMMA)
_FIRST = math.ceil(math.log(LOWEST) / _LOG_GAMMA)
_BUCKETS = math.ceil(math.log(HIGHEST) / _LOG_GAMMA) - _FIRST + 2  # and one, the first, for zero


class Sketch:
    """Counts in buckets whose bounds grow by (1+e)/(1-e): DDSketch (Masson, Rim, Lee; VLDB 2019) with a fixed range."""

    def __init__(self) -> None:
        self.counts = np.zeros(_BUCKETS, np.int64)
        self.total = 0.0  # sum of the values, for the mean

    @property
    def count(self) -> int:
        return int(self.counts.sum())

    def add(self, values: ArrayLike) -> None:
        """Count one value or many. NaN is skipped: it never happened."""
        x = np.asarray(values, dtype=float)
        x = x[~np.isnan(x)]
        bucket = np.ceil(np.log(np.clip(x, LOWEST, HIGHEST)) / _LOG_GAMMA) - _FIRST + 1
        np.add.at(self.counts, np.where(x > LOWEST, bucket, 0).astype(int), 1)
        self.total += float(x.sum())

    def merge(self, other: "Sketch") -> None:
        """Count everything that `other` counted; the result is the same in any order."""
        self.counts += other.counts
        self.total += other.total

    def quantile(self, q: float) -> float:
        """The value below which a share `q` lies, within 1 %; NaN of nothing."""
        if not self.count:
            return math.nan
        rank = q * (self.count - 1)
        bucket = int(np.searchsorted(np.cumsum(self.counts), rank, side="right"))
        return 0.0 if bucket == 0 else 2 * _GAMMA ** (bucket + _FIRST - 1) / (_GAMMA + 1)
