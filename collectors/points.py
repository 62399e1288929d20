"""Operating points: what a load did to the cluster in its steady state, one point per value of a sweep.

A point is read from one or several runs of the same load. Rates are per second of the run clock, tokens are counted
where their call ended inside the window that counts: from the end of the warm-up (MSER-5) to the end of the schedule.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from msgspec import Struct

from collectors import metrics
from collectors.load import Array, Columns, Run
from collectors.metrics import accounts, agents_calls, answered, roots
from collectors.steady import BATCH, FEWEST_BATCHES, CannotSay, Estimate, batches, mser5, t_interval
from collectors.summary import duration

BINS = 200
"""Stretches that a run is cut into for MSER-5."""
SERIES_BATCHES = 20
"""Batch means per run."""


class Window(NamedTuple):
    """What counts of one run, in seconds of its clock."""

    start: float
    stop: float
    steady: bool  # False: no end of the warm-up was seen


class Point(Struct, frozen=True):
    """What one load did. Tokens and calls per second, seconds, shares; None where nothing can be said."""

    series: str  # the archetype, or the name of the mix
    value: float  # of what was swept
    agents: float  # sessions alive on average
    runs: tuple[str, ...]
    seconds: float  # that counted, of all runs
    warmup: float  # the longest that was cut
    steady: bool
    tokens: Estimate  # per second, all accounts
    batches: tuple[float, ...]  # the batch means behind it
    accounts: dict[str, float]  # tokens per second
    tokens_per_agent_hour: float
    calls: int
    calls_per_second: float
    call_seconds: float | None  # mean time of a call
    in_flight: float
    little_gap: float | None  # (L - λW) / L, the worst of the runs
    ttft_p50: float | None
    ttft_p95: float | None
    speed: float | None  # output tokens per second that a user sees, median over calls
    context: float | None  # input tokens of a call, p99
    hit: float | None  # share of input from the prefix cache
    resent: float | None  # share of input that its chain had sent before
    held: float  # tokens of context that live agents would find cached if nothing were evicted, on average
    running: float  # tokens of context of the calls in flight
    time_share: dict[str, float]  # of agents' time: model, tool, wait, join, other
    jobs_per_hour: float  # sessions done
    job_seconds: float | None  # mean, of sessions done
    jobs: int
    error_rate: float
    wasted: float  # share of tokens in calls that were not answered
    attempts: float  # per call
    agents_per_session: float | None
    limited: tuple[str, ...]  # reasons not to trust it: this machine was the limit
    simulated: bool
    busy: dict[str, float] = {}  # share of the accelerators' time by what they did, where a model of them is known
    weights: dict[str, float] = {}  # their seconds per token by account, likewise


def window_of(run: Run) -> Window:
    """What counts of a run: MSER-5 over its tokens per second, from where the run itself begins to count (its warm-up,
    its phases) as far as the schedule went; the drain never counts.
    """
    phases = [phase for phase in run.header.get("phases") or [] if phase[3]]
    begin, stop = 0.0, duration(run)
    if phases:
        begin, last = float(phases[0][1]), phases[-1][2]
        stop = stop if last is None else min(stop, float(last))
    try:
        cut = mser5(rate(run.calls, np.linspace(begin, stop, BINS + 1)))
    except CannotSay:
        return Window(begin, stop, False)
    return Window(begin + cut.cut * (stop - begin) / BINS, stop, cut.steady)


def rate(calls: Columns, edges: Array) -> Array:
    """Tokens per second between neighbouring edges, each call's where it ended."""
    mine = agents_calls(calls)
    total, _ = np.histogram(mine.end, edges, weights=(mine.input_tokens + mine.output_tokens).astype(float))
    per_second: Array = total / np.diff(edges)
    return per_second


def measure(
    runs: list[Run], names: list[str], series: str, value: float, limited: tuple[str, ...] = (), **extra: Any
) -> Point:
    """The point that runs of one load make. ValueError for runs without a call that counts."""
    windows = [window_of(run) for run in runs]
    parts = [_Part(run, window) for run, window in zip(runs, windows, strict=True)]
    seconds = sum(part.seconds for part in parts)
    calls = sum(len(part.calls) for part in parts)
    if not calls or seconds <= 0:
        raise ValueError(f"the runs at {value:g} made no call that counts; run longer")

    def mean(name: str) -> float:
        return float(sum(getattr(part, name) for part in parts) / seconds)

    means = np.concatenate([part.means for part in parts])
    agents, tokens = mean("agent_seconds"), {n: sum(p.tokens[n] for p in parts) / seconds for n in parts[0].tokens}
    jobs, job_seconds = sum(p.jobs for p in parts), sum(p.job_seconds for p in parts)
    spent = {name: sum(p.spent[name] for p in parts) for name in parts[0].spent}
    whole = sum(spent.values())
    n_calls, answered_seconds = sum(p.answered for p in parts), sum(p.call_seconds for p in parts)
    inputs = tokens["input_fresh"] + tokens["input_cached"]
    gaps = [part.little for part in parts if math.isfinite(part.little)]
    return Point(
        series=series, value=value, agents=agents, runs=tuple(names), seconds=seconds,
        warmup=max(w.start for w in windows), steady=all(w.steady for w in windows),
        tokens=_centred(means, sum(tokens.values())), batches=tuple(float(x) for x in means), accounts=tokens,
        tokens_per_agent_hour=sum(tokens.values()) / agents * 3600 if agents else 0.0, calls=calls,
        calls_per_second=n_calls / seconds, call_seconds=answered_seconds / n_calls if n_calls else None,
        in_flight=mean("flight_seconds"), little_gap=max(gaps, key=abs) if gaps else None,
        ttft_p50=_quantile(parts, "ttft", 50), ttft_p95=_quantile(parts, "ttft", 95),
        speed=_quantile(parts, "speed", 50), context=_quantile(parts, "context", 99),
        hit=tokens["input_cached"] / inputs if inputs else None,
        resent=sum(p.resent for p in parts) / (inputs * seconds) if inputs else None,
        held=mean("held"), running=mean("running"),
        time_share={name: value / whole for name, value in spent.items()} if whole else {},
        jobs_per_hour=jobs / seconds * 3600, job_seconds=job_seconds / jobs if jobs else None, jobs=jobs,
        error_rate=1 - n_calls / calls, wasted=sum(p.wasted for p in parts) / max(1.0, seconds * sum(tokens.values())),
        attempts=calls / max(1, sum(p.steps for p in parts)),
        agents_per_session=sum(p.rows for p in parts) / n_roots if (n_roots := sum(p.roots for p in parts)) else None,
        limited=limited, simulated=any((r.header.get("endpoint") or {}).get("simulated") for r in runs), **extra,
    )  # fmt: skip


