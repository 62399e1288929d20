"""Closed loop: how many agents there are at every instant.

Each profile is a curve N(t), and agents are whole: the curve is rounded half up, and the count changes at the exact
instants at which the curve crosses a half. `population(duration, scale)` gives that step function as two arrays,
(times, counts): counts[i] holds from times[i] on, times[0] is 0, and no two neighbours are equal. `scale` multiplies
the curve before it is rounded. The duration may be infinite where the curve settles. `slots` turns the step function
into seats that open and close.
"""

import math
from collections.abc import Callable
from typing import Annotated, ClassVar, NoReturn, TypeAlias

import numpy as np
from msgspec import Meta, Struct
from numpy.random import Generator
from numpy.typing import NDArray

from loadprofiles.arrivals import Array, Instant, Rate, RateOrZero, Seconds, require_order

Counts: TypeAlias = NDArray[np.int64]
StepFunction: TypeAlias = tuple[Array, Counts]
Agents = Annotated[int, Meta(ge=1, le=10_000_000)]
AgentsOrNone = Annotated[int, Meta(ge=0, le=10_000_000)]


class Closed(Struct, frozen=True, forbid_unknown_fields=True):
    """A number of agents, each of which starts again when its session ends."""

    closed: ClassVar[bool] = True

    def arrivals(self, duration: float, rng: Generator, scale: float = 1.0) -> NoReturn:
        """Raises TypeError: a population's sessions start when their agents are free."""
        raise TypeError(f"{type(self).__name__} is a population: ask it for population(), not for arrivals()")

    def population(self, duration: float, scale: float = 1.0) -> StepFunction:
        """The agents at every instant of [0, duration), as (times, counts)."""
        raise NotImplementedError

    def mean(self, duration: float, scale: float = 1.0) -> float:
        """Agents present, on average over [0, duration)."""
        return mean_count(*self.population(duration, scale), duration)


class Held(Closed, frozen=True, tag="held"):
    """The same number throughout; `stagger` spreads their first starts evenly over that many seconds."""

    agents: Agents
    stagger: Instant = 0.0

    def population(self, duration: float, scale: float = 1.0) -> StepFunction:
        n = rounded(self.agents * scale)
        return tidy(np.arange(n, dtype=np.float64) * (self.stagger / max(n, 1)), np.arange(1, n + 1), duration)


class Ramp(Closed, frozen=True, tag="ramp"):
    """A straight line from `start` to `agents`, over `over` seconds (None: the whole duration), then level."""

    agents: AgentsOrNone
    start: AgentsOrNone = 1
    over: Seconds | None = None

    def population(self, duration: float, scale: float = 1.0) -> StepFunction:
        over = require_end(duration, "ramp without `over`") if self.over is None else self.over
        start, rise = self.start * scale, (self.agents - self.start) * scale
        return monotone(start, rounded(start + rise), lambda level: (level - start) / rise * over, duration)


class Steps(Closed, frozen=True, tag="steps"):
    """One level after another, `each` seconds long (None: equal parts of the duration); the last one stays."""

    levels: Annotated[tuple[AgentsOrNone, ...], Meta(min_length=1)]
    each: Seconds | None = None

    def population(self, duration: float, scale: float = 1.0) -> StepFunction:
        each = self.each
        if each is None:
            each = require_end(duration, "steps without `each`") / len(self.levels)
        return tidy(
            np.arange(len(self.levels), dtype=np.float64) * each, round_half_up(np.array(self.levels) * scale), duration
        )


class Spike(Closed, frozen=True, tag="spike"):
    """`base` agents, and `agents` of them from `at` for `width` seconds."""

    agents: Agents
    at: Instant
    width: Seconds
    base: AgentsOrNone = 1

    def population(self, duration: float, scale: float = 1.0) -> StepFunction:
        counts = round_half_up(np.array([self.base, self.agents, self.base]) * scale)
        return tidy(np.array([0.0, self.at, self.at + self.width]), counts, duration)


