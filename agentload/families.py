"""Distributions fitted to numbers: the family that describes them best by AIC, and how well it does.

Maximum likelihood throughout. Gamma: Minka's estimate (2002) and Newton steps. Weibull: the profile equation by
Newton. A lognormal with a Pareto tail: the tail's exponent is Hill's (1975) above the 90 % or the 95 % quantile, the
body a lognormal of which nothing above was seen (Cohen 1959). Two lognormals: expectation maximisation. A family is
refused where its median or its 90 % quantile is more than 5 % off, or its distribution 0.15; where all are, the
measured quantiles are taken.
"""

import math
from collections.abc import Callable

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from agents.dice import draw
from agents.draws import Draw, Gamma, LogNormal, Mixture, Quantiles, Tailed, Weibull

Array = NDArray[np.float64]
FEW = 6
"""Distinct values up to which they are taken one by one."""
LEAST = 8
"""Values below which only a table of quantiles is made."""
TOLERANCE = 0.05
"""Of median and 90 % quantile, relative."""
FAR = 0.15
"""Kolmogorov-Smirnov distance beyond which a family is refused."""
POINTS = 41
"""Of a table of quantiles, at most."""
SAMPLE = 20_000
"""Draws with which a fitted distribution is compared with the data."""


class Fitted(Struct, frozen=True):
    """A distribution, and how well it describes the numbers it was fitted to."""

    draw: Draw
    family: str
    aic: dict[str, float]  # of every family tried; the smallest is best
    distance: float  # Kolmogorov-Smirnov: the largest difference of the distribution functions
    poor: bool  # the distance is more than chance explains (1 %) and more than 0.05
    data: tuple[float, ...] = ()  # quantiles 1 % … 99 % of the data
    fit: tuple[float, ...] = ()  # and of the distribution


def fit(values: Array) -> Fitted:
    """The distribution of some numbers, none of them below 0. At least one is needed."""
    values = np.sort(np.asarray(values, float))
    distinct, counts = np.unique(values, return_counts=True)
    if distinct.size == 1:
        return compared(float(distinct[0]), "constant", {}, values)
    if distinct.size <= FEW and values.size > 4 * distinct.size:
        return compared(Mixture([float(v) for v in distinct], [float(c) for c in counts]), "values", {}, values)
    zeros = int((values <= 0).sum())
    if zeros:
        rest = fit(values[zeros:])
        both = Mixture([0.0, rest.draw], [float(zeros), float(values.size - zeros)])
        return compared(both, f"zero or {rest.family}", rest.aic, values)
    if values.size < LEAST:
        return compared(table(values), "quantiles", {}, values)
    tried = {name: family(values) for name, family in FAMILIES.items() if values.size >= 50 or name in SIMPLE}
    aic = {name: 2 * parameters - 2 * likelihood for name, (_, likelihood, parameters) in tried.items()}
    aic = {name: value for name, value in aic.items() if math.isfinite(value)}
    for name in sorted(aic, key=lambda name: aic[name]):
        found = compared(tried[name][0], name, aic, values)
        if close(found):
            return found
    return compared(table(values), "quantiles", aic, values)


def measured(values: Array) -> Fitted:
    """The numbers' own quantiles."""
    values = np.sort(np.asarray(values, float))
    return compared(table(values), "quantiles", {}, values)


def close(fitted: Fitted) -> bool:
    """Whether median and 90 % quantile are as in the data, and no part of it is much off."""
    if fitted.distance > FAR:
        return False
    pairs = [(fitted.data[i], fitted.fit[i]) for i in (49, 89)]
    return all(abs(b - a) <= TOLERANCE * max(a, 1e-9) for a, b in pairs)


def compared(found: Draw, family: str, aic: dict[str, float], values: Array) -> Fitted:
    """A distribution set against the data."""
    made = np.sort(sample(found, SAMPLE, np.random.default_rng(0)))
    at = np.unique(values)
    ours = np.searchsorted(made, at, side="right") / made.size
    theirs = np.searchsorted(values, at, side="right") / values.size
    below = np.searchsorted(made, at, side="left") / made.size - np.searchsorted(values, at, side="left") / values.size
    distance = float(max(np.abs(ours - theirs).max(), np.abs(below).max()))
    shares = np.arange(1, 100) / 100
    chance = 1.63 * math.sqrt(1 / values.size + 1 / made.size)
    return Fitted(found, family, aic, distance, distance > max(0.05, chance),
                  tuple(float(q) for q in np.quantile(values, shares)),
                  tuple(float(q) for q in np.quantile(made, shares)))  # fmt: skip


