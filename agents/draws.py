"""Random quantities as a spec names them: a plain number, or a small tagged struct.

`agents.dice` draws from them; `scaled` gives the same quantity in smaller units of tokens.
"""

import math
from typing import Annotated, TypeAlias

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
