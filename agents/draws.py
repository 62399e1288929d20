"""Random quantities as a spec names them: a plain number, or a small tagged struct.

`draw` gives one value, `count` a whole one, `scaled` the same quantity in smaller units of
tokens. Values are floats; callers round.
"""

import math
from statistics import NormalDist
from typing import Annotated, TypeAlias

import numpy as np
from msgspec import Meta, Struct, structs

Positive = Annotated[float, Meta(gt=0)]
NonNegative = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
NORMAL = NormalDist()


class Uniform(Struct, frozen=True, tag="uniform", forbid_unknown_fields=True):
    """Anything between `low` and `high` with equal probability."""

    low: NonNegative
    high: NonNegative

    def __post_init__(self) -> None:
        if self.high < self.low:
            raise ValueError(f"high must be >= low, got low {self.low:g} and high {self.high:g}")


class LogNormal(Struct, frozen=True, tag="lognormal", forbid_unknown_fields=True):
    """exp(Normal(ln median, sigma)), cut off (not redrawn) at `low` and `high`."""

    median: Positive
    sigma: NonNegative
    low: NonNegative = 0.0
    high: Positive = math.inf

    def __post_init__(self) -> None:
        if self.high < self.low:
            raise ValueError(f"high must be >= low, got low {self.low:g} and high {self.high:g}")


class Exponential(Struct, frozen=True, tag="exponential", forbid_unknown_fields=True):
    """Memoryless, with the given mean, cut off at `high`."""

    mean: Positive
    high: Positive = math.inf


class Geometric(Struct, frozen=True, tag="geometric", forbid_unknown_fields=True):
    """A count from 1 up: how many tries until the first success, with the given mean, cut off at `high`."""

    mean: Annotated[float, Meta(ge=1)]
    high: Positive = math.inf


class Pareto(Struct, frozen=True, tag="pareto", forbid_unknown_fields=True):
    """Heavy tail: P(X > x) = (minimum / x) ** alpha, cut off at `high`."""

    minimum: Positive
    alpha: Positive
    high: Positive = math.inf


class Gamma(Struct, frozen=True, tag="gamma", forbid_unknown_fields=True):
    """Gamma with mean `shape` × `scale`, cut off at `low` and `high`."""

    shape: Positive
    scale: Positive
    low: NonNegative = 0.0
    high: Positive = math.inf


class Weibull(Struct, frozen=True, tag="weibull", forbid_unknown_fields=True):
    """P(X > x) = exp(-(x / scale) ** shape), cut off at `low` and `high`."""

    shape: Positive
    scale: Positive
    low: NonNegative = 0.0
    high: Positive = math.inf


class Tailed(Struct, frozen=True, tag="tailed", forbid_unknown_fields=True):
    """A lognormal body and a Pareto tail: a `share` of the values lie beyond `above`, and fall off with `alpha`."""

    median: Positive  # of the lognormal, before it is cut at `above`
    sigma: Positive
    above: Positive
    share: Share
    alpha: Positive
    low: NonNegative = 0.0
    high: Positive = math.inf


class Quantiles(Struct, frozen=True, tag="quantiles", forbid_unknown_fields=True):
    """As measured: values at evenly spaced probabilities from 0 to 1, a straight line between two of them (of their
    logarithms, where both are above 0)."""

    values: list[NonNegative]

    def __post_init__(self) -> None:
        if len(self.values) < 2 or sorted(self.values) != self.values:
            raise ValueError("quantiles need two values or more, in rising order")


class Mixture(Struct, frozen=True, tag="mixture", forbid_unknown_fields=True):
    """One of `parts`, chosen with probability proportional to `weights`."""

    parts: list["Draw"]
    weights: list[NonNegative]

    def __post_init__(self) -> None:
        if len(self.parts) != len(self.weights) or not self.parts:
            raise ValueError(f"a mixture needs one weight for each part, got {len(self.parts)} and {len(self.weights)}")
        if not sum(self.weights) > 0:
            raise ValueError("a mixture needs a weight above 0")