def table(values: Array) -> Draw:
    """The measured quantiles; of many values the highest twentieth by itself, since a tail is long."""
    if values.size < 10 * POINTS:
        return quantiles(values, 0.0, 1.0)
    return Mixture([quantiles(values, 0.0, 0.95), quantiles(values, 0.95, 1.0)], [0.95, 0.05])


def quantiles(values: Array, low: float, high: float) -> Quantiles:
    points = min(POINTS, max(2, values.size))
    return Quantiles([float(f"{q:.6g}") for q in np.quantile(values, np.linspace(low, high, points))])


def rounded(value: float) -> float:
    return float(f"{value:.5g}")


Found = tuple[Draw, float, int]
"""A distribution, its log likelihood and how many parameters it has."""


def lognormal(values: Array) -> Found:
    logs = np.log(values)
    mu, sigma = float(logs.mean()), max(float(logs.std()), 1e-9)
    found = LogNormal(rounded(math.exp(mu)), rounded(sigma), *ends(values))
    return found, normal_likelihood(logs, mu, sigma) - float(logs.sum()), 2


def normal_likelihood(x: Array, mu: float, sigma: float) -> float:
    return float(-0.5 * (((x - mu) / sigma) ** 2).sum() - x.size * (math.log(sigma) + 0.5 * math.log(2 * math.pi)))


def gamma(values: Array) -> Found:
    mean, logs = float(values.mean()), np.log(values)
    s = math.log(mean) - float(logs.mean())
    shape = (3 - s + math.sqrt((s - 3) ** 2 + 24 * s)) / (12 * s)
    for _ in range(5):
        step = (math.log(shape) - digamma(shape) - s) / (1 / shape - trigamma(shape))
        shape = max(shape / 2, shape - step)
    scale = mean / shape
    likelihood = (shape - 1) * float(logs.sum()) - float(values.sum()) / scale
    likelihood -= values.size * (math.lgamma(shape) + shape * math.log(scale))
    return Gamma(rounded(shape), rounded(scale), *ends(values)), likelihood, 2


def digamma(x: float) -> float:
    """By recurrence to 6 and the asymptotic series."""
    total = 0.0
    while x < 6:
        total -= 1 / x
        x += 1
    return total + math.log(x) - 1 / (2 * x) - 1 / (12 * x**2) + 1 / (120 * x**4) - 1 / (252 * x**6)


def trigamma(x: float) -> float:
    total = 0.0
    while x < 6:
        total += 1 / x**2
        x += 1
    return total + 1 / x + 1 / (2 * x**2) + 1 / (6 * x**3) - 1 / (30 * x**5) + 1 / (42 * x**7)


def weibull(values: Array) -> Found:
    logs = np.log(values / values.max())
    shape = 1.2 / max(float(logs.std()), 1e-9)
    for _ in range(50):
        powers = np.exp(shape * logs)
        a, b, c = float(powers.sum()), float((powers * logs).sum()), float((powers * logs**2).sum())
        error = b / a - 1 / shape - float(logs.mean())
        step = error / (c / a - (b / a) ** 2 + 1 / shape**2)
        shape = min(max(shape / 2, shape - step), shape * 2)
        if abs(step) < 1e-9 * shape:
            break
    scale = float(values.max()) * float(np.exp(shape * logs).mean()) ** (1 / shape)
    z = values / scale
    likelihood = float(((shape - 1) * np.log(z) - z**shape).sum()) + values.size * math.log(shape / scale)
    return Weibull(rounded(shape), rounded(scale), *ends(values)), likelihood, 2


def tailed(values: Array) -> Found:
    """The better of two thresholds."""
    return max((tailed_above(values, share) for share in (0.10, 0.05)), key=lambda found: found[1])


