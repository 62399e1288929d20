"""Times between the tokens of calls, all of them, kept as a histogram."""

import numpy as np
from numpy.typing import NDArray


class Gaps:
    """Times between the tokens of a call, of all calls: the time of each step, once for each request decoding in it.

    Buckets of 1 % keep it small. What passes while a request is preempted, or travels, is not among them.
    """

    def __init__(self) -> None:
        self._buckets: dict[int, float] = {}
        self._total, self._largest = 0.0, 0.0

    def add(self, seconds: NDArray[np.float64], weights: NDArray[np.float64]) -> None:
        """Count steps that took so long, in which so many requests decoded; those of none count for nothing."""
        if not weights.all():
            seconds, weights = seconds[weights > 0], weights[weights > 0]
            if not len(seconds):
                return
        buckets = np.floor(100 * np.log(seconds)).astype(np.int64)
        lowest = int(buckets.min())
        counts = np.bincount(buckets - lowest, weights)
        found = np.flatnonzero(counts)
        self.take(
            dict(zip((found + lowest).tolist(), counts[found].tolist(), strict=True)),
            float((seconds * weights).sum()),  # not `@`: it wakes threads that spin for a while
            float(seconds.max()),
        )

    def take(self, buckets: dict[int, float], total: float, largest: float) -> None:
        """Add those of another."""
        for bucket, count in buckets.items():
            self._buckets[bucket] = self._buckets.get(bucket, 0.0) + count
        self._total, self._largest = self._total + total, max(self._largest, largest)

    def sums(self) -> tuple[dict[int, float], float, float]:
        """What `take` adds to another."""
        return self._buckets, self._total, self._largest

    def summary(self) -> dict[str, float]:
        """Quantiles (within 1 %), mean and largest in seconds, and how many there were."""
        buckets = sorted(self._buckets)
        below = np.cumsum([self._buckets[bucket] for bucket in buckets])
        count = int(below[-1]) if buckets else 0
        if not count:
            return {"count": 0}
        at = {q: buckets[int(np.searchsorted(below, q / 100 * (count - 1), side="right"))] for q in (50, 90, 95, 99)}
        quantiles = {f"p{q}": float(np.exp((bucket + 0.5) * 0.01)) for q, bucket in at.items()}
        return quantiles | {"mean": self._total / count, "max": self._largest, "count": count}