class Sine(Closed, frozen=True, tag="sine"):
    """agents + amplitude · sin(2π (t - crossing)/period): rises through its mean at `crossing` seconds."""

    agents: Agents  # mean
    amplitude: RateOrZero
    period: Seconds
    crossing: Instant = 0.0

    def __post_init__(self) -> None:
        if self.amplitude > self.agents:
            raise ValueError(
                f"amplitude must be <= agents ({self.agents}), got {self.amplitude:g}; fewer than 0 cannot be"
            )

    def population(self, duration: float, scale: float = 1.0) -> StepFunction:
        middle, swing = self.agents * scale, self.amplitude * scale
        upper = np.arange(
            rounded(middle - swing) + 1, rounded(middle + swing) + 1
        )  # counts that are come to from below
        height = (upper - 0.5 - middle) / swing if upper.size else np.empty(0)
        upper, height = upper[np.abs(height) < 1.0], height[np.abs(height) < 1.0]  # a curve that only touches stays
        if not upper.size:
            return tidy(np.zeros(1), np.array([rounded(middle)]), duration)
        require_end(duration, "sine")
        turns = np.arange(-2 - math.ceil(self.crossing / self.period), math.ceil(duration / self.period) + 1)
        phases = np.concatenate([np.arcsin(height), math.pi - np.arcsin(height)]) / (2.0 * math.pi)
        times = (turns[:, np.newaxis] + phases) * self.period + self.crossing
        return tidy(times.ravel(), np.tile(np.concatenate([upper, upper - 1]), turns.size), duration)


class Exponential(Closed, frozen=True, tag="exponential"):
    """start · 2^(t/doubling), until there are `agents`."""

    agents: Agents
    doubling: Seconds
    start: Annotated[float, Meta(gt=0, le=1e7)] = 1.0

    def __post_init__(self) -> None:
        if self.start > self.agents:
            raise ValueError(f"start must be <= agents ({self.agents}, where growth stops), got {self.start:g}")

    def population(self, duration: float, scale: float = 1.0) -> StepFunction:
        start = self.start * scale
        top = rounded(self.agents * scale)
        return monotone(start, top, lambda level: self.doubling * np.log2(level / start), duration)


class Logistic(Closed, frozen=True, tag="logistic"):
    """agents / (1 + exp(-growth (t - midpoint))): an S towards `agents`, half of it at `midpoint` (Verhulst 1838)."""

    agents: Agents
    midpoint: Instant
    growth: Rate  # per second, while still small

    def population(self, duration: float, scale: float = 1.0) -> StepFunction:
        top = self.agents * scale
        start = top * math.exp(-np.logaddexp(0.0, self.growth * self.midpoint))
        return monotone(
            start, below(top), lambda level: self.midpoint - np.log(top / level - 1.0) / self.growth, duration
        )


class Bass(Closed, frozen=True, tag="bass"):
    """Adoption by `agents` in the end (Bass 1969): innovators at rate p, imitators at rate q, time counted in `unit`s.

    N = agents · F(t/unit), F(x) = (1 - e^(-(p+q)x)) / (1 + (q/p) e^(-(p+q)x)); fastest at x = ln(q/p)/(p+q). The
    defaults are typical of consumer goods, with a year as the unit.
    """

    agents: Agents
    unit: Seconds  # seconds of the run that stand for one unit of p and q
    p: Rate = 0.03
    q: RateOrZero = 0.38

    def population(self, duration: float, scale: float = 1.0) -> StepFunction:
        top = self.agents * scale

        def adopted(level: Array) -> Array:
            share = level / top
            left = np.log1p(self.q / self.p * share) - np.log1p(-share)
            time: Array = self.unit / (self.p + self.q) * left
            return time

        return monotone(0.0, below(top), adopted, duration)


