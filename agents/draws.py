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


class Poisson(Struct, frozen=True, tag="poisson", forbid_unknown_fields=True):
    """A count from 0 up, with the given mean: sub-agents that come about independently."""

    mean: Annotated[float, Meta(gt=0, le=500)]


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
    | Poisson
    | Pareto
    | Gamma
    | Weibull
    | Tailed
    | Quantiles
    | Mixture
)


class Dice:
    """Uniform and normal numbers of a generator, in blocks: asked for one by one, most of their price is the asking."""

    __slots__ = ("_normal", "_size", "_uniform", "rng")

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self._size = 8  # of the next block: sessions may be short
        self._uniform: list[float] = []
        self._normal: list[float] = []

    def random(self) -> float:
        """Uniform from 0 to 1, which is left out."""
        if not self._uniform:
            self._uniform = self.rng.random(self._more()).tolist()
        return self._uniform.pop()

    def standard_normal(self) -> float:
        if not self._normal:
            self._normal = self.rng.standard_normal(self._more()).tolist()
        return self._normal.pop()

    def standard_gamma(self, shape: float) -> float:
        return self.rng.standard_gamma(shape)

    def _more(self) -> int:
        size = self._size
        self._size = min(2 * size, 128)
        return size


Numbers: TypeAlias = np.random.Generator | Dice


def draw(what: Draw, rng: Numbers) -> float:
    """One value."""
    match what:
        case float() | int():
            return what
        case LogNormal():
            return min(max(what.median * math.exp(what.sigma * rng.standard_normal()), what.low), what.high)
        case Mixture():
            return draw(what.parts[pick(what.weights, rng.random())], rng)
        case Uniform():
            return what.low + (what.high - what.low) * rng.random()
        case Exponential():
            return min(-what.mean * math.log1p(-rng.random()), what.high)
        case Geometric():
            return min(geometric(1.0 / what.mean, rng.random()), what.high)
        case Poisson():
            return poisson(what.mean, rng.random())
        case Pareto():
            return float(min(what.minimum * (1.0 - rng.random()) ** (-1.0 / what.alpha), what.high))
        case Gamma():
            return min(max(what.scale * rng.standard_gamma(what.shape), what.low), what.high)
        case Weibull():
            return float(min(max(what.scale * (-math.log1p(-rng.random())) ** (1.0 / what.shape), what.low), what.high))
        case Tailed():
            return tailed(what, rng.random())
        case Quantiles():
            return between(what.values, rng.random())


def pick(weights: list[float], u: float) -> int:
    """Which of some things, by weight, a number from 0 to 1 picks."""
    left = u * sum(weights)
    for i, weight in enumerate(weights):
        left -= weight
        if left < 0:
            return i
    return len(weights) - 1  # rounding


def geometric(p: float, u: float) -> float:
    """Tries until the first success of probability `p`: the count that a share `u` of all lie below."""
    return 1.0 if p >= 1.0 else float(math.floor(math.log1p(-u) / math.log1p(-p))) + 1.0


def poisson(mean: float, u: float) -> float:
    """How many come about independently: the count that a share `u` of all lie below."""
    count, chance = 0, math.exp(-mean)
    total = chance
    while total <= u and chance > 0.0:
        count += 1
        chance *= mean / count
        total += chance
    return float(count)


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


def count(what: Draw, rng: Numbers, least: int = 0) -> int:
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
        case Poisson():
            return Poisson(what.mean * factor)
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
