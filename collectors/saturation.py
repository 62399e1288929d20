"""Where a sweep saturates and why: the knee, the scalability law, and whether compute, cache or waiting is behind."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from msgspec import Struct

from collectors.curves import Bounds, Usl, bounds, fit_usl, knee
from collectors.load import Array
from collectors.points import Point
from collectors.steady import CannotSay
from collectors.text import duration_text, number, share

CACHE_DROP = 0.05
"""How far the prefix hit rate must fall from its best for the cache to be blamed [ours]."""
FULL = 0.8
"""Share of accelerator time, or of the KV cache, from which it counts as full [ours]."""


class Cluster(Struct, frozen=True):
    """What is known of the cluster; None where it is not."""

    gpus: float | None = None
    kv_tokens: int | None = None  # that its KV caches hold together


class Saturation(NamedTuple):
    """What a series of points says."""

    knee: float | None  # where throughput stops growing with the load; None: not seen
    cause: str  # "kv cache", "compute", "tool time", "people", "sub-agents", "errors", "not seen"
    says: str  # one sentence
    usl: Usl | None
    no_usl: str  # why there is none
    bounds: Bounds | None
    peak: Point  # the point with most tokens per second


def saturation(points: Sequence[Point], cluster: Cluster, rng: np.random.Generator) -> Saturation:
    """Of the points of one series, in the order of their values. CannotSay for one point alone."""
    points = sorted(points, key=lambda point: point.value)
    n, x = columns(points)
    at = knee(n, x)
    usl, no_usl = None, ""
    try:
        usl = fit_usl(n, x, rng)
    except CannotSay as why:
        no_usl = str(why)
    cause, says = why_saturated(points, at, cluster)
    says += spent(points, at)
    best = max(points, key=lambda point: point.tokens.value)
    return Saturation(at, cause, says, usl, no_usl, closed_loop(points), best)


def columns(points: Sequence[Point]) -> tuple[Array, Array]:
    """Loads and tokens per second."""
    return np.array([p.value for p in points]), np.array([p.tokens.value for p in points])


def closed_loop(points: Sequence[Point]) -> Bounds | None:
    """Bounds in calls per second from the first point (R0 and Z) and the highest throughput seen (1/D)."""
    first = points[0]
    most = max(p.calls_per_second for p in points)
    if not first.calls_per_second or not first.call_seconds or not first.agents:
        return None
    cycle = first.agents / first.calls_per_second  # seconds from one call of an agent to its next
    alone = min(first.call_seconds, cycle)  # parallel calls of sub-agents can make it the longer
    return bounds(np.array([p.agents for p in points]), 1 / most, alone, cycle - alone)


def why_saturated(points: Sequence[Point], at: float | None, cluster: Cluster) -> tuple[str, str]:
    """The cause and a sentence, from what changed between the lowest load and the knee."""
    first = points[0]
    if at is None:
        return waiting(points[-1])
    point = next((p for p in points if p.value >= at), points[-1])
    late = points[-1] if len(points) < 3 else points[min(points.index(point) + 1, len(points) - 1)]
    best = max((p.hit or 0.0) for p in points)
    kv, busy = cluster.kv_tokens, sum(late.busy.values())
    where = f"Demand stops growing at about {number(at)}"
    if best - (late.hit or 0.0) > CACHE_DROP and (kv is None or late.held > kv):
        fits = f", which hold {number(late.held)} tokens, no longer fit into {number(kv)}" if kv else " no longer fit"
        return "kv cache", (
            f"{where}: the agents' contexts{fits}, so the prefix cache hit rate falls from {share(best)} to "
            f"{share(late.hit)} and prompts are computed again."
        )
    if kv and late.running > FULL * kv:
        return "kv cache", (
            f"{where}: the calls in flight hold {number(late.running)} tokens of a KV cache of {number(kv)}, and "
            f"others queue (median TTFT {duration_text(first.ttft_p50)}, then {duration_text(late.ttft_p50)})."
        )
    if late.error_rate > 0.2:
        return "errors", f"{where}: {share(late.error_rate)} of the calls are not answered."
    if late.busy and busy > FULL:
        part = max(late.busy, key=lambda name: late.busy[name])
        return "compute", (
            f"{where}: the accelerators are busy all the time, {share(late.busy[part] / busy)} of it with {part}."
        )
    return "compute", (
        f"{where}: calls wait for the accelerators (median TTFT {duration_text(first.ttft_p50)}, then "
        f"{duration_text(late.ttft_p50)})."
    )


def spent(points: Sequence[Point], at: float | None) -> str:
    """What the accelerators do from the knee on, where that is known; "" otherwise."""
    point = points[-1] if at is None else next((p for p in points if p.value >= at), points[-1])
    if not point.busy:
        return ""
    whole = max(1.0, sum(point.busy.values()))  # the parts are estimates, and can sum to a little more
    parts = [f"{share(part / whole)} {name}" for name, part in point.busy.items()]
    return f" At {number(point.value)} the accelerators spend their time {', '.join(parts)}."


def waiting(point: Point) -> tuple[str, str]:
    """What holds a population back that the cluster does not."""
    spent = point.time_share
    named = {"tool": "tool time", "wait": "people", "join": "sub-agents"}
    outside = {name: spent.get(name, 0.0) for name in named}
    where = f"No saturation up to {number(point.value)}"
    most = max(outside, key=lambda name: outside[name])
    if sum(outside.values()) < 0.3:
        return "not seen", f"{where}: demand still grows with the load."
    what = {"tool": "in tools", "wait": "waiting for people", "join": "waiting for sub-agents"}[most]
    return named[most], f"{where}: agents spend {share(outside[most])} of their time {what}, not in the model."
