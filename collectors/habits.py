"""What agents did beside calling: the sub-agents they started, what they tried again, and what went wrong in them."""

import math
import tomllib
from typing import Any

import numpy as np

from collectors import metrics
from collectors.load import Array, Columns, Run
from collectors.metrics import agents_calls, is_in, kinds, percentiles, roots

FEWEST = 10
"""Sessions below which no interval is given."""
STORM = 10.0
"""Seconds of the windows in which attempts per call are looked at."""
CALLS = 10
"""Calls that such a window must have had."""
FAULTS = 20
"""Errors of the user's own agents that are kept, the most frequent first."""


def habits(run: Run) -> dict[str, Any]:
    """The figures of `summary.json` under "habits"."""
    calls, sessions = agents_calls(run.calls), run.sessions
    return {
        "sub_agents": sub_agents(sessions),
        "retries": retries(calls),
        "patience": patience(calls, sessions),
        "mistakes": {kind: int((run.tools.kind == kind).sum()) for kind in ("unknown", "malformed")},
        **{what: int(getattr(sessions, what).sum()) for what in ("compactions", "resets", "rewrites", "missed")},
        "faults": faults(sessions),
        "caps": caps(run.header),
    }


def sub_agents(sessions: Columns) -> dict[str, Any]:
    """How agents multiply, in sessions that came to their own end: children per agent (R), agents per session (their
    total progeny, the root included), and how many there were at each depth."""
    whole = sessions.where(np.isin(sessions.session, metrics.ended(sessions).session))
    progeny = np.bincount(np.unique(whole.session, return_inverse=True)[1]) if len(whole) else np.zeros(0)
    depth = np.array([path.count(".") + 1 if path else 0 for path in whole.agent.tolist()], dtype=np.int64)
    return {
        "started": len(sessions) - len(roots(sessions)),
        "refused": int(sessions.refused.sum()),
        "cancelled": int((sessions.where(sessions.agent != "").outcome == "cancelled").sum()),
        "reproduction": {
            **reproduction(whole),
            "archetypes": {name: reproduction(whole.where(whole.archetype == name)) for name in kinds(whole.archetype)},
        },
        "progeny": percentiles(progeny.astype(float)),
        "by_depth": np.bincount(depth).tolist(),
    }


def reproduction(agents: Columns) -> dict[str, Any]:
    """R, the mean number of sub-agents that an agent starts, with a 95 % interval.

    Agents of one session share its fate, so sessions are the sample: R is a ratio of their sums, and its variance
    n / (n - 1) Σ (children - R agents)² / (Σ agents)² over sessions (Cochran 1977, Sampling Techniques, 6.3).
    """
    code = np.unique(agents.session, return_inverse=True)[1]
    count, children = np.bincount(code), np.bincount(code, agents.children)
    n, total = len(count), count.sum()
    mean = float(children.sum() / total) if total else math.nan
    low = high = math.nan
    if n >= FEWEST:
        half = 1.96 * math.sqrt(n / (n - 1) * float(np.sum((children - mean * count) ** 2))) / total
        low, high = max(0.0, mean - half), mean + half
    return {"mean": mean, "low": low, "high": high, "agents": int(total), "sessions": n}


def retries(calls: Columns) -> dict[str, Any]:
    """How much trying again added, over the run and in its worst stretch of `STORM` seconds."""
    again = calls.attempt > 0
    windows = (calls.sent // STORM).astype(np.int64)
    worst, when = math.nan, math.nan
    if len(calls):
        first = windows.min()
        attempts, made = np.bincount(windows - first), np.bincount(windows - first, ~again)
        ratio = np.where(attempts >= CALLS, attempts / np.maximum(made, 1.0), 0.0)
        if ratio.max() > 0:
            worst, when = float(ratio.max()), float((first + ratio.argmax()) * STORM)
    return {
        "attempts_per_call": metrics.retry_amplification(calls),
        "again": int(again.sum()),
        "again_tokens": int((calls.input_tokens + calls.output_tokens)[again].sum()),
        "refused": int(is_in(calls.status, ("http_429", "http_503")).sum()),
        "worst": {"attempts_per_call": worst, "from": when, "seconds": STORM},
    }


def patience(calls: Columns, sessions: Columns) -> dict[str, int]:
    """Calls that agents hung up on, what those cost, and sessions that ended with it."""
    gone = calls.status == "gave_up"
    return {
        "gave_up": int(gone.sum()),
        "tokens": int((calls.input_tokens + calls.output_tokens)[gone].sum()),
        "abandoned": int((roots(sessions).outcome == "abandoned").sum()),
    }


def caps(header: dict[str, Any]) -> dict[str, Any]:
    """What was allowed in seconds: to tools, people and schedules of all agents, and to people by archetype. None
    where nothing was cut."""
    try:
        spec = tomllib.loads(header.get("spec_toml") or "")
    except tomllib.TOMLDecodeError:  # a header that is not ours
        spec = {}
    every, people = spec.get("longest_wait", math.inf), dict[str, float]()
    for name, kind in spec.get("archetypes", {}).items():
        think = kind.get("think_seconds", 0.0)
        high = think.get("high", math.inf) if isinstance(think, dict) else think
        if think:
            people[name] = min(high, kind.get("longest_wait", math.inf), every)
    return {"all": every, "people": people}


def faults(sessions: Columns) -> dict[str, int]:
    """What agents of the user's own failed with, and how often."""
    said: Array = sessions.error[sessions.outcome == "broken"]
    counts = {text: int((said == text).sum()) for text in kinds(said)}
    return dict(sorted(counts.items(), key=lambda item: -item[1])[:FAULTS])