class _Part:
    """Sums over one run's window."""

    def __init__(self, run: Run, window: Window) -> None:
        start, stop, _ = window
        every = agents_calls(run.calls)
        calls = every.where((every.end >= start) & (every.end < stop))
        ok = answered(calls)
        self.calls, self.seconds, self.answered = calls, stop - start, len(ok)
        self.means = self._means(run, window)
        self.tokens = {name: float(part.sum()) for name, part in accounts(calls).items()}
        self.call_seconds, self.steps = float(metrics.e2e(ok).sum()), metrics.steps_of(calls)
        self.wasted = float((calls.input_tokens + calls.output_tokens)[calls.status != "ok"].sum())
        self.flight_seconds = self.seconds * metrics.time_mean(metrics.in_flight(every), start, stop)
        self.little = metrics.littles_law(every, start, stop)["gap"]
        self.ttft, self.context = metrics.ttft(ok), ok.input_tokens.astype(float)
        with np.errstate(divide="ignore", invalid="ignore"):
            self.speed = 1 / metrics.tpot(ok)
        self.speed = self.speed[np.isfinite(self.speed)]
        self.resent = float(metrics.resent(calls).sum())
        overlap = np.maximum(0.0, np.minimum(every.end, stop) - np.maximum(every.sent, start))
        self.running = float(((every.input_tokens + every.output_tokens) * overlap).sum())
        self.held = held(every, run.sessions, start, stop)
        self._sessions(run.sessions, start, stop)

    def _sessions(self, sessions: Columns, start: float, stop: float) -> None:
        root = roots(sessions)
        alive = np.maximum(0.0, np.minimum(root.end, stop) - np.maximum(root.start, start))
        self.agent_seconds = float(alive.sum())
        done = root.where((root.outcome == "done") & (root.end >= start) & (root.end < stop))
        self.jobs, self.job_seconds = len(done), float((done.end - done.start).sum())
        length = np.maximum(root.end - root.start, 1e-9)
        named = {part: getattr(root, f"{part}_seconds") for part in ("model", "tool", "wait", "join")}
        spent = {part: float((seconds / length * alive).sum()) for part, seconds in named.items()}
        self.spent = spent | {"other": max(0.0, self.agent_seconds - sum(spent.values()))}
        seen = sessions.where((sessions.start < stop) & (sessions.end >= start))
        self.rows, self.roots = len(seen), len(roots(seen))

    def _means(self, run: Run, window: Window) -> Array:
        count = SERIES_BATCHES if self.seconds > 0 else 0
        return rate(run.calls, np.linspace(window.start, window.stop, count + 1)) if count else np.empty(0)


def held(calls: Columns, sessions: Columns, start: float, stop: float) -> float:
    """Token-seconds of context that agents would find in a cache that evicts nothing, between two instants: from each
    call's start to the next call of its chain, or to its agent's end, what the call sent and was answered.
    """
    if not len(calls):
        return 0.0
    key = np.array(
        [f"{s}/{a}" for s, a in zip(calls.session.tolist(), calls.agent.tolist(), strict=True)], dtype=object
    )
    ends = dict(
        zip(zip(sessions.session.tolist(), sessions.agent.tolist(), strict=True), sessions.end.tolist(), strict=True)
    )
    order = np.lexsort((calls.sent, key.astype(str)))
    sent, name = calls.sent[order], key[order]
    last = np.array([ends.get(k, e) for k, e in zip(
        zip(calls.session[order].tolist(), calls.agent[order].tolist(), strict=True), calls.end[order].tolist(),
        strict=True)])  # fmt: skip
    until = last.copy()
    same = name[1:] == name[:-1]
    until[:-1][same] = sent[1:][same]
    kept = np.maximum(0.0, np.minimum(until, stop) - np.maximum(sent, start))
    return float(((calls.input_tokens + calls.output_tokens)[order] * kept).sum())


def _centred(means: Array, value: float) -> Estimate:
    """The interval of the batch means about the mean of the whole."""
    pairs = batches(means, len(means) // 2)  # neighbours together: longer batches remember less
    found = t_interval(pairs)
    return Estimate(value, max(0.0, value + found.low - found.value), value + found.high - found.value)


def _quantile(parts: list[_Part], name: str, level: float) -> float | None:
    values = np.concatenate([getattr(part, name) for part in parts])
    values = values[~np.isnan(values)]
    return float(np.percentile(values, level)) if len(values) else None


assert BINS >= BATCH * FEWEST_BATCHES
