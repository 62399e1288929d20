"""Times between the tokens of calls, all of them, kept as a histogram."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

BUCKETS: Final = 4_096
"""Buckets of 1 %, from 1 ns to 24 years."""


class Gaps:
    """Times between the tokens of a call, of all calls: the time of each step, once for each request decoding in it.

    Buckets of 1 % keep it small. What passes while a request is preempted, or travels, is not among them.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(BUCKETS)  # by bucket; the one of a second in the middle
        self._total, self._largest = 0.0, 0.0

    def add(self, seconds: NDArray[np.float64], weights: NDArray[np.float64]) -> None:
        """Count steps that took so long, in which so many requests decoded; those of none count for nothing."""
        if not weights.all():
            some = weights > 0
            seconds, weights = seconds[some], weights[some]
            if not len(seconds):
                return
        buckets = np.log(seconds)
        buckets *= 100
        buckets += BUCKETS // 2
        self._counts += np.bincount(buckets.astype(np.int64), weights, BUCKETS)  # above 0, so this is its floor
        self._total += float((seconds * weights).sum())  # not `@`: it wakes threads that spin for a while
        self._largest = max(self._largest, float(seconds.max()))

    def take(self, buckets: dict[int, float], total: float, largest: float) -> None:
        """Add those of another."""
        for bucket, count in buckets.items():
            self._counts[bucket + BUCKETS // 2] += count
        self._total, self._largest = self._total + total, max(self._largest, largest)

    def sums(self) -> tuple[dict[int, float], float, float]:
        """What `take` adds to another."""
        found = np.flatnonzero(self._counts)
        buckets = dict(zip((found - BUCKETS // 2).tolist(), self._counts[found].tolist(), strict=True))
        return buckets, self._total, self._largest

    def summary(self) -> dict[str, float]:
        """Quantiles (within 1 %), mean and largest in seconds, and how many there were."""
        counts, _, _ = self.sums()
        buckets = list(counts)
        below = np.cumsum(list(counts.values()))
        count = int(below[-1]) if buckets else 0
        if not count:
            return {"count": 0}
        at = {q: buckets[int(np.searchsorted(below, q / 100 * (count - 1), side="right"))] for q in (50, 90, 95, 99)}
        quantiles = {f"p{q}": float(np.exp((bucket + 0.5) * 0.01)) for q, bucket in at.items()}
        return quantiles | {"mean": self._total / count, "max": self._largest, "count": count}