def tailed_above(values: Array, share: float) -> Found:
    above = float(np.quantile(values, 1 - share))
    tail, body = values[values > above], values[values <= above]
    if tail.size < 5 or body.size < 5:
        return 0.0, -math.inf, 5
    share = tail.size / values.size
    alpha = tail.size / float(np.log(tail / above).sum())
    logs = np.log(body)
    mu, sigma = truncated(logs, math.log(above))
    cut = 0.5 * math.erfc(-(math.log(above) - mu) / sigma / math.sqrt(2))
    likelihood = normal_likelihood(logs, mu, sigma) - float(logs.sum())
    likelihood += body.size * math.log((1 - share) / max(cut, 1e-12))
    likelihood += float((math.log(alpha / above) - (alpha + 1) * np.log(tail / above)).sum())
    likelihood += tail.size * math.log(share)
    low, high = ends(values)
    median = rounded(math.exp(mu))
    return Tailed(median, rounded(sigma), rounded(above), rounded(share), rounded(alpha), low, high), likelihood, 5


def truncated(logs: Array, cut: float) -> tuple[float, float]:
    """Mean and deviation of a normal of which only what lies below `cut` was seen (Cohen 1959), by iteration."""
    mu, sigma = float(logs.mean()), max(float(logs.std()), 1e-6)
    mean, variance = mu, sigma**2
    for _ in range(60):
        z = (cut - mu) / sigma
        below = max(0.5 * math.erfc(-z / math.sqrt(2)), 1e-6)
        ratio = math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi) / below
        mu = mean + sigma * ratio
        sigma = math.sqrt(variance / max(1 - z * ratio - ratio**2, 0.05))
        if not math.isfinite(mu) or abs(mu - mean) > 5 * math.sqrt(variance):
            return mean, math.sqrt(variance)
    return mu, sigma


def two_lognormals(values: Array) -> Found:
    logs = np.log(values)
    middle = np.median(logs)
    mu = np.array([logs[logs <= middle].mean(), logs[logs > middle].mean() if (logs > middle).any() else middle + 1])
    sigma, weight = np.full(2, max(float(logs.std()) / 2, 1e-3)), np.array([0.5, 0.5])
    for _ in range(200):
        dense = weight * np.exp(-0.5 * ((logs[:, None] - mu) / sigma) ** 2) / sigma + 1e-300
        share = dense / dense.sum(axis=1, keepdims=True)
        total = share.sum(axis=0) + 1e-9
        before, mu = mu, (share * logs[:, None]).sum(axis=0) / total
        sigma = np.sqrt((share * (logs[:, None] - mu) ** 2).sum(axis=0) / total).clip(0.02)
        weight = total / total.sum()
        if np.abs(before - mu).max() < 1e-6:
            break
    dense = weight * np.exp(-0.5 * ((logs[:, None] - mu) / sigma) ** 2) / sigma / math.sqrt(2 * math.pi)
    likelihood = float(np.log(dense.sum(axis=1) + 1e-300).sum() - logs.sum())
    low, high = ends(values)
    parts: list[Draw] = [LogNormal(rounded(math.exp(m)), rounded(s), low, high) for m, s in zip(mu, sigma, strict=True)]
    return Mixture(parts, [rounded(float(w)) for w in weight]), likelihood, 5


def ends(values: Array) -> tuple[float, float]:
    return rounded(float(values.min())), rounded(float(values.max()))


FAMILIES: dict[str, Callable[[Array], Found]] = {
    "lognormal": lognormal,
    "gamma": gamma,
    "weibull": weibull,
    "lognormal with a Pareto tail": tailed,
    "two lognormals": two_lognormals,
}
SIMPLE = ("lognormal", "gamma", "weibull")


def sample(what: Draw, size: int, rng: np.random.Generator) -> Array:
    """Many values at once."""
    match what:
        case LogNormal():
            return np.clip(what.median * np.exp(what.sigma * rng.standard_normal(size)), what.low, what.high)
        case Gamma():
            return np.clip(rng.gamma(what.shape, what.scale, size), what.low, what.high)
        case Weibull():
            return np.clip(what.scale * rng.weibull(what.shape, size), what.low, what.high)
        case Mixture():
            weights = np.array(what.weights)
            counts = rng.multinomial(size, weights / weights.sum())
            parts = [sample(part, int(n), rng) for part, n in zip(what.parts, counts, strict=True)]
            return rng.permutation(np.concatenate(parts))
        case float() | int():
            return np.full(size, float(what))
    return np.array([draw(what, rng) for _ in range(size)])
