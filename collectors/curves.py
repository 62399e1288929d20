"""How demand and throughput scale with the number of agents: power law, universal scalability law, closed-loop bounds.

Pure functions over arrays. N is a number of agents; a throughput is anything per second (calls, tokens, sessions).
Intervals are of 95 %. A fit that the data cannot carry raises `CannotSay`, one line that says what they lack.
"""

from typing import NamedTuple

import numpy as np

from collectors.load import Array
from collectors.steady import CannotSay, Estimate, t_quantile

RESAMPLES = 1_000


class PowerLaw(NamedTuple):
    """y = scale · x^exponent."""

    exponent: Estimate  # Student's interval
    resampled: Estimate  # of the exponent, by bootstrap over the points
    scale: float  # y at x = 1
    r_squared: float  # of the logarithms
    p_superlinear: float  # one-sided: how likely so steep a slope is where the exponent is 1
    points: int

    @property
    def verdict(self) -> str:
        """What both intervals together let one say of the exponent: above, below, or not told from 1."""
        low, high = min(self.exponent.low, self.resampled.low), max(self.exponent.high, self.resampled.high)
        return "superlinear" if low > 1 else "sublinear" if high < 1 else "linear within the interval"


def power_law(x: Array, y: Array, rng: np.random.Generator, resamples: int = RESAMPLES) -> PowerLaw:
    """Least squares through (ln x, ln y), one point per session (tokens against calls) or per measured stretch
    (tokens/s against N). Points where x or y is not > 0 are left out.

    exponent = Σ(u - ū)(v - v̄) / Σ(u - ū)², its interval Student's with n - 2 degrees of freedom; the bootstrap draws
    points with replacement and takes percentiles, which holds where the scatter changes with x. CannotSay below 4
    points, or where x spans less than a factor of 2.
    """
    u, v = logarithms(x, y)
    if len(u) < 4:
        raise CannotSay(f"a power law needs 4 points above zero, got {len(u)}")
    if np.exp(np.ptp(u)) < 2:
        raise CannotSay(f"a power law needs x to span a factor of 2, got {np.exp(np.ptp(u)):.2f}")
    n, centred = len(u), u - u.mean()
    sxx = float(centred @ centred)
    slope = float(centred @ v) / sxx
    residual = v - v.mean() - slope * centred
    error = float(np.sqrt(residual @ residual / (n - 2) / sxx))
    half = t_quantile(0.95, n - 2) * error
    spread = float(((v - v.mean()) ** 2).sum())
    return PowerLaw(
        exponent=Estimate(slope, slope - half, slope + half),
        resampled=Estimate(slope, *_percentiles(_slopes(u, v, rng, resamples))),
        scale=float(np.exp(v.mean() - slope * u.mean())),
        r_squared=1 - float(residual @ residual) / spread if spread else float("nan"),
        p_superlinear=_above(slope - 1, error, n - 2),
        points=n,
    )


