"""The token ledger: every token in exactly one account, and either useful, wasted, cut off or calibration."""

from typing import Any

import numpy as np

from collectors.load import Array, Columns
from collectors.metrics import ACCOUNTS, accounts, is_in, kinds
from collectors.records import CALIBRATION

LOST = ("failed", "broken", "abandoned", "cancelled")
"""Outcomes of agents whose tokens bought nothing. "unfinished" is not one: the run ended before one could say."""


def ledger(calls: Columns, sessions: Columns) -> dict[str, Any]:
    """Token counts by account and use, by archetype, and by who counted. Sums equal the columns' sums exactly."""
    parts = accounts(calls)
    calibration = calls.session == CALIBRATION
    cut_off = (calls.status == "cancelled") & in_session(calls, sessions, ("unfinished",)) & ~calibration
    failed_call = (calls.status != "ok") & ~cut_off & ~calibration
    failed_session = in_session(calls, sessions, LOST) & ~failed_call & ~cut_off & ~calibration
    useful = ~(calibration | cut_off | failed_call | failed_session)
    estimated = calls.usage == "estimated"
    total = _entry(parts, np.ones(len(calls), bool))
    mine = {name: (calls.archetype == name) & ~calibration for name in kinds(calls.archetype[~calibration])}
    return {
        **total,
        "uses": {
            "useful": _entry(parts, useful),
            "wasted": _entry(parts, failed_call | failed_session),
            "cut_off": _entry(parts, cut_off),
            "calibration": _entry(parts, calibration),
        },
        "wasted_by": {
            "failed_calls": _entry(parts, failed_call)["total"],
            "failed_sessions": _entry(parts, failed_session)["total"],
        },
        "archetypes": {
            name: {**_entry(parts, m), "wasted": _entry(parts, m & (failed_call | failed_session))["total"]}
            for name, m in mine.items()
        },
        "counted_by": {
            "server": _entry(parts, ~estimated)["total"],
            "estimated": _entry(parts, estimated)["total"],
        },
    }


def in_session(calls: Columns, sessions: Columns, outcomes: tuple[str, ...]) -> Array:
    """Whether each call was made by an agent with one of these outcomes, or below one."""
    gone = sessions.where(is_in(sessions.outcome, outcomes))
    whole = np.isin(calls.session, gone.session[gone.agent == ""])
    branches: dict[int, list[str]] = {}
    for session, agent in zip(gone.session.tolist(), gone.agent.tolist(), strict=True):
        if agent:
            branches.setdefault(session, []).append(agent)
    for i in np.flatnonzero(np.isin(calls.session, list(branches))).tolist():
        path = calls.agent[i]
        whole[i] |= any(path == lost or path.startswith(f"{lost}.") for lost in branches[calls.session[i]])
    return whole


def _entry(parts: dict[str, Array], rows: Array) -> dict[str, int]:
    counts = {name: int(parts[name][rows].sum()) for name in ACCOUNTS}
    n_in, n_out = counts["input_fresh"] + counts["input_cached"], sum(counts[name] for name in ACCOUNTS[2:])
    return {**counts, "input": n_in, "output": n_out, "total": n_in + n_out}
