"""Profiles by name, with defaults that make a sensible run out of one number: `--profile ramp --agents 50`."""

import difflib
import math

from loadprofiles.algebra import Profile
from loadprofiles.arrivals import MMPP, Constant, Diurnal, Gamma, Hawkes, Piecewise, Poisson, Weibull
from loadprofiles.population import Bass, Exponential, Held, Logistic, Ramp, Sine, Spike, Steps

OPEN_LOOP: dict[str, type] = {
    "constant": Constant,
    "poisson": Poisson,
    "gamma": Gamma,
    "weibull": Weibull,
    "mmpp": MMPP,
    "hawkes": Hawkes,
    "diurnal": Diurnal,
    "piecewise": Piecewise,
}
POPULATIONS: dict[str, type] = {
    "held": Held,
    "ramp": Ramp,
    "steps": Steps,
    "spike": Spike,
    "sine": Sine,
    "exponential": Exponential,
    "logistic": Logistic,
    "bass": Bass,
}
PROFILES = OPEN_LOOP | POPULATIONS
"""What `--profile` takes. Recordings and profiles made of profiles need more than a number, so they live in a spec."""

IN_A_SPEC = ("recorded", "population", "sum", "sequence", "scaled", "clipped")


def from_name(name: str, *, agents: int | None = None, rate: float | None = None, duration: float) -> Profile:
    """The profile that the command line means.

    `rate` (sessions per second) is the mean rate of an open-loop profile over the run, `agents` the most agents of a
    population; `duration` (seconds) scales whatever has a time in it. Raises ValueError, one line, for anything else.
    """
    if not 0.0 < duration < math.inf:
        raise ValueError(f"duration must be > 0 seconds and finite, got {duration:g}")
    if name in OPEN_LOOP:
        if agents is not None:
            raise ValueError(
                f"{name} is open loop and takes --rate, got --agents {agents}; populations: {', '.join(POPULATIONS)}"
            )
        if rate is None:
            raise ValueError(f"{name} needs a rate and got none; add --rate R (sessions per second)")
        if not 0.0 < rate < math.inf:
            raise ValueError(f"rate must be > 0 sessions per second and finite, got {rate:g}")
        return open_loop(name, rate, duration)
    if name in POPULATIONS:
        if rate is not None:
            raise ValueError(
                f"{name} is a population and takes --agents, got --rate {rate:g}; open loop: {', '.join(OPEN_LOOP)}"
            )
        if agents is None:
            raise ValueError(f"{name} needs a number of agents and got none; add --agents N")
        if not 1 <= agents <= 10_000_000:
            raise ValueError(f"agents must be >= 1 and <= 10000000, got {agents}")
        return population(name, agents, duration)
    if name in IN_A_SPEC:
        raise ValueError(f'{name} cannot be given by name alone; write it in a spec: [profile] type = "{name}"')
    near = difflib.get_close_matches(name, PROFILES, n=1)
    meant = f"did you mean {near[0]}?" if near else f"it must be one of {', '.join(PROFILES)}"
    raise ValueError(f"there is no load profile {name!r}; {meant}")


def open_loop(name: str, rate: float, duration: float) -> Profile:
    """An open-loop profile of mean `rate` over [0, duration)."""
    match name:
        case "gamma":
            return Gamma(rate, cv=2.0)
        case "weibull":
            return Weibull(rate, cv=2.0)
        case "mmpp":  # a fifth of the time at six times the calm rate, five bursts a run or one in five minutes
            cycle = min(300.0, duration / 5.0)
            return MMPP((0.5 * rate, 3.0 * rate), (1.25 / cycle, 5.0 / cycle))
        case "hawkes":  # IDC 4.3 in a minute, between Mooncake's (2.9) and Azure conversations' (16)
            return Hawkes(rate, branching=0.6, decay=0.1)
        case "diurnal":  # the run is one day, from night to night
            return Diurnal(rate, period=duration, peak_at=duration / 2.0)
        case "piecewise":
            return Piecewise(((0.0, 0.0), (duration / 2.0, 2.0 * rate), (duration, 0.0)))
        case "constant":
            return Constant(rate)
    return Poisson(rate)


def population(name: str, agents: int, duration: float) -> Profile:
    """A population of at most `agents` over [0, duration)."""
    match name:
        case "ramp":
            return Ramp(agents)
        case "steps":  # five equal steps
            return Steps(tuple(math.ceil(agents * part / 5) for part in range(1, 6)))
        case "spike":  # ten times as many in the middle fifth
            return Spike(agents, at=0.4 * duration, width=0.2 * duration, base=math.ceil(agents / 10))
        case "sine":  # two waves between none and all, from the trough
            half = agents / 2
            return Sine(agents - math.floor(half), half, period=duration / 2.0, crossing=duration / 8.0)
        case "exponential":
            return Exponential(agents, doubling=duration / max(math.log2(agents), 1.0))
        case "logistic":  # from 0.7 % to 99.3 % of all
            return Logistic(agents, midpoint=duration / 2.0, growth=10.0 / duration)
        case "bass":  # twenty "years", after which 99.6 % have adopted
            return Bass(agents, unit=duration / 20.0)
    return Held(agents)
