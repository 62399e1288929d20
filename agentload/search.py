"""Which load to measure next, and what the probes so far show: doubling, then bisection, as pure functions.

A probe is one load, measured once. What measures is an argument (`search`); a load that the measuring machine could
not make says nothing about the server, and bounds the answer from nowhere but above.
"""

import math
from collections.abc import Callable

from msgspec import Struct

from collectors import slo
from collectors.slo import Judged

TRIES = 2
"""Measurements of one load: the second is twice as long, and made where the first was undecided or our own fault."""


class Probe(Struct, frozen=True):
    """One load, measured once."""

    load: float  # agents, or sessions per second
    judged: dict[str, list[Judged]]  # by tier
    limited: list[str] = []  # why this machine, not the server, was the limit; then `judged` counts for nothing
    folder: str = ""
    seconds: float = 0.0  # that counted
    calls: int = 0  # that counted
    sessions: int = 0  # that counted and came to their own end
    calls_per_second: float = 0.0
    output_tokens_per_second: float = 0.0
    simulated: bool = False
    stopped: str = ""


class Search(Struct, frozen=True):
    """What to look for, and how long."""

    tiers: tuple[str, ...]
    start: float
    most: float  # where "no limit" is said
    whole: bool  # loads are whole numbers: agents
    resolution: float = 0.05  # of the answer
    probes: int = 12


class Bracket(Struct, frozen=True):
    """What the probes say of one tier. Loads; None where there is none."""

    low: float  # the largest that held; 0: none did
    high: float | None  # the smallest that did not
    wall: float | None  # the smallest, above `low` and below `high`, that this machine could not make
    sure_low: float  # the largest that held with 95 % confidence; 0: none
    sure_high: float | None  # the smallest that failed with 95 % confidence


def search(measure: Callable[[float, int], Probe], plan: Search) -> list[Probe]:
    """Measure until every tier is answered or the probes are used up. `measure(load, earlier)` is told how often that
    load was measured before."""
    probes: list[Probe] = []
    while len(probes) < plan.probes:
        wanted = (next_load(probes, tier, plan) for tier in plan.tiers)
        load = next((load for load in wanted if load is not None), None)
        if load is None:
            break
        probes.append(measure(load, tries(probes, load)))
        if probes[-1].stopped == "interrupted":
            break
    return probes


def next_load(probes: list[Probe], tier: str, plan: Search) -> float | None:
    """The load to measure next for a tier; None when it is answered."""
    if not probes:
        return plan.start
    found = bracket(probes, tier)
    if found.wall is not None and tries(probes, found.wall) < TRIES:
        return found.wall
    upper = min((load for load in (found.high, found.wall) if load is not None), default=None)
    if upper is None and found.low < plan.most:
        return min(2 * found.low, plan.most)
    if upper is not None and not resolved(found.low, upper, plan):
        return middle(found.low, upper, plan.whole)
    for load in (found.low, found.high):  # what is left of the budget goes to ends that noise may have decided
        if load and tries(probes, load) < TRIES and verdict_at(probes, tier, load) == "undecided":
            return load
    return None


def resolved(low: float, upper: float, plan: Search) -> bool:
    """Whether nothing worth measuring lies between them."""
    if not low:
        return upper <= (1 if plan.whole else plan.start / 1000)
    return upper - low <= max(plan.resolution * low, 1.0 if plan.whole else 0.0)


def middle(low: float, upper: float, whole: bool) -> float:
    """Between them: as many times above `low` as below `upper`."""
    if not low:
        return max(1.0, upper // 2) if whole else upper / 2
    mean = math.sqrt(low * upper)
    return min(max(float(round(mean)), low + 1), upper - 1) if whole else mean


def bracket(probes: list[Probe], tier: str) -> Bracket:
    """The largest load that held, and what bounds it from above."""
    loads = sorted({probe.load for probe in probes})
    clean = [load for load in loads if at(probes, tier, load)]
    high = next((load for load in clean if not holds(probes, tier, load)), None)
    below = [load for load in clean if high is None or load < high]
    low = max(below, default=0.0)
    walls = (load for load in loads if load not in clean and low < load < (math.inf if high is None else high))
    passed = [load for load in below if verdict_at(probes, tier, load) == "pass"]
    failed = (load for load in clean if load > low and verdict_at(probes, tier, load) == "fail")
    return Bracket(low, high, min(walls, default=None), max(passed, default=0.0), min(failed, default=None))


def at(probes: list[Probe], tier: str, load: float) -> list[Judged]:
    """The objectives of a tier under one load, over all its measurements that this machine did not spoil."""
    parts = [probe.judged[tier] for probe in probes if probe.load == load and not probe.limited]
    return [slo.pooled(list(same)) for same in zip(*parts, strict=True)]


def holds(probes: list[Probe], tier: str, load: float) -> bool:
    """Whether a load holds all objectives of a tier by what was measured, sure or not."""
    return all(j.share is not None and j.share >= j.needed - 1e-9 for j in at(probes, tier, load))


def verdict_at(probes: list[Probe], tier: str, load: float) -> slo.Verdict:
    """The same, with 95 % confidence."""
    return slo.together(j.verdict for j in at(probes, tier, load))


def tries(probes: list[Probe], load: float) -> int:
    return sum(probe.load == load for probe in probes)
