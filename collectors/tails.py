"""Heavy tails and bursts: the power-law tail after Clauset, Shalizi and Newman, Hill's estimator, dispersion by window.

Pure functions over samples of anything positive (tokens, seconds). `CannotSay` where there are too few.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from collectors.load import Array
from collectors.metrics import window_counts
from collectors.steady import CannotSay, Estimate

FEWEST = 50
"""Items in a tail below which it is not fitted (Clauset et al. find the estimates unreliable below about that)."""
CANDIDATES = 40
"""Starts of the tail that are tried, evenly over the ranks."""


class Tail(NamedTuple):
    """p(x) ∝ x^-α from `start` on."""

    alpha: Estimate
    start: float  # xmin
    items: int  # from there on
    distance: float  # Kolmogorov-Smirnov, between the tail and the law
    ratio: float  # normalised log likelihood ratio, power law over lognormal: above 0 the power law fits better
    p_value: float  # how likely so large a ratio is where both fit alike (Vuong 1989)

    @property
    def verdict(self) -> str:
        """Which of the two the data prefer at 10 %, as in the paper."""
        if self.p_value >= 0.1:
            return "power law and lognormal fit alike"
        return "power law" if self.ratio > 0 else "lognormal"


def power_tail(values: Array, start: float | None = None) -> Tail:
    """The tail of a sample, by maximum likelihood: α = 1 + n / Σ ln(x/xmin), standard error (α-1)/√n.

    xmin is the candidate with the smallest Kolmogorov-Smirnov distance, unless `start` gives it (Clauset, Shalizi and
    Newman 2009, SIAM Review 51(4), continuous case); beside it a lognormal cut off at the same xmin. CannotSay where
    fewer than 50 items lie in the tail.
    """
    x = np.sort(np.asarray(values, float))
    x = x[np.isfinite(x) & (x > 0)]
    if len(x) < FEWEST:
        raise CannotSay(f"{len(x)} values above 0; the tail of a distribution needs {FEWEST}")
    if start is None:
        starts = np.unique(x[np.linspace(0, len(x) - FEWEST, CANDIDATES).astype(int)])
    else:
        starts = np.array([start])
    logs = np.log(x)
    fits = [(*_fit(logs[np.searchsorted(x, low) :] - math.log(low)), float(low)) for low in starts]
    distance, alpha, low = min(fits)
    tail = x[np.searchsorted(x, low) :]
    if len(tail) < FEWEST or not math.isfinite(alpha):
        raise CannotSay(f"{len(tail)} different values from {low:g} on; the tail of a distribution needs {FEWEST}")
    error = (alpha - 1) / math.sqrt(len(tail))
    ratio, p_value = _against_lognormal(np.log(tail / low), alpha)
    interval = Estimate(alpha, alpha - 1.96 * error, alpha + 1.96 * error)
    return Tail(interval, low, len(tail), distance, ratio, p_value)


def _fit(logs: Array) -> tuple[float, float]:
    """Kolmogorov-Smirnov distance and α of a sorted tail, given as ln(x/xmin)."""
    n, total = len(logs), float(logs.sum())
    if n < FEWEST or total <= 0:
        return math.inf, math.inf
    alpha = 1 + n / total
    law = 1 - np.exp((1 - alpha) * logs)
    steps = np.arange(n + 1) / n
    return float(max((law - steps[:-1]).max(), (steps[1:] - law).max())), alpha


def _against_lognormal(u: Array, alpha: float) -> tuple[float, float]:
    """Log likelihood ratio over its standard error, and its two-sided p value. `u` is ln(x/xmin).

    In u the power law is exponential and the lognormal a normal cut off at 0, whose exponential limit (mean far below
    0) is excluded by bounding how far it may go.
    """
    from scipy.optimize import minimize
    from scipy.special import log_ndtr

    first, second = float(u.mean()), float((u * u).mean())  # all that the likelihood needs to know of u

    def cost(p: Array) -> float:
        mean, spread = float(p[0]), math.exp(p[1])
        squares = (second - 2 * mean * first + mean * mean) / spread**2
        return 0.5 * squares + math.log(spread) + float(log_ndtr(mean / spread))

    deviation = float(u.std()) or 1.0
    limits = [(-20 * deviation, float(u.max())), (math.log(deviation) - 4, math.log(deviation) + 3)]
    mean, log_spread = minimize(cost, np.array([first, math.log(deviation)]), method="L-BFGS-B", bounds=limits).x
    z = (u - mean) / math.exp(log_spread)
    cut = float(log_ndtr(mean / math.exp(log_spread)))
    lognormal = -0.5 * z * z - log_spread - 0.5 * math.log(2 * math.pi) - cut
    difference = (math.log(alpha - 1) - (alpha - 1) * u) - lognormal
    spread = float(difference.std())
    if spread < 1e-12:
        return 0.0, 1.0
    ratio = float(difference.sum()) / (spread * math.sqrt(len(u)))
    return ratio, math.erfc(abs(ratio) / math.sqrt(2))


def hill(values: Array, share: float = 0.01) -> Estimate:
    """Hill's tail index (1975, Annals of Statistics 3(5)) of the largest `share` of the values: k / Σ ln(x_i / x_k+1).

    P(X > x) falls as x^-index; at 2 or below the variance is infinite, at 1 or below the mean. Interval: ±1.96/√k of
    it. CannotSay where the share is fewer than 10 values.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share must lie between 0 and 1, got {share:g}; the top 1 % is 0.01")
    x = np.sort(np.asarray(values, float))[::-1]
    x = x[np.isfinite(x) & (x > 0)]
    k = int(len(x) * share)
    if k < 10 or k >= len(x):
        raise CannotSay(f"the top {share:.0%} of {len(x)} values are {k}; Hill's estimator needs 10")
    spread = float(np.log(x[:k] / x[k]).sum())
    if spread <= 0:
        raise CannotSay(f"the top {share:.0%} are all {x[0]:g}: there is no tail")
    index = k / spread
    return Estimate(index, index * (1 - 1.96 / math.sqrt(k)), index * (1 + 1.96 / math.sqrt(k)))


def dispersion_by_window(times: Array, windows: tuple[float, ...], begin: float, end: float) -> list[dict[str, Any]]:
    """Index of dispersion (variance over mean) of the counts in windows of each length (seconds).

    `low` and `high` hold 95 % of what a Poisson process would show: its (n-1)·index is χ² with n-1 degrees. A process
    that is only overdispersed levels off with the window; one whose rate drifts rises on. Below 10 windows: None.
    """
    from scipy.special import chdtri

    rows: list[dict[str, Any]] = []
    for window in windows:
        counts = window_counts(times, window, begin, end)
        n = len(counts)
        index = float(counts.var(ddof=1) / counts.mean()) if n >= 10 and counts.any() else None
        low, high = (float(chdtri(n - 1, p)) / (n - 1) if n >= 10 else None for p in (0.975, 0.025))
        rows.append({"window": window, "windows": n, "index": index, "low": low, "high": high})
    return rows
