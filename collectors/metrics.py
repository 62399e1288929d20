"""Metrics: each one function over columns, its formula in plain sight. Seconds and tokens; NaN where it never happened.

Latencies are taken over calls that were answered (`answered`), never over calibration calls; `percentiles` is given
how many others there were. The words (TTFT, send lag, in flight, …) are those of docs and report.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from collectors.load import Array, Columns
from collectors.records import CALIBRATION

NEVER_SENT = ("connect_failed", "timeout_connect")
"""Statuses of calls that had no connection to be sent on: `sent` is when they gave up."""


def kinds(column: Array) -> list[str]:
    """The different values of a string column, sorted."""
    return sorted(set(column.tolist()))


def is_in(column: Array, values: Iterable[Any]) -> Array:
    """Whether each item is one of `values` (`np.isin` sorts strings, which takes a second for a million)."""
    wanted = frozenset(values)
    return np.fromiter((item in wanted for item in column.tolist()), bool, len(column))


def agents_calls(calls: Columns) -> Columns:
    """The calls that agents made: all but calibration."""
    return calls.where(calls.session != CALIBRATION)


def answered(calls: Columns) -> Columns:
    """The calls that latencies are taken over: made by an agent, with status "ok"."""
    return calls.where((calls.session != CALIBRATION) & (calls.status == "ok"))


def roots(sessions: Columns) -> Columns:
    """Sessions proper, without the rows of their sub-agents."""
    return sessions.where(sessions.agent == "")


# Latencies, in seconds, one item per call.


def ttft(calls: Columns) -> Array:
    """Time to first token: text, reasoning or tool call, from send. NaN where no token came."""
    return calls.first - calls.sent


def tpot(calls: Columns) -> Array:
    """Time per output token after the first. NaN below two tokens."""
    gaps = np.where(calls.output_tokens >= 2, calls.output_tokens - 1, np.nan)
    return (calls.last - calls.first) / gaps


def itl(calls: Columns) -> Array:
    """Every gap between output pieces of every call, where they were kept. Between tokens only if pieces are tokens."""
    return calls.itl.values


def e2e(calls: Columns) -> Array:
    """From send to the end of the answer."""
    return calls.end - calls.sent


def response_time(calls: Columns) -> Array:
    """From when the call was due: what a user waits, our own lateness included."""
    return calls.end - calls.due


def send_lag(calls: Columns) -> Array:
    """How late we sent it, opening a connection apart. Ours, not the server's. NaN where it never got so far."""
    return np.where(is_in(calls.status, NEVER_SENT), np.nan, calls.sent - calls.due - calls.connect - calls.throttled)


def percentiles(values: Array, failed: int = 0) -> dict[str, float | int]:
    """Count, mean and percentiles of what is not NaN; `failed` calls, which have no latency, are printed beside it."""
    x = values[~np.isnan(values)]
    levels = (50, 90, 95, 99)
    at = np.percentile(x, levels) if x.size else [np.nan] * len(levels)
    marks = {f"p{level}": float(value) for level, value in zip(levels, at, strict=True)}
    extremes = {"mean": float(x.mean()), "max": float(x.max())} if x.size else {"mean": np.nan, "max": np.nan}
    return {"count": int(x.size), "failed": failed, **marks, **extremes}


# How much at a time.


class Level(NamedTuple):
    """A step function: `level[i]` holds from `times[i]` to `times[i + 1]`."""

    times: Array
    level: Array


def sweep(starts: Array, ends: Array) -> Level:
    """How many intervals are open at each instant: a sweep line over their true starts and ends."""
    times = np.concatenate([starts, ends])
    order = np.lexsort((np.repeat([1, 0], [len(starts), len(ends)]), times))  # an end before a start at one instant
    steps = np.repeat([1, -1], [len(starts), len(ends)])[order]
    return Level(times[order], np.cumsum(steps))


def in_flight(calls: Columns) -> Level:
    """Model calls in flight."""
    return sweep(calls.sent, calls.end)


def alive(sessions: Columns) -> Level:
    """Agents alive, of those rows given."""
    return sweep(sessions.start, sessions.end)


def time_mean(level: Level, begin: float, end: float) -> float:
    """Mean over time of a step function that is 0 before its first step; NaN over no time."""
    if end <= begin:
        return float("nan")
    edges = np.clip(np.append(level.times, end), begin, end)
    return float(np.sum(np.diff(edges) * level.level) / (end - begin))


