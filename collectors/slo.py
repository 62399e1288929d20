"""Service-level objectives as data, and whether a run kept them: pass, fail or undecided, never more than was measured.

"TTFT P95 at most 2 s" is the same as "at least 95 % of calls have a TTFT of at most 2 s". So every objective is a share
of calls (or sessions) that must be good, and its verdict rests on the confidence interval of that share.
"""

import difflib
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from importlib import resources
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from msgspec import Struct

from collectors import metrics
from collectors.load import Array, Columns, Run
from collectors.metrics import agents_calls, roots

Verdict: TypeAlias = Literal["pass", "fail", "undecided"]

Z = 1.959964
"""Two-sided 95 %."""

BLOCKS = 20
"""Stretches of time into which a run is cut to see how much its calls share one fate."""


def output_speed(calls: Columns) -> Array:
    """Output tokens per second after the first: what a user sees, and AA-AgentPerf's speed. NaN below two tokens."""
    with np.errstate(divide="ignore"):
        return 1.0 / metrics.tpot(calls)


CALL_METRICS: dict[str, Callable[[Columns], Array]] = {
    "ttft": metrics.ttft,
    "tpot": metrics.tpot,
    "e2e": metrics.e2e,
    "response": metrics.response_time,
    "output_speed": output_speed,
}
METRICS = (*CALL_METRICS, "itl", "session")
"""What may stand before `_p95`; `error_rate` has no percentile. Seconds, but for `output_speed` (tokens/s)."""


class Slo(Struct, frozen=True):
    """One objective: the `percentile` of `metric` is at most `limit`, or at least for an output speed."""

    metric: str  # of METRICS, or "error_rate"
    percentile: int | None  # 1 … 99; None for error_rate
    limit: float  # seconds, tokens/s, or a share of calls

    @property
    def name(self) -> str:
        return self.metric if self.percentile is None else f"{self.metric}_p{self.percentile}"

    @property
    def at_least(self) -> bool:
        return self.metric == "output_speed"

    @property
    def needed(self) -> float:
        """The share of items that must be good: 0.95 for a P95 with an upper limit, 0.75 for a P25 with a lower one."""
        if self.percentile is None:
            return 1.0 - self.limit
        return 1.0 - self.percentile / 100 if self.at_least else self.percentile / 100

    def __str__(self) -> str:
        return f"{self.name} {'≥' if self.at_least else '≤'} {self.limit:g}"


class Tier(Struct, frozen=True):
    """Objectives that must hold together."""

    name: str
    slos: tuple[Slo, ...]


def parse(text: str) -> Slo:
    """`ttft_p95=2.0` (or `<=`; `>=` for an output speed) as an objective. Raises ValueError, one line, otherwise."""
    match = re.fullmatch(r"\s*([^<>=\s]*)\s*(<=|>=|=)\s*(\S+)\s*", text)
    if not match:
        raise ValueError(f"SLO {text!r} must be NAME=LIMIT, as in ttft_p95=2.0")
    name, sign, limit = match.groups()
    try:
        slo = made(name, float(limit))
    except ValueError as error:
        said = str(error)
        if said.startswith("could not convert"):
            said = f"SLO {text!r}: the limit must be a number ({unit(name)}), got {limit!r}"
        raise ValueError(said) from None
    if sign != "=" and (sign == ">=") != slo.at_least:
        raise ValueError(
            f"SLO {text!r}: {name} must be {'>=' if slo.at_least else '<='} its limit; write {name}={limit}"
        )
    return slo


def parse_all(texts: Iterable[str]) -> dict[str, float]:
    """Objectives as the table that a spec has. Raises ValueError, one line, for a wrong one or one given twice."""
    table: dict[str, float] = {}
    for slo in map(parse, texts):
        if slo.name in table:
            raise ValueError(f"SLO {slo.name} is given twice; give it once")
        table[slo.name] = slo.limit
    return table


