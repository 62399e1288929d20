"""What the servers said of themselves, beside what the agents saw of them: levels, increases, and the ledger held
against the servers' own counters."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from collectors import metrics
from collectors.load import Array, Columns, Run
from collectors.vocabulary import SOURCES, WORDS

FRESH = 3.0
"""Readings that one stands for: one or two in a row may fail."""

GUESS = 1.1
"""How far our own count of a call may be below the server's: within a tenth, nobody else is suspected."""

COUNTED = {"prompt_tokens": "input", "cached_tokens": "cached input", "generation_tokens": "output"}
"""Counters that the ledger is held against, and what the ledger calls them."""


class Reading(NamedTuple):
    """What one series of one page said of one word, in time."""

    target: str
    times: Array
    values: Array


def readings(server: Columns, who: str, word: str) -> list[Reading]:
    """Every series in which that server said that word."""
    mine = server.where((server.server == who) & (server.name == word))
    keys = list(zip(mine.target.tolist(), mine.series.tolist(), strict=True))
    found = []
    for key in sorted(set(keys)):
        rows = np.array([k == key for k in keys])
        order = np.argsort(mine.time[rows], kind="stable")
        found.append(Reading(key[0], mine.time[rows][order], mine.value[rows][order]))
    return found


def rises(values: Array) -> Array:
    """How much a counter rose at each reading since the one before, 0 at the first.

    One that fell was reset, and counts from zero again, as in Prometheus' `increase`.
    """
    steps = np.diff(values, prepend=values[:1])
    return np.where(steps < 0, values, steps)


def resets(found: list[Reading]) -> int:
    """How often a counter fell."""
    return sum(int((np.diff(reading.values) < 0).sum()) for reading in found)


def increase(found: list[Reading]) -> float:
    """How much counters rose in all, from the first reading to the last. NaN where there is none."""
    return float(sum(rises(reading.values).sum() for reading in found)) if found else math.nan


def level(found: list[Reading], at: Array, mean: bool = False) -> Array:
    """The sum over series (or their mean) at each instant, by each one's last reading. NaN where none is fresh."""
    if not found:
        return np.full(len(at), np.nan)
    rows = []
    for _, times, values in found:
        last = np.searchsorted(times, at, side="right") - 1
        period = max(1.0, float(np.median(np.diff(times)))) if len(times) > 1 else 1.0
        old = (last < 0) | (at - times[np.maximum(last, 0)] > FRESH * period)
        rows.append(np.where(old, np.nan, values[np.maximum(last, 0)]))
    stack = np.array(rows)
    known = (~np.isnan(stack)).sum(axis=0)
    total = np.nansum(stack, axis=0)
    return np.where(known > 0, total / np.maximum(known, 1) if mean else total, np.nan)


def rate(found: list[Reading], edges: Array) -> Array:
    """Rise per second between neighbouring edges, evenly spread between two readings. NaN before and after them."""
    if not found:
        return np.full(len(edges) - 1, np.nan)
    risen = sum(np.interp(edges, times, np.cumsum(rises(values))) for _, times, values in found)
    begin, end = min(reading.times[0] for reading in found), max(reading.times[-1] for reading in found)
    outside = (edges[1:] <= begin) | (edges[:-1] >= end)
    return np.where(outside, np.nan, np.diff(risen) / np.diff(edges))


def speakers(server: Columns) -> list[str]:
    """The servers that said anything, those that do the work before gateways."""
    heard = set(server.server.tolist())
    return [who for who in dict.fromkeys(source.server for source in SOURCES) if who in heard]


def engine(server: Columns) -> str | None:
    """The server that does the work, whose figures stand beside the agents'; None where none said how much runs."""
    return next((who for who in speakers(server) if readings(server, who, "running")), None)


def summary(run: Run, seconds: float) -> dict[str, Any] | None:
    """The servers' part of summary.json; None where nothing was read."""
    server = run.server
    who = engine(server)
    if not len(server):
        return None
    at = np.unique(np.clip(server.time[(server.time >= 0) & (server.time <= seconds)], 0.0, seconds))
    found: dict[str, Any] = {"engine": who, "pages": pages(run), "resets": 0}
    for word, speaker in (
        ("running", who), ("waiting", who), ("kv_usage", who), ("gpu_usage", "dcgm"), ("gpu_memory", "dcgm"),
    ):  # fmt: skip
        values = level(readings(server, speaker or "", word), at, WORDS[word].mean)
        values = values[~np.isnan(values)]
        known = values.size > 0
        found[word] = {"mean": float(values.mean()), "peak": float(values.max())} if known else None
    found["preemptions"] = increase(readings(server, who or "", "preemptions"))
    found["resets"] = sum(
        resets(readings(server, name, word)) for name in speakers(server) for word in WORDS if WORDS[word].counter
    )
    hits, queries = (increase(readings(server, who or "", word)) for word in ("prefix_hits", "prefix_queries"))
    calls = metrics.agents_calls(run.calls)
    found["hit_rate"] = {
        "server": hits / queries if queries else math.nan,
        "calls": metrics.prefix_hit_rate(metrics.answered(calls)),
        "ideal": metrics.resent_share(calls),
    }
    found["energy"] = energy(run, seconds)
    found["ledger"] = list(reconciled(run))
    return found


