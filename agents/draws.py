"""Random quantities as a spec names them: a plain number, or a small tagged struct.

`draw` gives one value, `mean` the expectation where it is finite, `scaled` the same quantity in smaller units of
tokens. Values are floats; callers round.
"""

import math
from typing import Annotated, TypeAlias

import numpy as np
from msgspec import Meta, Struct, structs

Positive = Annotated[float, Meta(gt=0)]
NonNegative = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]


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


class Mixture(Struct, frozen=True, tag="mixture", forbid_unknown_fields=True):
    """One of `parts`, chosen with probability proportional to `weights`."""

    parts: list["Draw"]
    weights: list[NonNegative]

    def __post_init__(self) -> None:
        if len(self.parts) != len(self.weights) or not self.parts:
            raise ValueError(f"a mixture needs one weight for each part, got {len(self.parts)} and {len(self.weights)}")
        if not sum(self.weights) > 0:
            raise ValueError("a mixture needs a weight above 0")


Draw: TypeAlias = NonNegative | Uniform | LogNormal | Exponential | Geometric | Pareto | Mixture


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
        case Mixture():
            total = sum(what.weights)
            part = int(np.searchsorted(np.cumsum(what.weights), float(rng.random()) * total, side="right"))
            return draw(what.parts[min(part, len(what.parts) - 1)], rng)
    return what


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
        case Mixture():
            return Mixture([scaled(part, factor) for part in what.parts], what.weights)
    return what * factor