def peak(level: Level) -> int:
    """The highest level."""
    return int(level.level.max(initial=0))


def spread(amount: Array, begin: Array, end: Array, edges: Array) -> Array:
    """How much falls between neighbouring `edges` when each amount is spread evenly from its begin to its end; amounts
    of several kinds are the rows of a matrix.

    The integral up to t of the rates r = amount / (end - begin) is Σ r (t - begin) over those begun less
    Σ r (t - end) over those ended. What is shorter than a millisecond takes one.
    """
    end = np.maximum(end, begin + 1e-3)
    rate = amount / (end - begin)

    def risen(since: Array) -> Array:
        order = np.argsort(since)
        done = np.searchsorted(since[order], edges, side="right")
        none = np.zeros((*rate.shape[:-1], 1))
        slope, moment = (
            np.concatenate([none, np.cumsum(x[..., order], axis=-1)], axis=-1)[..., done] for x in (rate, rate * since)
        )
        integral: Array = slope * edges - moment
        return integral

    return np.maximum(np.diff(risen(begin) - risen(end)), 0.0)


def token_rate(calls: Columns, edges: Array) -> dict[str, Array]:
    """Tokens per second by account between neighbouring `edges`.

    Input is spread from send to first token (when it is read), output from first to last token (when it is made).
    """
    nothing = np.isnan(calls.first)
    first = np.where(nothing, calls.end, calls.first)
    last = np.where(np.isnan(calls.last), calls.end, calls.last)
    tokens, width = accounts(calls), np.diff(edges)

    def rates(kind: str, begin: Array, end: Array) -> dict[str, Array]:
        names = [name for name in tokens if name.startswith(kind)]
        return dict(
            zip(names, spread(np.stack([tokens[name] for name in names]), begin, end, edges) / width, strict=True)
        )

    return rates("input", calls.sent, first) | rates("output", first, last)


ACCOUNTS = ("input_fresh", "input_cached", "output_reasoning", "output_visible", "output_arguments")


def accounts(calls: Columns) -> dict[str, Array]:
    """Every token of every call in exactly one account; they sum to its input and output.

    Parts that claim more than the whole (a server's reasoning count above its output count) are cut to it.
    """
    cached = np.minimum(calls.cached_tokens, calls.input_tokens)
    reasoning = np.minimum(calls.reasoning_tokens, calls.output_tokens)
    arguments = np.minimum(calls.argument_tokens, calls.output_tokens - reasoning)
    visible = calls.output_tokens - reasoning - arguments
    return dict(zip(ACCOUNTS, (calls.input_tokens - cached, cached, reasoning, visible, arguments), strict=True))


def goodput(calls: Columns, limits: Mapping[str, float], seconds: float) -> float:
    """Answered calls per second that keep every limit, for example {"ttft": 1.0, "tpot": 0.05}.

    A call with fewer than two tokens has no TPOT to break; one without a first token keeps no TTFT limit.
    """
    measures = {"ttft": ttft, "tpot": tpot, "e2e": e2e, "response_time": response_time}
    ok = answered(calls)
    good = np.ones(len(ok), bool)
    for name, limit in limits.items():
        value = measures[name](ok)
        good &= (value <= limit) | (np.isnan(value) & (name == "tpot"))
    return float(good.sum() / seconds)


# Chains.


def steps_of(calls: Columns) -> int:
    """Model calls with their attempts counted once."""
    return int(np.count_nonzero(calls.attempt == 0))


def retry_amplification(calls: Columns) -> float:
    """Attempts per model call; 1 without retries."""
    return _ratio(len(calls), steps_of(calls))


def prefix_hit_rate(calls: Columns) -> float:
    """Share of input that the server took from its prefix cache."""
    return _ratio(calls.cached_tokens.sum(), calls.input_tokens.sum())


def resent(calls: Columns) -> Array:
    """How much of each call's input its own chain had already seen: the last prompt and what was answered to it.

    Reasoning is left out, since harnesses do not send it back. A prompt shorter than the last one was compacted: it is
    taken as new. A cache that keeps every chain's past would hit at least this much.
    """
    order = np.lexsort((calls.attempt, calls.step, _codes(calls.agent), calls.session))
    session, agent, n_in = calls.session[order], calls.agent[order], calls.input_tokens[order]
    known = n_in + (calls.output_tokens - calls.reasoning_tokens)[order]
    ok = (calls.status == "ok")[order]
    old = np.zeros(len(calls), np.int64)
    if len(calls) > 1:
        follows = (session[1:] == session[:-1]) & (agent[1:] == agent[:-1]) & (n_in[1:] >= n_in[:-1]) & ok[:-1]
        old[order[1:]] = np.where(follows, np.minimum(known[:-1], n_in[1:]), 0)
    return old


