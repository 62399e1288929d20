"""Profiles made of profiles: added, one after another, stretched, cut; and `Profile`, which is any of them all.

Open loop goes with open loop and population with population: a run that mixed the two would have no single meaning of
"how much load". Each part draws from a generator of its own, spawned from the one it is given, so a change in one part
leaves the others as they were.
"""

from collections.abc import Callable, Iterable
from typing import Annotated, TypeAlias

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.random import Generator

from loadprofiles.arrivals import (
    MMPP,
    Array,
    Constant,
    Diurnal,
    Gamma,
    Hawkes,
    Instant,
    Piecewise,
    Poisson,
    Rate,
    Recorded,
    Seconds,
    Weibull,
)
from loadprofiles.population import (
    AgentsOrNone,
    Bass,
    Exponential,
    Held,
    Logistic,
    Population,
    Ramp,
    Sine,
    Spike,
    StepFunction,
    Steps,
    mean_count,
    tidy,
)


class Sum(Struct, frozen=True, forbid_unknown_fields=True, tag="sum"):
    """All parts at once: arrivals are merged, agents added."""

    parts: Annotated[tuple["Profile", ...], Meta(min_length=1)]

    def __post_init__(self) -> None:
        require_one_kind(self.parts)

    @property
    def closed(self) -> bool:
        return self.parts[0].closed

    def arrivals(self, duration: float, rng: Generator, scale: float = 1.0) -> Array:
        drawn = zip(self.parts, rng.spawn(len(self.parts)), strict=True)
        return np.sort(np.concatenate([part.arrivals(duration, own, scale) for part, own in drawn]))

    def population(self, duration: float, scale: float = 1.0) -> StepFunction:
        """Each part is rounded for itself: its agents are whole."""
        steps = [part.population(duration, scale) for part in self.parts]
        times = np.concatenate([times for times, _ in steps])
        changes = np.concatenate([np.diff(counts, prepend=0) for _, counts in steps])
        order = np.argsort(times, kind="stable")
        return tidy(times[order], np.cumsum(changes[order]), duration)

    def mean(self, duration: float, scale: float = 1.0) -> float:
        return sum(part.mean(duration, scale) for part in self.parts)


class Part(Struct, frozen=True, forbid_unknown_fields=True):
    """One stretch of a sequence; only the last may leave its duration open."""

    profile: "Profile"
    duration: Seconds | None = None


class Sequence(Struct, frozen=True, forbid_unknown_fields=True, tag="sequence"):
    """One part after another, each on its own clock and cut off at its duration; then nothing more."""

    parts: Annotated[tuple[Part, ...], Meta(min_length=1)]

    def __post_init__(self) -> None:
        require_one_kind([part.profile for part in self.parts])
        for i, part in enumerate(self.parts[:-1]):
            if part.duration is None:
                raise ValueError(f"parts[{i}].duration is missing; only the last part of a sequence may run to the end")

    @property
    def closed(self) -> bool:
        return self.parts[0].profile.closed

    def arrivals(self, duration: float, rng: Generator, scale: float = 1.0) -> Array:
        drawn = zip(self.stretches(duration), rng.spawn(len(self.parts)), strict=False)
        return np.concatenate(
            [start + profile.arrivals(length, own, scale) for (profile, start, length), own in drawn] or [np.empty(0)]
        )

    def population(self, duration: float, scale: float = 1.0) -> StepFunction:
        stretches = self.stretches(duration)
        steps = [profile.population(length, scale) for profile, _, length in stretches]
        times = [start + times for (_, start, _), (times, _) in zip(stretches, steps, strict=True)]
        end = sum(length for _, _, length in stretches)
        return tidy(
            np.append(np.concatenate(times), end), np.concatenate([counts for _, counts in steps] + [[0]]), duration
        )

    def mean(self, duration: float, scale: float = 1.0) -> float:
        return sum(profile.mean(length, scale) * length for profile, _, length in self.stretches(duration)) / duration

    def stretches(self, duration: float) -> list[tuple["Profile", float, float]]:
        """(profile, start, length) of the parts that begin before `duration`, the last one cut to it."""
        found, start = [], 0.0
        for part in self.parts:
            left = duration - start
            if left <= 0.0:
                break
            length = left if part.duration is None else min(part.duration, left)
            found.append((part.profile, start, length))
            start += length
        return found