def pages(run: Run) -> list[dict[str, Any]]:
    """The pages that were read, as the header has them; as the records have them where the run was cut off."""
    told = run.header.get("pages")
    if told is not None:
        return list(told)
    server = run.server
    rows = []
    for target in metrics.kinds(server.target):
        mine = server.where(server.target == target)
        up = mine.value[mine.name == "up"]
        read = int(up.sum())
        servers = [name for name in metrics.kinds(mine.server) if name]
        rows.append({"url": target, "servers": servers, "read": read, "failed": len(up) - read, "error": ""})
    return rows


def energy(run: Run, seconds: float) -> dict[str, Any] | None:
    """GPUs, joules, and tokens for each; None where nobody knows how many there are or what they take.

    Joules are of the energy counters; where there are none, power times time between readings (trapezoids); where
    there are none of these either, the power that the spec says the cluster takes, times the run.
    """
    spec = run.header.get("spec") or {}
    counters, gauges = (readings(run.server, "dcgm", word) for word in ("energy", "power"))
    gpus, kw = len(counters or gauges) or spec.get("gpus"), spec.get("power_kw")
    if gpus is None and kw is None:
        return None
    watched, joules, source = seconds, math.nan, None
    if counters or gauges:
        watched = max(float(np.ptp(reading.times)) for reading in counters or gauges)
        joules = increase(counters) if counters else sum(float(np.trapezoid(r.values, r.times)) for r in gauges)
        source = "counters" if counters else "power"
    elif kw is not None:
        joules, source = kw * 1000 * seconds, "spec"
    told = run.calls.where(run.calls.usage == "server")
    inputs, outputs = float(told.input_tokens.sum()), float(told.output_tokens.sum())
    return {
        "gpus": gpus,
        "source": source,
        "joules": joules,
        "mean_watts": joules / watched if watched else math.nan,
        "tokens_per_joule": (inputs + outputs) / joules if joules else math.nan,
        "output_tokens_per_joule": outputs / joules if joules else math.nan,
        "output_tokens_per_second_per_gpu": outputs / seconds / gpus if seconds and gpus else math.nan,
    }


def reconciled(run: Run) -> Iterator[dict[str, Any]]:
    """The ledger against each server's counters, an account a row, with what may explain a difference.

    The ledger's side is what the server itself told with each answer: its calls with `usage` of their own,
    calibration included. Tokens of other calls are known to the server alone.
    """
    told = run.calls.where(run.calls.usage == "server")
    sums = {
        "prompt_tokens": int(told.input_tokens.sum()),
        "cached_tokens": int(told.cached_tokens.sum()),
        "generation_tokens": int(told.output_tokens.sum()),
    }
    for who in speakers(run.server):
        for word, account in COUNTED.items():
            found = readings(run.server, who, word)
            if not found:
                continue
            counted = round(increase(found))
            difference = counted - sums[word]
            reasons = list(causes(run, found, word, difference))
            yield {
                "server": who,
                "account": account,
                "counted": counted,
                "ledger": sums[word],
                "difference": difference,
                "reasons": reasons,
                "says": said(difference, reasons),
            }


def said(difference: int, reasons: list[str]) -> str:
    """A difference in words."""
    if difference == 0:
        return "equal to the token"
    return f"the server counted {abs(difference):,} {'more' if difference > 0 else 'fewer'}: {'; '.join(reasons)}"


def causes(run: Run, found: list[Reading], word: str, difference: int) -> Iterator[str]:
    """What is known that may have made a difference; nothing for none."""
    untold = run.calls.where(run.calls.usage != "server")
    side = "output" if word == "generation_tokens" else "input"
    most = np.fmax(getattr(untold, f"{side}_tokens"), getattr(untold, f"wanted_{side}_tokens"))  # NaN: nothing wanted
    about = int(most.sum())
    if difference > 0:
        if len(untold):
            what = f"{len(untold):,} calls of this run whose usage never came (cancelled, failed"
            yield f"{what})" if word == "cached_tokens" else f"{what}; by our own count up to {about:,} tokens)"
        if difference > about * GUESS:
            yield "other clients"
    elif difference < 0:
        if fallen := resets(found):
            yield f"{fallen:,} restarts: what was counted after the last reading before them is lost"
        if failed := sum(page["failed"] for page in pages(run) if page["url"] in {r.target for r in found}):
            yield f"{failed:,} readings that failed"
        urls = (run.header.get("spec") or {}).get("urls") or {}
        if len({reading.target for reading in found}) < len(urls):
            yield "endpoints whose page was not read"
        yield "counters that were still late, or a page that does not count all of this run's calls"
