"""summary.json: every number of the report, nested. Seconds and tokens unless a name says so; null is "no data"."""

import math
from typing import Any

import numpy as np

from collectors import metrics, server
from collectors.gate import judge_run
from collectors.habits import habits
from collectors.health import judge
from collectors.ledger import ledger
from collectors.load import Array, Columns, Run
from collectors.metrics import agents_calls, answered, is_in, kinds, percentiles, roots

BASELINE = "chat"
"""The archetype that the others are compared with: a person who chats."""

STEP_BINS = (0, 1, 2, 3, 5, 10, 20, 50, 100)
"""First step of each bin in which TTFT by depth is given; the last is open."""

WINDOWS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0)
"""Seconds over which arrivals are counted for the index of dispersion."""


PARTS = {
    "verdict": "whether the figures can be trusted (`trustworthy`), why not (`reasons`), what else to know (`notes`)",
    "slo": "promises, judged: `verdict`, `reasons` for doubt, and `checks`, one each; null where none was made",
    "run": "what was asked for and what ran: sessions, calls, agents and calls in flight, phases, how it ended",
    "replay": "the trace that was replayed, and what was left out or shortened; null where none was",
    "endpoint": "what answered, and whether it was simulated",
    "tokens": "the ledger: every token by account and by use",
    "serving": "latencies of answered calls of counted phases, by archetype and by step, too; rates; the prefix cache",
    "jobs": "sessions of counted phases: how they ended, how long they took, and where their time went",
    "demand": "what sessions asked for, by archetype, too: tokens per session, agent-hour and human request",
    "habits": "what agents did beside working: they gave up, forgot, were refused, started others",
    "drift": "how far the server's token counts were from what was wanted",
    "server": "what the servers said of themselves, beside the ledger; null where none did",
    "errors": "calls that were not answered: of each status how many, and an example of what was said",
    "tenants": "load and service of each tenant; empty where none is named",
    "endpoints": "the same of each endpoint, where there are several",
    "burstiness": "index of dispersion of calls and sessions by window, and the busiest second over the mean one",
    "health": "what the run saw of itself, as in run.json",
    "intervals": "every figure that runs are compared by: `value`, and `low` and `high` of its 95 % interval",
}
"""What summary.json holds (`intervals` is put in with the report)."""


def summarise(run: Run) -> dict[str, Any]:
    """The summary of a run, ready for JSON."""
    calls, seconds = agents_calls(run.calls), duration(run)
    timed, started = calls.where(counted(run, calls.due)), run.sessions.where(counted(run, run.sessions.start))
    measured = counted_seconds(run, seconds)
    health = health_of(run)
    verdict = judge(run.calls, run.sessions, health)
    summary = {
        "verdict": verdict._asdict(),
        "slo": judge_run(run, verdict),
        "run": _run(run, calls, seconds),
        "replay": _replay(run),
        "endpoint": _endpoint(run),
        "tokens": ledger(run.calls, run.sessions),
        "serving": {**_serving(timed, measured), **_sketched(run, timed)},
        "jobs": _jobs(started, measured),
        "demand": _demand(calls, run.sessions),
        "habits": habits(run),
        "drift": {"input": drift(calls, "input"), "output": drift(calls, "output")},
        "server": server.summary(run, seconds),
        "errors": metrics.errors(calls),
        "tenants": by_name(calls, calls.tenant),
        "endpoints": by_name(calls, calls.endpoint),
        "burstiness": {"calls": _bursts(calls.sent, seconds), "sessions": _bursts(roots(run.sessions).start, seconds)},
        "health": health,
    }
    cleaned: dict[str, Any] = _clean(summary)
    return cleaned


def counted(run: Run, instants: Array) -> Array:
    """Whether each instant lies in a phase that is counted: a call by its `due`, a session by its start."""
    phases = run.header.get("phases")
    if not phases:
        return np.ones(len(instants), bool)
    found = np.zeros(len(instants), bool)
    for _, start, stop, is_counted in phases:
        if is_counted:
            found |= (instants >= start) & (instants < (math.inf if stop is None else stop))
    return found


