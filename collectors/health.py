"""The verdict: was this run limited by what it measured, or by the machine that measured it?"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from collectors.load import Columns
from collectors.metrics import agents_calls, alive, answered, errors, peak, roots, send_lag


class Limits(NamedTuple):
    """What a run may show before its figures are not to be trusted."""

    send_lag: float = (
        0.010  # s, p99; a tenth of a good TTFT (100 ms), so lateness stays out of every figure's first digit
    )
    loop_lag: float = 0.010  # s, p99; every timestamp of a read waits at least as long as the loop does
    cpu_share: float = 0.90  # of one core; the loop is one thread, and queues grow without bound towards 1
    machine_cpu: float = 0.95  # of all cores; above it the kernel decides when we run, whatever our own share
    late_steps: float = 0.01  # of a simulated cluster's: beyond it, it is its machine that is measured
    population: float = 0.95  # of the agents asked for, at the peak
    arrivals: float = 0.95  # of the sessions offered


LIMITS = Limits()


class Verdict(NamedTuple):
    """Whether the figures may be trusted, why not, and what else a reader must know."""

    trustworthy: bool
    reasons: list[str]
    notes: list[str]


def judge(calls: Columns, sessions: Columns, health: Mapping[str, Any], limits: Limits = LIMITS) -> Verdict:
    """The verdict on a run from its records and from what the runner saw of itself (`health`, every key optional)."""
    reasons = [*_slow(calls, health, limits), *_short(sessions, health, limits)]
    made, ok = agents_calls(calls), answered(calls)
    if not len(ok):
        reasons.append("no call was answered, so there is nothing to measure" if len(made) else "no call was made")
    return Verdict(not reasons, reasons, _notes(made, ok, sessions, health))


def _slow(calls: Columns, health: Mapping[str, Any], limits: Limits) -> list[str]:
    """Signs that this machine was too slow."""
    lag = send_lag(agents_calls(calls))
    lag = lag[~np.isnan(lag)]
    p99 = float(np.percentile(lag, 99)) if lag.size else 0.0
    names = ("loop_lag_p99", "cpu_share", "machine_cpu", "late_steps")
    loop, cpu, machine, late = (_figure(health, key) for key in names)
    found = [
        (p99 > limits.send_lag, f"p99 send lag {ms(p99)} is above {ms(limits.send_lag)}"),
        (loop > limits.loop_lag, f"p99 event-loop lag {ms(loop)} is above {ms(limits.loop_lag)}"),
        (cpu > limits.cpu_share, f"the sender used {cpu:.0%} of a core, above {limits.cpu_share:.0%}"),
        (machine > limits.machine_cpu, f"all cores were {machine:.0%} busy, above {limits.machine_cpu:.0%}"),
        (late > limits.late_steps, f"the simulated cluster fell behind: {late:.0%} of its steps were written late"),
    ]
    said = [text for broken, text in found if broken]
    if not said:
        return []
    full = machine > limits.machine_cpu or late > limits.late_steps
    advice = (
        "stop what else runs here, or use fewer agents" if full else f"use --workers {_workers(cpu)} or fewer agents"
    )
    return [f"limited by this machine: {'; '.join(said)}; {advice}"]


def _short(sessions: Columns, health: Mapping[str, Any], limits: Limits) -> list[str]:
    """Signs that less was done than was asked for."""
    said = []
    asked, most = _figure(health, "agents_asked"), peak(alive(roots(sessions)))
    ended_early = bool(health.get("interrupted")) or str(health.get("stop_reason")).startswith("max_")
    if not ended_early and most < asked * limits.population:
        said.append(f"{asked:.0f} agents were asked for, but at most {most} were alive at once")
    offered, started = _figure(health, "sessions_offered"), _figure(health, "sessions_started")
    if started < offered * limits.arrivals:
        said.append(f"only {started:.0f} of the {offered:.0f} sessions that were due could be started")
    return said


def _notes(made: Columns, ok: Columns, sessions: Columns, health: Mapping[str, Any]) -> list[str]:
    said = []
    if health.get("interrupted"):
        said.append("the run was interrupted: its figures are of what was recorded until then")
    if missing := int(health.get("calls_unrecorded") or 0):
        said.append(f"{missing:,} calls were begun and have no record: their process was killed")
    if (shards := int(health.get("shards") or 1)) > 1:
        said.append(
            f"simulated as {shards} independent clusters of {health['shard_replicas']} replicas: a router chose among "
            "those of its own, so load was evened out and prefixes were shared within a cluster only"
        )
    if len(made) > len(ok):
        why = ", ".join(f"{error['count']:,} {status}" for status, error in errors(made).items())
        lost = f"{len(made) - len(ok):,} of {len(made):,} calls were not answered ({why})"
        said.append(f"{lost}; latencies are those of the rest")
    if 0 < len(ok) < 100:
        said.append(f"only {len(ok)} calls were answered: a p99 of so few is their slowest")
    if guessed := int((made.usage == "estimated").sum()):
        said.append(f"tokens of {guessed:,} of {len(made):,} calls are estimates: the server sent no usage for them")
    cut = int((roots(sessions).outcome == "unfinished").sum())
    if cut:
        said.append(f"{cut:,} of {len(roots(sessions)):,} sessions were unfinished when the run ended")
    return said


def _figure(health: Mapping[str, Any], key: str) -> float:
    value = health.get(key)
    return float("nan") if value is None else float(value)


def _workers(cpu_share: float) -> int:
    """Enough processes to keep each at half a core."""
    return 4 if np.isnan(cpu_share) else max(2, int(np.ceil(cpu_share / 0.5)))


def ms(seconds: float) -> str:
    """Seconds as milliseconds, for people: three digits."""
    x = round(seconds * 1000, 6)
    return f"{x:,.0f} ms" if x >= 100 or x % 1 == 0 else f"{x:#.3g} ms"
