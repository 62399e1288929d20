"""A run's main figures as functions of how often each session is taken: what resampling needs.

The cluster bootstrap (Davison and Hinkley 1997, Bootstrap Methods and their Application, 3.8) draws sessions with all
their calls. Calls of one session share its fate, so resampling calls would make every interval too narrow.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from collectors import metrics
from collectors.load import Array, Run
from collectors.metrics import agents_calls, answered, roots
from collectors.slo import counted, output_speed, spans
from collectors.summary import counted_seconds, duration

RESAMPLES = 1_000
FEWEST = 10
"""Sessions below which nothing is said: their spread cannot be judged."""
TAIL = 5
"""Items beyond a percentile below which nothing is said of it: it is then little more than one extreme."""
MOST = 50_000
"""Items of which a percentile is resampled; of more, that many drawn at random."""
ELEMENTS = 4_000_000
"""Numbers held at once while resampling."""
LEVELS = (50, 95, 99)

Statistic = Callable[[Array], Array]
"""From weights (resample, session) the figures (resample, figure) of each resample."""


class Group(NamedTuple):
    """Figures that are found together."""

    names: tuple[str, ...]
    statistic: Statistic
    tails: tuple[float, ...]  # items beyond each; infinite for what is no percentile


class Side:
    """One run's figures as functions of how often each session is taken."""

    def __init__(self, run: Run, rng: np.random.Generator) -> None:
        calls, rows = counted(run)
        root, every = roots(rows), agents_calls(run.calls)
        ids = np.union1d(calls.session, root.session)
        self.sessions, self.calls, self.rng = len(ids), len(calls), rng
        self.few = self.sessions < FEWEST
        self.groups: list[Group] = []
        if not self.sessions:
            return

        def total(session: Array, amount: Array) -> Array:
            """The sum of an amount by session."""
            inside = np.isin(session, ids)
            return np.bincount(np.searchsorted(ids, session[inside]), amount[inside], minlength=len(ids))

        def quantiles(name: str, values: Array, session: Array, levels: tuple[int, ...]) -> None:
            known = np.isfinite(values)
            values, code = values[known], np.searchsorted(ids, session[known])
            if len(values):
                tails = tuple(len(values) * min(level, 100 - level) / 100 for level in levels)
                names = tuple(f"{name}_p{level}" for level in levels)
                self.groups.append(Group(names, percentiles(*thinned(values, code, rng), levels), tails))

        ok = answered(calls)
        for name, measure in LATENCIES.items():
            quantiles(name, measure(ok), ok.session, LEVELS)
        quantiles("output_speed", output_speed(ok), ok.session, (25,))
        quantiles("itl", ok.itl.values, np.repeat(ok.session, ok.itl.sizes), LEVELS)
        done = root.where(root.outcome == "done")
        quantiles("session", done.end - done.start, done.session, (50, 95))

        tokens, seconds = calls.input_tokens + calls.output_tokens, counted_seconds(run, duration(run))
        one, good = np.ones(len(ids)), (calls.status == "ok").astype(float)
        whole = metrics.ended(rows)
        theirs = every.where(np.isin(every.session, whole.session))
        made = total(calls.session, np.ones(len(calls)))
        ratios = {
            "calls_per_second": (total(calls.session, good), one * seconds / len(ids)),
            "output_tokens_per_second": (total(calls.session, calls.output_tokens * good), one * seconds / len(ids)),
            "tokens_per_second": (total(calls.session, tokens), one * seconds / len(ids)),
            "error_rate": (made - total(calls.session, good), made),
            "prefix_hit_rate": (
                total(calls.session, calls.cached_tokens), total(calls.session, calls.input_tokens)
            ),
            "tokens_per_agent_hour": (total(calls.session, tokens), total(*counted_hours(run))),
            "tokens_per_intent": (
                total(theirs.session, theirs.input_tokens + theirs.output_tokens), total(whole.session, whole.intents)
            ),
        }  # fmt: skip
        for name, (part, of) in ratios.items():
            if of.sum() > 0:
                self.groups.append(Group((name,), ratio(part, of), (math.inf,)))
        self.tails = {name: tail for group in self.groups for name, tail in zip(group.names, group.tails, strict=True)}

    def values(self) -> dict[str, float]:
        """The figures as measured."""
        return {name: float(values[0]) for name, values in self._taken(np.ones((1, self.sessions), np.int32)).items()}

    def resampled(self, count: int = RESAMPLES) -> dict[str, Array]:
        """The figures of `count` runs made of this one's sessions, drawn with replacement; none of too few."""
        if self.few:
            return {name: np.full(count, np.nan) for name in self.tails}
        parts = [self._taken(weights) for weights in resamples(self.sessions, count, self.rng)]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.tails}

    def _taken(self, weights: Array) -> dict[str, Array]:
        found = ((group.names, group.statistic(weights).T) for group in self.groups)
        return {name: values for names, rows in found for name, values in zip(names, rows, strict=True)}


LATENCIES = {
    "ttft": metrics.ttft,
    "tpot": metrics.tpot,
    "e2e": metrics.e2e,
    "response": metrics.response_time,
}


def counted_hours(run: Run) -> tuple[Array, Array]:
    """Session numbers, and the hours that each was alive within what counts."""
    root = roots(run.sessions)
    alive = np.zeros(len(root))
    for start, stop in spans(run.header):
        alive += np.maximum(np.minimum(root.end, stop) - np.maximum(root.start, start), 0.0)
    return root.session, alive / 3600


def resamples(sessions: int, count: int, rng: np.random.Generator) -> Iterator[Array]:
    """How often each session is drawn, a row for each resample, in pieces that fit in memory."""
    rows = max(1, min(count, ELEMENTS // max(sessions, 1)))
    for begin in range(0, count, rows):
        n = min(rows, count - begin)
        drawn = rng.integers(sessions, size=(n, sessions)) + np.arange(n)[:, np.newaxis] * sessions
        yield np.bincount(drawn.ravel(), minlength=n * sessions).reshape(n, sessions).astype(np.int32)


def ratio(part: Array, of: Array) -> Statistic:
    """A ratio of sums over sessions."""

    def taken(weights: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            result: Array = (weights @ part) / (weights @ of)
        return result[:, np.newaxis]

    return taken


def thinned(values: Array, code: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """At most `MOST` items, drawn at random."""
    if len(values) <= MOST:
        return values, code
    keep = rng.choice(len(values), MOST, replace=False, shuffle=False)
    return values[keep], code[keep]


def percentiles(values: Array, code: Array, levels: tuple[int, ...]) -> Statistic:
    """The smallest values that such shares of the items, each as often as its session is drawn, do not exceed."""
    order = np.argsort(values)
    ordered, session, shares = values[order], code[order], np.array(levels) / 100
    rows = max(1, ELEMENTS // max(len(values), 1))

    def taken(weights: Array) -> Array:
        found = np.full((len(weights), len(levels)), np.nan)
        for begin in range(0, len(weights), rows):
            upto = np.cumsum(weights[begin : begin + rows].take(session, axis=1), axis=1, dtype=np.int32)
            for row, counts in enumerate(upto, start=begin):
                if counts[-1]:
                    found[row] = ordered[np.searchsorted(counts, np.ceil(shares * counts[-1] - 1e-9))]
        return found

    return taken