def logarithms(x: Array, y: Array) -> tuple[Array, Array]:
    """ln x and ln y of the points where both are above 0."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    keep = (x > 0) & (y > 0) & np.isfinite(x) & np.isfinite(y)
    return np.log(x[keep]), np.log(y[keep])


def _slopes(u: Array, v: Array, rng: np.random.Generator, resamples: int) -> Array:
    """Slopes of resampled points; those where every x is the same are left out."""
    found = []
    for rows in np.array_split(np.arange(resamples), max(1, resamples * len(u) // 2_000_000)):
        at = rng.integers(len(u), size=(len(rows), len(u)))
        a, b = u[at], v[at]
        a = a - a.mean(axis=1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            found.append((a * b).sum(axis=1) / (a * a).sum(axis=1))
    slopes = np.concatenate(found)
    finite: Array = slopes[np.isfinite(slopes)]
    return finite


def _above(difference: float, error: float, degrees: int) -> float:
    from scipy.special import stdtr

    if error == 0:
        return 0.0 if difference > 0 else 1.0
    return float(1 - stdtr(degrees, difference / error))


def _percentiles(values: Array) -> tuple[float, float]:
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


# The universal scalability law.


class Usl(NamedTuple):
    """X(N) = λN / (1 + σ(N-1) + κN(N-1)), Gunther 2007, Guerrilla Capacity Planning."""

    rate: Estimate  # λ: throughput of one agent alone
    contention: Estimate  # σ: the share that is done one after the other
    coherency: Estimate  # κ: what each pair of agents costs the rest
    best: Estimate | None  # N* = sqrt((1-σ)/κ), where throughput is highest; None: no retrograde seen
    note: str  # "" or why there is no N*
    seen: float  # the largest N that was measured

    def throughput(self, n: Array) -> Array:
        """X at each N."""
        return usl(n, self.rate.value, self.contention.value, self.coherency.value)


def usl(n: Array, rate: float, contention: float, coherency: float) -> Array:
    """Throughput of N agents under the universal scalability law, in the unit of `rate`."""
    n = np.asarray(n, float)
    result: Array = rate * n / (1 + contention * (n - 1) + coherency * n * (n - 1))
    return result


def fit_usl(n: Array, x: Array, rng: np.random.Generator, resamples: int = RESAMPLES) -> Usl:
    """The law fitted to throughputs X measured at N agents, with λ > 0 and σ, κ >= 0.

    Bounded least squares of the relative error in the law's linear form, X(a + b(N-1) + cN(N-1))/N = 1 with a = 1/λ,
    b = σ/λ, c = κ/λ. Intervals: bootstrap of the relative residuals, widened by sqrt(n/(n-3)) and by Student's over
    the normal quantile for the few points there are. CannotSay below 5 different N, or where N spans less than 4 times.
    """
    n, x = np.asarray(n, float), np.asarray(x, float)
    keep = (n > 0) & (x > 0) & np.isfinite(x)
    n, x = n[keep], x[keep]
    different = np.unique(n)
    if len(different) < 5:
        raise CannotSay(f"the scalability law has three parameters and needs 5 different N, got {len(different)}")
    if different[-1] < 4 * different[0]:
        raise CannotSay(f"N from {different[0]:g} to {different[-1]:g} spans less than a factor of 4")
    fitted = _linear_usl(n, x)
    if fitted[0] <= 0:
        raise CannotSay("throughput does not begin in proportion to N: it is flat from the first point on; begin lower")
    curve = usl(n, *fitted)
    residual, degrees = np.log(x / curve), len(n) - 3
    residual = (residual - residual.mean()) * np.sqrt(len(n) / degrees) * t_quantile(0.95, degrees) / 1.96
    draws = np.array(
        [
            _linear_usl(n, curve * np.exp(rng.choice(residual, len(n))))
            for _ in range(resamples if residual.any() else 1)
        ]
    )
    draws = draws[draws[:, 0] > 0]
    rate, sigma, kappa = (Estimate(value, *_percentiles(draws[:, i])) for i, value in enumerate(fitted))
    best, note = _peak(fitted, kappa, draws, float(different[-1]))
    return Usl(rate, sigma, kappa, best, note, float(different[-1]))


def _peak(
    fitted: tuple[float, float, float], coherency: Estimate, draws: Array, seen: float
) -> tuple[Estimate | None, str]:
    """N* with its interval, or why there is none."""
    _, sigma, kappa = fitted
    if kappa <= 0 or coherency.low <= 1e-3 / seen**2:  # so small that it takes 0.1 % off within what was measured
        return None, "no retrograde seen: the interval of κ touches 0"
    if sigma >= 1:
        return None, "throughput does not grow at any N: σ is at least 1"
    ok = draws[(draws[:, 2] > 0) & (draws[:, 1] < 1)]
    return Estimate(float(np.sqrt((1 - sigma) / kappa)), *_percentiles(np.sqrt((1 - ok[:, 1]) / ok[:, 2]))), ""


def _linear_usl(n: Array, x: Array) -> tuple[float, float, float]:
    """λ, σ, κ by non-negative least squares; λ is 0 where the data do not begin in proportion to N."""
    from scipy.optimize import nnls

    (a, b, c), _ = nnls(np.column_stack([x / n, x * (n - 1) / n, x * (n - 1)]), np.ones(len(n)))
    return (1 / a, b / a, c / a) if a > 0 else (0.0, 0.0, 0.0)


# Operational bounds of a closed loop.


class Bounds(NamedTuple):
    """What no closed loop can beat (Denning and Buzen 1978, Computing Surveys 10(3)), at each N."""

    throughput: Array  # at most min(1/D, N/(R0+Z)), calls per second
    response: Array  # at least max(R0, N·D - Z), seconds
    knee: float  # N* = (R0+Z)/D: where the two bounds meet


def bounds(n: Array, demand: float, alone: float, think: float) -> Bounds:
    """`demand` D is the bottleneck's time per call (1/D the most calls per second), `alone` R0 a call's time without
    others, `think` Z the time between an agent's calls (tools, people), all in seconds. ValueError for nonsense.
    """
    if not demand > 0 or not alone > 0 or not think >= 0:
        raise ValueError(f"D and R0 must be > 0 and Z >= 0 seconds, got {demand:g}, {alone:g} and {think:g}")
    n = np.asarray(n, float)
    return Bounds(
        np.minimum(1 / demand, n / (alone + think)), np.maximum(alone, n * demand - think), (alone + think) / demand
    )


def knee(n: Array, x: Array, slope: float = 0.5) -> float | None:
    """The N from which throughput grows by less than N to the power `slope`: between two measured N, on a log scale.

    None where it never does, so that no saturation was seen. Repeated N are averaged. CannotSay below 2 different N.
    """
    at = np.unique(n)
    if len(at) < 2:
        raise CannotSay(f"a sweep of one point ({at[0] if len(at) else 'none'}) has no curve; give 2 values or more")
    mean = np.array([np.mean(np.asarray(x, float)[np.asarray(n) == value]) for value in at])
    with np.errstate(divide="ignore", invalid="ignore"):
        local = np.diff(np.log(mean)) / np.diff(np.log(at))
    last = np.flatnonzero(~(local < slope))  # after the last stretch that still grew
    i = int(last[-1]) + 1 if len(last) else 0
    if i >= len(local):
        return None
    if i == 0:
        return float(at[0])
    middle = (np.log(at[:-1]) + np.log(at[1:])) / 2
    part = (local[i - 1] - slope) / (local[i - 1] - local[i]) if np.isfinite(local[i - 1]) else 0.5
    return float(np.exp(middle[i - 1] + part * (middle[i] - middle[i - 1])))