def counted_seconds(run: Run, seconds: float) -> float:
    """How much of the run was counted."""
    phases = run.header.get("phases") or [["measurement", 0.0, None, True]]
    ends = [(start, seconds if stop is None else min(stop, seconds)) for _, start, stop, yes in phases if yes]
    return float(sum(max(0.0, stop - start) for start, stop in ends))


def duration(run: Run) -> float:
    """Length of the run in seconds: as measured, else until the last thing recorded."""
    measured = run.header.get("duration")
    if measured:
        return float(measured)
    ends = [c.end.max() for c in (agents_calls(run.calls), run.tools, run.sessions) if len(c)]
    return float(max(ends, default=0.0))


def health_of(run: Run) -> dict[str, Any]:
    """What the runner saw of itself, with what the header says beside it: a run that wrote no duration was cut off."""
    asked = [(run.header.get("profile") or {}).get("agents"), (run.header.get("spec") or {}).get("sessions")]
    least = None if asked[0] is None else min(n for n in asked if n is not None)  # fewer sessions than agents
    seen = run.header.get("health") or {}
    missing = run.header.get("unrecorded_calls", 0)
    steps, late = (server.increase(server.readings(run.server, "box", word)) for word in ("steps", "late_steps"))
    known = {"agents_asked": least, "interrupted": "duration" not in run.header, "calls_unrecorded": missing}
    return known | {"late_steps": late / steps if steps > 0 else None} | seen


def _run(run: Run, calls: Columns, seconds: float) -> dict[str, Any]:
    root, health, profile = roots(run.sessions), health_of(run), run.header.get("profile") or {}
    flying, living = metrics.in_flight(calls), metrics.alive(root)
    return {
        "started": run.header.get("started"),
        "agentload": run.header.get("agentload"),
        "seed": run.header.get("seed"),
        "seconds": seconds,
        "agents_asked": health["agents_asked"],
        "agents_peak": metrics.peak(living),
        "agents_mean": metrics.time_mean(living, 0.0, seconds),
        "sub_agents_peak": metrics.peak(metrics.alive(run.sessions.where(run.sessions.agent != ""))),
        "sessions_per_second_asked": profile.get("rate"),
        "sessions_offered": health.get("sessions_offered"),
        "sessions": len(root),
        "phases": run.header.get("phases"),
        "calls_counted": int(counted(run, calls.due).sum()),
        "sub_agents": len(run.sessions) - len(root),
        "calls": len(calls),
        "calls_unrecorded": health["calls_unrecorded"],
        "tool_calls": len(run.tools),
        "calls_in_flight_peak": metrics.peak(flying),
        "calls_in_flight_mean": metrics.time_mean(flying, 0.0, seconds),
        "littles_law": metrics.littles_law(calls, 0.0, seconds),
        "interrupted": bool(health["interrupted"]),
        "stop_reason": health.get("stop_reason"),
    }


def _replay(run: Run) -> dict[str, Any] | None:
    """The trace that was replayed, and how many sessions ended because the context did; None without a trace."""
    said = run.header.get("replay")
    return said and {**said, "ended_by_context": int((roots(run.sessions).outcome == "context_limit").sum())}


def _endpoint(run: Run) -> dict[str, Any]:
    endpoint = run.header.get("endpoint") or {}
    keys = ("url", "model", "client", "server", "context_length")
    timing = (endpoint.get("features") or {}).get("timing", "")
    return {
        **{key: endpoint.get(key) for key in keys}, "simulated": bool(endpoint.get("simulated")), "timing": timing
    }  # fmt: skip