Draw: TypeAlias = (
    NonNegative
    | Uniform
    | LogNormal
    | Exponential
    | Geometric
    | Pareto
    | Gamma
    | Weibull
    | Tailed
    | Quantiles
    | Mixture
)


def draw(what: Draw, rng: np.random.Generator) -> float:
    """One value."""
    match what:
        case Uniform():
            return float(rng.uniform(what.low, what.high))
        case LogNormal():
            return min(max(what.median * math.exp(what.sigma * rng.standard_normal()), what.low), what.high)
        case Exponential():
            return min(float(rng.exponential(what.mean)), what.high)
        case Geometric():
            return min(float(rng.geometric(1.0 / what.mean)), what.high)
        case Pareto():
            return float(min(what.minimum * (1.0 - rng.random()) ** (-1.0 / what.alpha), what.high))
        case Gamma():
            return min(max(float(rng.gamma(what.shape, what.scale)), what.low), what.high)
        case Weibull():
            return min(max(what.scale * float(rng.weibull(what.shape)), what.low), what.high)
        case Tailed():
            return tailed(what, float(rng.random()))
        case Quantiles():
            return between(what.values, float(rng.random()))
        case Mixture():
            total = sum(what.weights)
            part = int(np.searchsorted(np.cumsum(what.weights), float(rng.random()) * total, side="right"))
            return draw(what.parts[min(part, len(what.parts) - 1)], rng)
    return what


def tailed(what: Tailed, u: float) -> float:
    """The value that a share `u` of all values lie below."""
    body = 1.0 - what.share
    if u >= body:
        left = (1.0 - u) / what.share  # of the tail, above 0 since u < 1
        return float(min(what.above * left ** (-1.0 / what.alpha), what.high))
    cut = NORMAL.cdf(math.log(what.above / what.median) / what.sigma)
    z = NORMAL.inv_cdf(min(max(u / body * cut, 1e-12), 1.0 - 1e-12))
    return min(max(what.median * math.exp(what.sigma * z), what.low), what.above)


def between(values: list[float], u: float) -> float:
    """The value at probability `u` of a table of quantiles."""
    place = u * (len(values) - 1)
    i = min(int(place), len(values) - 2)
    low, high, part = values[i], values[i + 1], place - i
    if low > 0:
        return float(low * (high / low) ** part)
    return low + part * (high - low)


def count(what: Draw, rng: np.random.Generator, least: int = 0) -> int:
    """One value, rounded to a whole number not below `least`."""
    return max(least, round(draw(what, rng)))


def scaled(what: Draw, factor: float) -> Draw:
    """The same quantity with every value multiplied by `factor` (a mean of 1 or more is kept for geometric counts)."""
    match what:
        case Uniform():
            return Uniform(what.low * factor, what.high * factor)
        case LogNormal():
            return LogNormal(what.median * factor, what.sigma, what.low * factor, what.high * factor)
        case Exponential():
            return Exponential(what.mean * factor, what.high * factor)
        case Geometric():
            return structs.replace(what, mean=max(1.0, what.mean * factor))
        case Pareto():
            return Pareto(what.minimum * factor, what.alpha, what.high * factor)
        case Gamma():
            return Gamma(what.shape, what.scale * factor, what.low * factor, what.high * factor)
        case Weibull():
            return Weibull(what.shape, what.scale * factor, what.low * factor, what.high * factor)
        case Tailed():
            return structs.replace(
                what,
                median=what.median * factor,
                above=what.above * factor,
                low=what.low * factor,
                high=what.high * factor,
            )
        case Quantiles():
            return Quantiles([value * factor for value in what.values])
        case Mixture():
            return Mixture([scaled(part, factor) for part in what.parts], what.weights)
    return what * factor
