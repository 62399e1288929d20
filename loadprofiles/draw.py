"""A schedule as one line of text, to look at before anything is sent."""

import numpy as np
from numpy.random import Generator

from loadprofiles.algebra import Profile
from loadprofiles.arrivals import Array

BARS = " ▁▂▃▄▅▆▇█"


def levels(profile: Profile, duration: float, rng: Generator, bins: int) -> Array:
    """What the schedule asks for in each of `bins` equal parts of it: sessions per second drawn, or mean agents."""
    edges = np.linspace(0.0, duration, bins + 1)
    if not profile.closed:
        per_bin: Array = np.histogram(profile.arrivals(duration, rng), edges)[0] * (bins / duration)
        return per_bin
    times, counts = profile.population(duration)
    every = np.union1d(times, edges)
    held = counts[np.searchsorted(times, every[:-1], side="right") - 1]
    agent_seconds = np.append(0.0, np.cumsum(held * np.diff(every)))
    return np.diff(agent_seconds[np.searchsorted(every, edges)]) * (bins / duration)


def sparkline(values: Array) -> str:
    """One bar a value, from 0 to the highest; a space is exactly 0."""
    highest = max(float(values.max(initial=0.0)), 0.0)
    if highest == 0.0:
        return BARS[0] * values.size
    return "".join(BARS[int(np.ceil(value / highest * (len(BARS) - 1)))] for value in values)


def draw(profile: Profile, duration: float, rng: Generator, width: int = 60) -> str:
    """A sparkline with its scale: `▁▃▅█  0 to 12.5 sessions/s (mean 6.1) in 600 s`."""
    values = levels(profile, duration, rng, width)
    unit = "agents" if profile.closed else "sessions/s"
    return f"{sparkline(values)}  0 to {values.max():.3g} {unit} (mean {values.mean():.3g}) in {duration:g} s"