def made(name: str, limit: Any) -> Slo:
    """An objective by name. Raises ValueError, one line with the nearest name, for what is none."""
    metric, percentile = name, None
    if name != "error_rate":
        match = re.fullmatch(r"([a-z_0-9]+?)_p(\d+)", name)
        if not match or match[1] not in METRICS or not 1 <= int(match[2]) <= 99:
            raise ValueError(f"SLO {name!r} does not exist{_meant(name)}")
        metric, percentile = match[1], int(match[2])
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not math.isfinite(limit) or limit < 0:
        raise ValueError(f"SLO {name}: the limit must be a number >= 0 ({unit(name)}), got {limit!r}")
    if metric == "error_rate" and limit >= 1:
        raise ValueError(f"SLO error_rate: the limit is a share of calls below 1, got {limit:g}; 1 % is 0.01")
    return Slo(metric, percentile, float(limit))


def unit(name: str) -> str:
    """What the limit of an objective is counted in."""
    if name == "error_rate":
        return "a share of calls"
    return "tokens per second" if name.startswith("output_speed") else "seconds"


def _meant(name: str) -> str:
    """The nearest name there is, its percentile kept where it has one; the rule otherwise."""
    stem, _, tail = name.rpartition("_p")
    level = tail if stem and tail.isdigit() and 1 <= int(tail) <= 99 else None
    near = difflib.get_close_matches(stem or name, (*METRICS, "error_rate"), n=1)
    if not near or (stem in METRICS and level is None):
        names = ", ".join(f"{metric}_p95" for metric in METRICS)
        return f"; it can be {names}, any of them with p1 to p99, or error_rate"
    default = "25" if near[0] == "output_speed" else "95"
    return f"; did you mean {near[0] if near[0] == 'error_rate' else f'{near[0]}_p{level or default}'}?"


def from_table(table: Mapping[str, Any], name: str = "slo") -> list[Tier]:
    """Tiers from a TOML table: `{ttft_p95 = 2}` is one, `{fast = {ttft_p95 = 1}, slow = {…}}` are two."""
    if not table:
        raise ValueError("a table of SLOs is empty; name at least one, as in ttft_p95 = 2.0")
    inner = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    if not inner:
        return [Tier(name, tuple(made(key, value) for key, value in table.items()))]
    if len(inner) < len(table):
        loose = next(key for key in table if key not in inner)
        raise ValueError(f"SLO {loose!r} stands beside tiers ({', '.join(inner)}); put it into one of them")
    return [from_table(value, key)[0] for key, value in inner.items()]


def published() -> dict[str, dict[str, Any]]:
    """The sets of tiers that are shipped (tiers.toml), by name: dated, each with its source."""
    found: dict[str, dict[str, Any]] = tomllib.loads(resources.files("collectors").joinpath("tiers.toml").read_text())
    return found


def tiers_named(name: str) -> list[Tier]:
    """The tiers of a shipped set. Raises ValueError, one line, where there is none."""
    sets = published()
    if name not in sets:
        near = difflib.get_close_matches(name, sets, n=1, cutoff=0.4)
        meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(sets)}"
        raise ValueError(f"tiers {name!r} are not known; {meant}")
    return from_table(sets[name]["tiers"])


# Which calls and sessions count.


def spans(header: Mapping[str, Any]) -> list[tuple[float, float]]:
    """The stretches (start, stop) of a run, in seconds, that count: its counted phases, all of it where it has none."""
    phases = header.get("phases") or []
    counting = [(start, math.inf if stop is None else stop) for _, start, stop, counts in phases if counts]
    return counting or [(-math.inf, math.inf)]


def within(rows: Columns, stretches: Iterable[tuple[float, float]]) -> Columns:
    """The rows (calls of agents, or sessions) that were due in one of the stretches, whenever they ended."""
    inside = np.zeros(len(rows), bool)
    for start, stop in stretches:
        inside |= (rows.due >= start) & (rows.due < stop)
    return rows.where(inside)


def counted(run: Run, stretches: Iterable[tuple[float, float]] | None = None) -> tuple[Columns, Columns]:
    """The agents' calls and the sessions that count; the header's phases decide where no stretches are given."""
    stretches = list(spans(run.header) if stretches is None else stretches)
    return within(agents_calls(run.calls), stretches), within(run.sessions, stretches)


# Verdicts.