class Scaled(Struct, frozen=True, forbid_unknown_fields=True, tag="scaled"):
    """The same shape with `rate` times the sessions per second, or the agents, and its clock stretched `time` times.

    `rate` goes into the profiles inside (a Hawkes process keeps its branching and decay, a day its length). `time`
    stretches everything: with time = 2 each instant is twice as late, and rates, being per second, are halved.
    """

    profile: "Profile"
    rate: Rate = 1.0
    time: Rate = 1.0

    @property
    def closed(self) -> bool:
        return self.profile.closed

    def arrivals(self, duration: float, rng: Generator, scale: float = 1.0) -> Array:
        return self.profile.arrivals(duration / self.time, rng, scale * self.rate) * self.time

    def population(self, duration: float, scale: float = 1.0) -> StepFunction:
        times, counts = self.profile.population(duration / self.time, scale * self.rate)
        return tidy(times * self.time, counts, duration)

    def mean(self, duration: float, scale: float = 1.0) -> float:
        mean = self.profile.mean(duration / self.time, scale * self.rate)
        return mean if self.closed else mean / self.time


class Clipped(Struct, frozen=True, forbid_unknown_fields=True, tag="clipped"):
    """Only what happens from `start` to `stop` (seconds), its agents held between `at_least` and `at_most`."""

    profile: "Profile"
    start: Instant = 0.0
    stop: Seconds | None = None  # None: the end
    at_least: AgentsOrNone = 0
    at_most: AgentsOrNone | None = None

    def __post_init__(self) -> None:
        if self.stop is not None and self.stop <= self.start:
            raise ValueError(f"stop must be > start ({self.start:g} s), got {self.stop:g}")
        if self.at_most is not None and self.at_most < self.at_least:
            raise ValueError(f"at_most must be >= at_least ({self.at_least}), got {self.at_most}")
        if not self.closed and (self.at_least or self.at_most is not None):
            raise ValueError(
                "at_least and at_most count agents, and this profile is open loop; use `scaled` for its rate"
            )

    @property
    def closed(self) -> bool:
        return self.profile.closed

    def arrivals(self, duration: float, rng: Generator, scale: float = 1.0) -> Array:
        times = self.profile.arrivals(self.end(duration), rng, scale)
        return times[np.searchsorted(times, self.start) :]

    def population(self, duration: float, scale: float = 1.0) -> StepFunction:
        times, counts = self.profile.population(duration, scale)
        counts = np.clip(counts, self.at_least, self.at_most)
        start, end = np.searchsorted(times, [self.start, self.end(duration)], side="right")
        inside = np.append(counts[start - 1], counts[start:end])
        times = np.concatenate([[0.0, self.start], times[start:end], [self.end(duration)]])
        return tidy(times, np.concatenate([[0], inside, [0]]), duration)

    def mean(self, duration: float, scale: float = 1.0) -> float:
        if self.closed:
            return mean_count(*self.population(duration, scale), duration)
        start, end = min(self.start, duration), self.end(duration)
        skipped = self.profile.mean(start, scale) * start if start else 0.0
        return (self.profile.mean(end, scale) * end - skipped) / duration

    def end(self, duration: float) -> float:
        return duration if self.stop is None else min(self.stop, duration)


Profile: TypeAlias = (
    Constant
    | Poisson
    | Gamma
    | Weibull
    | MMPP
    | Hawkes
    | Diurnal
    | Piecewise
    | Recorded
    | Held
    | Ramp
    | Steps
    | Spike
    | Sine
    | Exponential
    | Logistic
    | Bass
    | Population
    | Sum
    | Sequence
    | Scaled
    | Clipped
)


def require_one_kind(parts: Iterable[Profile]) -> None:
    """Raise ValueError if open loop and populations are mixed."""
    kinds = {part.closed: type(part).__name__.lower() for part in parts}
    if len(kinds) > 1:
        raise ValueError(
            f"parts must be all open loop or all populations, got {kinds[False]} (open loop) and {kinds[True]}"
            " (population); run them as two tenants"
        )


def load(profile: Profile, read: Callable[[str], str]) -> Profile:
    """The profile with every recording's `file` read into its `times`; `read` turns the name into text.

    The text is one start time in seconds a line; of a line with commas the first column counts, and what follows a # is
    a comment. Raises ValueError for anything else.
    """
    replace = msgspec.structs.replace
    match profile:
        case Recorded(file=file) if file:
            return replace(profile, times=recorded_times(read(file), file), file="")
        case Sum():
            return replace(profile, parts=tuple(load(part, read) for part in profile.parts))
        case Sequence():
            parts = tuple(replace(part, profile=load(part.profile, read)) for part in profile.parts)
            return replace(profile, parts=parts)
        case Scaled() | Clipped():
            return replace(profile, profile=load(profile.profile, read))
    return profile


def recorded_times(text: str, name: str) -> tuple[float, ...]:
    """The start times in a recording's text, as `load` describes it; `name` is for the error message."""
    times = []
    for number, line in enumerate(text.splitlines(), start=1):
        first = line.partition("#")[0].partition(",")[0].strip()
        if not first:
            continue
        try:
            times.append(float(first))
        except ValueError:
            raise ValueError(f"{name}:{number} must start with a time in seconds, got {first[:40]!r}") from None
    if not times:
        raise ValueError(f"{name} must hold one start time (seconds) a line, got none")
    return tuple(times)