def _serving(calls: Columns, seconds: float) -> dict[str, Any]:
    ok = answered(calls)
    names = kinds(ok.archetype)
    return {
        **_latencies(ok, len(calls) - len(ok)),
        "send_lag": percentiles(metrics.send_lag(calls)),
        "connect": percentiles(calls.connect[calls.connect > 0]),
        "calls_per_second": _per(len(ok), seconds),
        "input_tokens_per_second": _per(ok.input_tokens.sum(), seconds),
        "output_tokens_per_second": _per(ok.output_tokens.sum(), seconds),
        "prefix_hit_rate": metrics.prefix_hit_rate(ok),
        "tokens_per_chunk": _per(ok.output_tokens.sum(), float(ok.chunks.sum())),
        "silent_resends": int(calls.resent.sum()),
        "ttft_by_step": by_step(metrics.ttft(ok), ok.step),
        "archetypes": {name: _latencies(ok.where(ok.archetype == name), 0) for name in names},
    }


def _sketched(run: Run, calls: Columns) -> dict[str, Any]:
    """ITL from the run's own sketch (within 1 %, all phases), where the gaps themselves were not kept."""
    sketch = run.header.get("itl") or {}
    if len(calls.itl.values) or not sketch.get("count"):
        return {}
    return {"itl": {**percentiles(calls.itl.values), **sketch}}


def _latencies(ok: Columns, failed: int) -> dict[str, Any]:
    measures = (metrics.ttft, metrics.itl, metrics.tpot, metrics.e2e, metrics.response_time)
    return {measure.__name__: percentiles(measure(ok), failed) for measure in measures}


def by_name(calls: Columns, names: Array) -> dict[str, Any]:
    """Load and service of each tenant, or each endpoint; nothing where none has a name."""
    rows = {}
    for name in sorted(kinds(names) if set(kinds(names)) != {""} else []):
        mine = calls.where(names == name)
        ok, refused = answered(mine), is_in(mine.status, ("http_429", "http_503"))
        rows[name] = {
            "calls": len(mine),
            "sessions": len(np.unique(mine.session)),
            "input_tokens": int(mine.input_tokens.sum()),
            "output_tokens": int(mine.output_tokens.sum()),
            "attempts_per_call": metrics.retry_amplification(mine),
            "refused": int(refused.sum()),
            "failed": len(mine) - len(ok),
            "throttled_seconds": percentiles(mine.throttled),
            "ttft": percentiles(metrics.ttft(ok), len(mine) - len(ok)),
        }
    return rows


def by_step(values: Array, step: Array) -> list[dict[str, Any]]:
    """Percentiles of `values` by depth in the chain, in `STEP_BINS`."""
    rows = []
    for begin, end in zip(STEP_BINS, (*STEP_BINS[1:], math.inf), strict=True):
        inside = values[(step >= begin) & (step < end)]
        if inside.size:
            rows.append({"step_from": begin, "step_to": end - 1, **percentiles(inside)})
    return rows


def _jobs(sessions: Columns, seconds: float) -> dict[str, Any]:
    root = roots(sessions)
    named = {name: root.where(root.archetype == name) for name in kinds(root.archetype)}
    return {**_job(root, seconds), "archetypes": {name: _job(mine, seconds) for name, mine in named.items()}}


def _job(root: Columns, seconds: float) -> dict[str, Any]:
    """Of sessions proper: how they ended, how long they took, and where their time went."""
    done, hours = root.where(root.outcome == "done"), metrics.agent_hours(root)
    spent = {part: float(getattr(root, f"{part}_seconds").sum()) for part in ("model", "tool", "wait", "join")}
    spent["other"] = max(0.0, hours * 3600 - sum(spent.values()))
    whole = sum(spent.values())
    return {
        "sessions": len(root),
        "outcomes": {outcome: int((root.outcome == outcome).sum()) for outcome in kinds(root.outcome)},
        "agent_hours": hours,
        "session": percentiles(done.end - done.start, len(root) - len(done)),
        "done_per_hour": _per(len(done) * 3600, seconds),
        "done_per_agent_hour": _per(len(done), hours),
        "time_share": {part: _per(value, whole) for part, value in spent.items()},
    }


