"""When agents start, and how many there are: pure functions from parameters and a random generator to arrays.

A profile is either open loop (`arrivals(duration, rng)`, sorted start times in seconds) or a population
(`population(duration)`, a step function; `slots` gives its seats); `profile.closed` says which. `Profile` is the union
that a spec decodes, chosen by `type`; `from_name` makes one for the command line.
"""

from loadprofiles.algebra import Clipped, Part, Profile, Scaled, Sequence, Sum, load
from loadprofiles.arrivals import MMPP, Constant, Diurnal, Gamma, Hawkes, Piecewise, Poisson, Recorded, Weibull
from loadprofiles.draw import draw, levels, sparkline
from loadprofiles.names import PROFILES, from_name
from loadprofiles.population import (
    Bass,
    Exponential,
    Held,
    Logistic,
    Population,
    Ramp,
    Sine,
    Spike,
    Steps,
    mean_count,
    slots,
)

__all__ = [
    "MMPP",
    "PROFILES",
    "Bass",
    "Clipped",
    "Constant",
    "Diurnal",
    "Exponential",
    "Gamma",
    "Hawkes",
    "Held",
    "Logistic",
    "Part",
    "Piecewise",
    "Poisson",
    "Population",
    "Profile",
    "Ramp",
    "Recorded",
    "Scaled",
    "Sequence",
    "Sine",
    "Spike",
    "Steps",
    "Sum",
    "Weibull",
    "draw",
    "from_name",
    "levels",
    "load",
    "mean_count",
    "slots",
    "sparkline",
]