class Population(Closed, frozen=True, tag="population"):
    """Recorded (seconds, agents) points: each count holds until the next; nobody is there before the first."""

    points: Annotated[tuple[tuple[Instant, AgentsOrNone], ...], Meta(min_length=1)]

    def __post_init__(self) -> None:
        require_order(self.points)

    def population(self, duration: float, scale: float = 1.0) -> StepFunction:
        times, counts = np.array(self.points, dtype=np.float64).T
        return tidy(times, round_half_up(counts * scale), duration)


def slots(times: Array, counts: Counts, duration: float) -> Array:
    """When each seat is open, as rows (start, stop) in seconds, sorted by start; a seat may open more than once.

    Seat k is open while N(t) > k, so who came last leaves first, and the open seats add up to N(t) at every instant.
    """
    before = np.append(0, counts[:-1])
    rise, fall = np.maximum(counts - before, 0), np.maximum(before - counts, 0)
    start, seat = np.repeat(times, rise), staircase(before, rise)
    stop, left = np.repeat(times, fall), staircase(counts, fall)
    still_open = np.arange(counts[-1])
    stop, left = np.append(stop, np.full(still_open.size, duration)), np.append(left, still_open)
    # a seat's openings and closings alternate, so the i-th of one belongs to the i-th of the other
    rows = np.stack([start[np.lexsort((start, seat))], stop[np.lexsort((stop, left))]], axis=1)
    return rows[np.lexsort((rows[:, 1], rows[:, 0]))]


def mean_count(times: Array, counts: Counts, duration: float) -> float:
    """The average of a step function over [0, duration)."""
    return float(counts @ np.diff(np.append(times, duration))) / duration


def tidy(times: Array, counts: Counts, duration: float) -> StepFunction:
    """The step function through points in any order: from 0, cut at `duration`, one entry for each change.

    Of several points at one instant the last given wins; before the first point there is nobody.
    """
    order = np.argsort(times, kind="stable")
    times, counts = times[order], counts[order].astype(np.int64)
    past, end = np.searchsorted(times, 0.0, side="right"), np.searchsorted(times, duration)
    at_zero = counts[past - 1] if past else 0
    times, counts = np.append(0.0, times[past:end]), np.append(at_zero, counts[past:end])
    last_of_instant = np.append(np.diff(times) > 0.0, True)
    times, counts = times[last_of_instant], counts[last_of_instant]
    changed = np.append(True, np.diff(counts) != 0)
    return times[changed], counts[changed]


def monotone(start: float, last: int, crossing: Callable[[Array], Array], duration: float) -> StepFunction:
    """The steps of a rising or falling curve from `start` to the count `last`; `crossing` says when it is where."""
    first = rounded(start)
    up = last >= first
    counts = np.arange(first + 1, last + 1) if up else np.arange(first - 1, last - 1, -1)
    levels = counts.astype(np.float64) + (-0.5 if up else 0.5)
    return tidy(np.append(0.0, crossing(levels)), np.append(first, counts), duration)


def staircase(bottom: Counts, height: Counts) -> Counts:
    """bottom[0], bottom[0] + 1, … (height[0] of them), bottom[1], …: the seats that each step opens or closes."""
    ends = np.cumsum(height)
    steps: Counts = np.arange(ends[-1] if ends.size else 0) - np.repeat(ends - height - bottom, height)
    return steps


def require_end(duration: float, what: str) -> float:
    """The duration; raises ValueError if it is infinite, which a population may be that settles by itself."""
    if duration == math.inf:
        raise ValueError(f"{what} needs a run with an end, got no duration; give the run one")
    return duration


def round_half_up(values: Array) -> Counts:
    return np.floor(values + 0.5).astype(np.int64)


def rounded(value: float) -> int:
    return math.floor(value + 0.5)


def below(top: float) -> int:
    """The highest count of a curve that nears `top` and never gets there."""
    return math.ceil(top + 0.5) - 1