def _demand(calls: Columns, sessions: Columns) -> dict[str, Any]:
    root = roots(sessions)
    of_call, of_session = metrics.session_archetype(calls, sessions), metrics.session_archetype(sessions, sessions)
    table = {
        name: demand(calls.where(of_call == name), sessions.where(of_session == name)) for name in kinds(root.archetype)
    }
    base = table.get(BASELINE, {})
    for row in table.values():
        for figure in ("tokens_per_intent", "tokens_per_agent_hour"):
            row[f"{figure}_over_{BASELINE}"] = _per(row[figure], base.get(figure, math.nan))
    return {**demand(calls, sessions), "baseline": BASELINE if base else None, "archetypes": table}


def demand(calls: Columns, sessions: Columns) -> dict[str, Any]:
    """What sessions and their sub-agents asked of the endpoint."""
    root, tokens = roots(sessions), int((calls.input_tokens + calls.output_tokens).sum())
    return {
        "sessions": len(root),
        "done": int((root.outcome == "done").sum()),
        "ended": len(metrics.ended(sessions)),
        "calls": len(calls),
        "intents": int(root.intents.sum()),
        "input_tokens": int(calls.input_tokens.sum()),
        "output_tokens": int(calls.output_tokens.sum()),
        "input_per_output": _per(calls.input_tokens.sum(), calls.output_tokens.sum()),
        "input_per_call": percentiles(calls.input_tokens.astype(float)),
        "output_per_call": percentiles(calls.output_tokens.astype(float)),
        "calls_per_session": _per(len(calls), len(root)),
        "tool_calls_per_step": _per(calls.tool_calls.sum(), metrics.steps_of(calls)),
        "tokens_per_session": _per(tokens, len(root)),
        "tokens_per_agent_hour": metrics.tokens_per_agent_hour(calls, sessions),
        "tokens_per_intent": metrics.tokens_per_intent(calls, sessions),
        "calls_in_flight_per_agent": metrics.in_flight_per_agent(calls, sessions),
        "prefix_hit_rate": metrics.prefix_hit_rate(calls),
        "resent_share": metrics.resent_share(calls),
        "attempts_per_call": metrics.retry_amplification(calls),
        "children_per_agent": _per(len(sessions) - len(root), len(sessions)),
        "compactions": int(sessions.compactions.sum()),
    }


def drift(calls: Columns, side: str) -> dict[str, Any]:
    """How far the server's count was from the tokens wanted, relative to them, over calls that it counted."""
    wanted, counted = getattr(calls, f"wanted_{side}_tokens"), getattr(calls, f"{side}_tokens")
    rows = (calls.status == "ok") & (calls.usage == "server") & (wanted > 0)
    error = counted[rows] / wanted[rows] - 1
    size = percentiles(np.abs(error))
    return {
        "calls": int(rows.sum()),
        "wanted_tokens": int(wanted[rows].sum()),
        "counted_tokens": int(counted[rows].sum()),
        "median_relative": float(np.median(error)) if error.size else math.nan,
        "median_absolute_relative": size["p50"],
        "p95_absolute_relative": size["p95"],
    }


def _bursts(times: Array, seconds: float) -> dict[str, Any]:
    index = [{"window": w, "index": metrics.dispersion(times, w, 0.0, seconds)} for w in WINDOWS]
    return {"dispersion": index, "peak_to_mean_1s": metrics.peak_to_mean(times, 1.0, 0.0, seconds)}


def _per(part: float, whole: float) -> float:
    return float(part / whole) if whole else math.nan


def _clean(value: Any) -> Any:
    """The same without what JSON cannot say: NaN and infinity become None, numpy numbers become Python's."""
    if isinstance(value, dict):
        return {str(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