class Judged(Struct, frozen=True):
    """What a run says about one objective."""

    slo: str
    limit: float
    value: float | None  # the percentile itself, over the same items; None where there is none (or it is infinite)
    needed: float
    share: float | None  # of items that were good
    low: float  # 95 % interval of that share
    high: float
    items: int  # calls, gaps or sessions
    effective: float  # how many independent items they are worth
    sessions: int  # that they come from
    cut: int  # items that the end of the run cut before they could be told good or bad: left out
    verdict: Verdict
    part: str = "all"  # or "second half", where that alone failed: the load was not carried steadily


class Items(NamedTuple):
    """One item for each thing that is good or bad. `value` is NaN where it could not be told."""

    value: Array
    session: Array
    due: Array
    cut: int

    def where(self, keep: Array) -> "Items":
        return Items(self.value[keep], self.session[keep], self.due[keep], self.cut)


def judge(slo: Slo, calls: Columns, sessions: Columns) -> Judged:
    """The verdict on one objective over calls and sessions that count (see `counted`).

    An answer that failed is outside every limit. One that the end of the run cut is outside if it was late by then,
    and left out otherwise. An objective that fails in the second half alone has failed: queues were growing.
    Raises ValueError for an ITL objective on a run that kept no gaps.
    """
    items = _items(slo, calls, sessions)
    items = items.where(~np.isnan(items.value))
    whole = _judged(slo, items, "all")
    if len(items.value) and whole.verdict != "fail":
        late = _judged(slo, items.where(items.due >= (items.due.min() + items.due.max()) / 2), "second half")
        if late.verdict == "fail":
            return late
    return whole


def judge_all(tier: Tier, calls: Columns, sessions: Columns) -> list[Judged]:
    """The verdicts on all objectives of a tier."""
    return [judge(slo, calls, sessions) for slo in tier.slos]


def together(verdicts: Iterable[Verdict]) -> Verdict:
    """One failure fails all; without one, all must pass."""
    found = set(verdicts)
    return "fail" if "fail" in found else "undecided" if "undecided" in found or not found else "pass"


def _items(slo: Slo, calls: Columns, sessions: Columns) -> Items:
    worst = 0.0 if slo.at_least else math.inf
    if slo.metric == "session":
        root = roots(sessions)
        value, cut = root.end - root.start, metrics.is_in(root.outcome, ("unfinished", "cancelled"))
        value = np.where(root.outcome == "failed", worst, value)
        return _censored(value, cut, value > slo.limit, worst, root)
    cut, ok = calls.status == "cancelled", calls.status == "ok"
    if slo.metric == "error_rate":
        return Items(np.where(cut, np.nan, 1.0 - ok), calls.session, calls.due, int(cut.sum()))
    if slo.metric == "itl":
        if not len(calls.itl.values) and np.any(calls.chunks[ok] > 1):
            raise ValueError(f"SLO {slo.name}: the run kept no gaps between tokens; set itl = true in its spec")
        ours, gaps = calls.where(ok), calls.itl.where(ok)
        return Items(gaps.values, np.repeat(ours.session, gaps.sizes), np.repeat(ours.due, gaps.sizes), 0)
    value = np.where(ok | cut, CALL_METRICS[slo.metric](calls), worst)
    if slo.metric == "ttft":
        waited = np.where(np.isnan(calls.first), calls.end - calls.sent, value)
        return _censored(np.where(cut, waited, value), cut & np.isnan(calls.first), waited > slo.limit, worst, calls)
    late = value > slo.limit if slo.metric in ("e2e", "response") else np.zeros(len(calls), bool)
    return _censored(value, cut, late, worst, calls)


def _censored(value: Array, cut: Array, late: Array, worst: float, rows: Columns) -> Items:
    """What the end of the run cut is known to be bad if it was late already, and not known otherwise."""
    unknown = cut & ~late
    value = np.where(unknown, np.nan, np.where(cut, worst, value))
    return Items(value, rows.session, rows.due, int(unknown.sum()))


