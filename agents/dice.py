"""Values of random quantities (`agents.draws`): `draw` gives one, a float, `count` a whole one."""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Final, TypeAlias

import numpy as np

from agents.draws import (
    Draw,
    Exponential,
    Gamma,
    Geometric,
    LogNormal,
    Mixture,
    Pareto,
    Poisson,
    Quantiles,
    Tailed,
    Uniform,
    Weibull,
)

NORMAL: Final = NormalDist()
ROOT: Final = math.sqrt(2.0)


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


Source: TypeAlias = Callable[[Numbers], float]
"""Gives one value after another of some quantity."""


def source(what: Draw) -> Source:
    """Where the values of a quantity come from, for who draws many: what describes it is read once."""
    match what:
        case float() | int():
            constant = float(what)
            return lambda rng: constant
        case LogNormal(median, sigma, low, high):
            return lambda rng: min(max(median * math.exp(sigma * rng.standard_normal()), low), high)
        case Mixture(parts, weights):
            sources = [source(part) for part in parts]
            return lambda rng: sources[pick(weights, rng.random())](rng)
        case Tailed(median, sigma, above, share, alpha, low, high):
            return tailed(median, sigma, above, share, alpha, low, high)
        case Uniform(low, high):
            return lambda rng: low + (high - low) * rng.random()
        case Exponential(mean, high):
            return lambda rng: min(-mean * math.log1p(-rng.random()), high)
        case Geometric(mean, high):
            return lambda rng: min(geometric(1.0 / mean, rng.random()), high)
        case Poisson(mean):
            return lambda rng: poisson(mean, rng.random())
        case Pareto(minimum, alpha, high):
            return lambda rng: float(min(minimum * (1.0 - rng.random()) ** (-1.0 / alpha), high))
        case Gamma(shape, scale, low, high):
            return lambda rng: min(max(scale * rng.standard_gamma(shape), low), high)
        case Weibull(shape, scale, low, high):
            return lambda rng: float(min(max(scale * (-math.log1p(-rng.random())) ** (1.0 / shape), low), high))
        case Quantiles(values):
            return lambda rng: between(values, rng.random())


def draw(what: Draw, rng: Numbers) -> float:
    """One value."""
    return source(what)(rng)


def pick(weights: list[float], u: float) -> int:
    """Which of some things, by weight, a number from 0 to 1 picks."""
    total = 0.0
    for weight in weights:
        total += weight
    left = u * total
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


def tailed(median: float, sigma: float, above: float, share: float, alpha: float, low: float, high: float) -> Source:
    """Of the values of a `Tailed`: that which a share u of all values lie below."""
    body = 1.0 - share
    cut = 0.5 * (1.0 + math.erf(math.log(above / median) / sigma / ROOT))  # the normal's below it

    def value(rng: Numbers) -> float:
        u = rng.random()
        if u >= body:
            left = (1.0 - u) / share  # of the tail, above 0 since u < 1
            return float(min(above * left ** (-1.0 / alpha), high))
        z = NORMAL.inv_cdf(min(max(u / body * cut, 1e-12), 1.0 - 1e-12))
        return min(max(median * math.exp(sigma * z), low), above)

    return value


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
    return whole(source(what)(rng), least)


def whole(value: float, least: int = 0) -> int:
    return max(least, rounded(value))


def rounded(value: float) -> int:
    """`round`, which in compiled code costs half of what a value does: to the nearer whole number, or the even one."""
    whole = math.floor(value)
    rest = value - whole
    return whole + 1 if rest > 0.5 or (rest == 0.5 and whole & 1) else whole