def resent_share(calls: Columns) -> float:
    """Share of input that was sent before in the same chain."""
    return _ratio(resent(calls).sum(), calls.input_tokens.sum())


def _codes(column: Array) -> Array:
    code = {word: i for i, word in enumerate(kinds(column))}
    return np.fromiter((code[word] for word in column.tolist()), np.int64, len(column))


# Demand.


def session_archetype(calls: Columns, sessions: Columns) -> Array:
    """For each call the archetype of its session's root, whose work it is; its own where the root has no row."""
    root = roots(sessions)
    of = dict(zip(root.session.tolist(), root.archetype.tolist(), strict=True))
    pairs = zip(calls.session.tolist(), calls.archetype.tolist(), strict=True)
    return np.array([of.get(session, own) for session, own in pairs], dtype=object)


def agent_hours(sessions: Columns) -> float:
    """Hours that sessions were alive, summed; sub-agents work within their session's hours."""
    root = roots(sessions)
    return float((root.end - root.start).sum()) / 3600


def tokens_per_agent_hour(calls: Columns, sessions: Columns) -> float:
    """Input and output tokens caused per hour of a session, sub-agents' included."""
    return _ratio((calls.input_tokens + calls.output_tokens).sum(), agent_hours(sessions))


def in_flight_per_agent(calls: Columns, sessions: Columns) -> float:
    """Model calls in flight per live session, over time: call-seconds per session-second."""
    return _ratio(e2e(calls).sum(), agent_hours(sessions) * 3600)


def ended(sessions: Columns) -> Columns:
    """Sessions proper that came to their own end, well or badly."""
    root = roots(sessions)
    return root.where(~is_in(root.outcome, ("unfinished", "cancelled")))


def tokens_per_intent(calls: Columns, sessions: Columns) -> float:
    """Tokens spent for each thing a person asked for and got, in sessions that came to their own end."""
    whole = ended(sessions)
    theirs = np.isin(calls.session, whole.session)
    return _ratio((calls.input_tokens + calls.output_tokens)[theirs].sum(), whole.intents.sum())


# The run as a whole.


def errors(calls: Columns) -> dict[str, dict[str, Any]]:
    """How often each status but "ok" was seen, and one example of what was said; most frequent first."""
    bad = calls.where(calls.status != "ok")
    found = {status: bad.error[bad.status == status] for status in kinds(bad.status)}
    return {
        status: {"count": len(said), "example": next((text for text in said.tolist() if text), "")}
        for status, said in sorted(found.items(), key=lambda item: -len(item[1]))
    }


def littles_law(calls: Columns, begin: float, end: float) -> dict[str, float]:
    """L (by sweep line), λ and W of the calls in a window; L = λW in a steady state (Little 1961).

    λ counts calls sent in the window and W is their mean time, so that calls cut by its edges show as a gap.
    """
    inside = calls.where((calls.sent >= begin) & (calls.sent < end))
    level = time_mean(in_flight(calls), begin, end)
    rate = _ratio(len(inside), end - begin)
    wait = float(e2e(inside).mean()) if len(inside) else float("nan")
    return {"in_flight": level, "per_second": rate, "seconds": wait, "gap": _ratio(level - rate * wait, level)}


def window_counts(times: Array, window: float, begin: float, end: float) -> Array:
    """How many `times` fall in each whole window from `begin` to `end`."""
    n = int((end - begin) / window)
    index = np.floor((times - begin) / window).astype(np.int64)
    return np.bincount(index[(index >= 0) & (index < n)], minlength=n)


def dispersion(times: Array, window: float, begin: float, end: float) -> float:
    """Index of dispersion of counts: variance over mean. Poisson has 1, bursts more; NaN below 10 windows."""
    counts = window_counts(times, window, begin, end)
    if len(counts) < 10:
        return float("nan")
    return _ratio(counts.var(ddof=1), counts.mean())


def peak_to_mean(times: Array, window: float, begin: float, end: float) -> float:
    """The busiest window over the mean one."""
    counts = window_counts(times, window, begin, end)
    return _ratio(counts.max(initial=0), counts.mean()) if len(counts) else float("nan")


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")