def _judged(slo: Slo, items: Items, part: str) -> Judged:
    n = len(items.value)
    if not n:
        return Judged(slo.name, slo.limit, None, slo.needed, None, 0.0, 1.0, 0, 0.0, 0, items.cut, "undecided", part)
    good = items.value >= slo.limit if slo.at_least else items.value <= slo.limit
    if slo.metric == "error_rate":
        good = items.value == 0.0
    edges = np.linspace(items.due.min(), items.due.max(), BLOCKS + 1)[1:-1]
    block = np.searchsorted(edges, items.due, side="right")
    worth = min(effective_size(good, items.session), effective_size(good, block) if edges[-1] > edges[0] else np.inf)
    share = float(good.mean())
    low, high = wilson(share, worth)
    verdict = verdict_of(low, high, slo.needed)
    sessions, value = len(np.unique(items.session)), _value(slo, items.value)
    return Judged(
        slo.name, slo.limit, value, slo.needed, share, low, high, n, worth, sessions, items.cut, verdict, part
    )


def verdict_of(low: float, high: float, needed: float) -> Verdict:
    """Where the whole interval lies: at or above what is needed, below it, or astride."""
    return "pass" if low >= needed else "fail" if high < needed else "undecided"


def _value(slo: Slo, values: Array) -> float | None:
    """The percentile as one of the values, so that it keeps the limit exactly when the share of good items suffices."""
    if slo.percentile is None:
        return float(values.mean())
    best_first = -np.sort(-values) if slo.at_least else np.sort(values)
    value = float(best_first[math.ceil(slo.needed * len(values) - 1e-9) - 1])
    return value if math.isfinite(value) else None


def pooled(parts: list[Judged]) -> Judged:
    """Several measurements of one objective under one load as one: every item counts once, and the items of each are
    worth what they were. Weights by effective size would favour good measurements, since bad spells come clustered."""
    seen = [part for part in parts if part.items]
    if len(seen) < 2:
        return seen[0] if seen else parts[-1]
    items = sum(part.items for part in seen)
    worth = items**2 / sum(part.items**2 / part.effective for part in seen)
    share = sum((part.share or 0.0) * part.items for part in seen) / items
    low, high = wilson(share, worth)
    values = [math.inf if part.value is None else part.value * part.items / items for part in seen]
    value = math.fsum(values) if all(map(math.isfinite, values)) else None
    first, late = seen[0], any(part.part != "all" for part in seen)
    return Judged(
        first.slo, first.limit, value, first.needed, share, low, high, items, worth,
        sum(part.sessions for part in seen), sum(part.cut for part in seen), verdict_of(low, high, first.needed),
        "second half" if late else "all",
    )  # fmt: skip


# The interval of a share.


def wilson(share: float, n: float, z: float = Z) -> tuple[float, float]:
    """The score interval of a share of n independent items (Wilson 1927, J. Am. Stat. Assoc. 22, 209)."""
    if n <= 0:
        return 0.0, 1.0
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def effective_size(good: Array, cluster: Array) -> float:
    """How many independent items these are worth, given that those of one cluster share a fate.

    n / deff · (z / t)², with Kish's design effect deff = v / (p (1 - p) / n) (Survey Sampling, 1965) of the ratio
    estimator v = k/(k-1) Σ (good_c - p·n_c)² / n² over k clusters, and t of k - 1 degrees of freedom; never above n
    (Korn and Graubard 1998, Survey Methodology 24, 193). Where all items agree no clustering can be seen: deff is 1.
    """
    _, code = np.unique(cluster, return_inverse=True)
    size, hits = np.bincount(code), np.bincount(code, weights=good)
    n, k, p = len(good), len(size), float(good.mean())
    if k < 2:
        return 1.0
    variance = k / (k - 1) * float(np.sum((hits - p * size) ** 2)) / n**2
    worth = min(float(n), p * (1 - p) / variance) if variance > 0 and 0 < p < 1 else float(n)
    return worth * (Z / student(k - 1)) ** 2


def student(freedom: int, z: float = Z) -> float:
    """Student's t at the level of the normal quantile z (Abramowitz and Stegun 26.7.5); within 1 % from 3 degrees."""
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / freedom**power for power, term in enumerate(terms, start=1))
