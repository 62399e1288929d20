"""Demand, cost and revenue over the coming months: adopters × agents × sessions × tokens, with everything uncertain.

Every input is a number or a range; each path of the Monte Carlo draws all of them once, the months follow by formulas.
Tokens per session come from measured sessions, resampled. Rates are per year unless a name says otherwise.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import numpy as np
from msgspec import Meta, Struct
from msgspec.structs import fields

from collectors.economics import ELASTICITY, MILLION
from collectors.load import Array

DAYS = 30.4375
"""In a month."""
SECONDS = DAYS * 86_400
HOURS = DAYS * 24


class Range(Struct, frozen=True, forbid_unknown_fields=True):
    """A number that is not known: triangular about `likely`, uniform without one, or uniform on a `log` scale."""

    low: float
    high: float
    likely: float | None = None
    log: bool = False
    source: str = ""

    def __post_init__(self) -> None:
        if not self.low <= (self.low if self.likely is None else self.likely) <= self.high:
            raise ValueError(f"low <= likely <= high does not hold: {self.low:g}, {self.likely}, {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"a range on a log scale begins above 0, got {self.low:g}")


Value: TypeAlias = float | Range
"""An input: a number, or a range."""


class Logistic(Struct, frozen=True, forbid_unknown_fields=True, tag="logistic", tag_field="curve"):
    """K / (1 + exp(-r (t - t0)))."""

    ceiling: Value  # K
    growth: Value  # r, a year
    middle: Value  # t0, years from now: half of the ceiling


class Bass(Struct, frozen=True, forbid_unknown_fields=True, tag="bass", tag_field="curve"):
    """K (1 - e^-(p+q)t) / (1 + q/p e^-(p+q)t) (Bass 1969); t counts from the launch, `age` years ago."""

    ceiling: Value
    innovation: Value = Range(0.01, 0.05, 0.03, source="typical of durables: p about 0.03")
    imitation: Value = Range(0.2, 0.6, 0.38, source="typical of durables: q about 0.38")
    age: Value = 0.0


class Exponential(Struct, frozen=True, forbid_unknown_fields=True, tag="exponential", tag_field="curve"):
    """A0 · 2^(t / doubling), until `ceiling`."""

    start: Value
    doubling: Value  # years
    ceiling: Value = math.inf


class Table(Struct, frozen=True, forbid_unknown_fields=True, tag="table", tag_field="curve"):
    """Given points, straight lines between them, the last held; all multiplied by `factor`."""

    months: list[float]
    adopters: list[float]
    factor: Value = 1.0

    def __post_init__(self) -> None:
        if len(self.months) != len(self.adopters) or not self.months:
            raise ValueError(f"a table needs one number for each month: {len(self.months)} and {len(self.adopters)}")
        if sorted(set(self.months)) != self.months or min(self.adopters) < 0:
            raise ValueError("months must rise and adopters be >= 0")


Adopters: TypeAlias = Logistic | Bass | Exponential | Table


class Supply(Struct, frozen=True, forbid_unknown_fields=True):
    """What there is to serve the demand, and what it costs."""

    gpus: Value = 0.0  # today; 0: as many as it takes
    gpus_per_month: Value = 0.0
    tokens_per_gpu: Value = 3_000.0  # per second, all accounts, at the operating point
    better: Value = 0.0  # how much more a GPU does each year; 0.4 is 40 %
    utilisation: Value = 0.6  # mean load over the load that is built for: the peak of the day, and reserve
    gpu_hour_usd: Value = 1.41
    cheaper: Value = 0.0  # how much less a GPU-hour costs each year
    kw: Value = 1.3
    pue: Value = 1.2


class Forecast(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that a forecast rests on."""

    months: Annotated[int, Meta(ge=2, le=600)] = 60
    paths: Annotated[int, Meta(ge=100, le=1_000_000)] = 100_000
    seed: int = 0
    adopters: Adopters
    agents: Value = 1.0  # per adopter
    sessions: Value = 10.0  # per agent and day
    tokens: Value | None = None  # per session; None: resampled from measured sessions
    price: Value = 1.0  # USD per million tokens, all accounts, today
    half_life: Value = math.inf  # of the price, years
    elasticity: Value = ELASTICITY  # of tokens to price
    calls: Value = 0.0  # growth of calls per session
    exponent: Value = 1.33  # tokens of a session ∝ calls^exponent: 710 recorded sessions (kv-cache-tester @ 94f6046)
    sub_agents: Value = 0.0  # R today
    sub_agents_end: Value | None = None  # R at the last month; None: as today
    depth: Annotated[int, Meta(ge=0, le=20)] | None = 3  # None: without a limit, R below 1
    child_share: Value = 0.25  # tokens of a sub-agent over its root's [ours]
    dying: Value = 0.0  # share of applications that do not last
    life: Value = 1.0  # years that those last, on average
    noise: Value = 0.0  # yearly spread (log) of a random walk of demand
    supply: Supply = Supply()
    sources: Mapping[str, str] = {}  # where an input comes from, by its name

    def __post_init__(self) -> None:
        check(self)


LIMITS = {
    "elasticity": (0.0, 5.0), "dying": (0.0, 1.0), "utilisation": (1e-6, 1.0), "cheaper": (-10.0, 0.999),
    "better": (-0.999, 100.0), "calls": (-0.999, 100.0), "pue": (1.0, 10.0), "life": (1e-6, 1e6),
    "half_life": (1e-6, math.inf), "doubling": (1e-6, 1e6), "tokens_per_gpu": (1e-6, 1e9), "kw": (1e-6, 1e3),
    "middle": (-100.0, 100.0), "growth": (-100.0, 100.0), "innovation": (1e-9, 10.0), "imitation": (0.0, 10.0),
}  # fmt: skip
"""Least and most of inputs that have other limits than 0 and infinity."""


def check(forecast: Forecast) -> None:
    """ValueError, one line, for nonsense."""
    for name, value in inputs(forecast).items():
        low, high = (value.low, value.high) if isinstance(value, Range) else (value, value)
        least, most = LIMITS.get(name.rpartition(".")[2], (0.0, math.inf))
        if not (least <= low and high <= most) or math.isnan(low):
            raise ValueError(
                f"{name} must lie within {least:g} and {most:g}, got {low:g}" + f" to {high:g}" * (high > low)
            )
    if forecast.depth is None:
        for name in ("sub_agents", "sub_agents_end"):
            value = getattr(forecast, name)
            if value is not None and (value.high if isinstance(value, Range) else value) >= 1:
                raise ValueError(f"{name} reaches 1 without a depth: sub-agents without end; give depth, or R below 1")


def inputs(forecast: Forecast) -> dict[str, Value]:
    """Every number or range by its name; nested ones with a dot."""
    found: dict[str, Value] = {}
    for prefix, struct in (("adopters.", forecast.adopters), ("", forecast), ("supply.", forecast.supply)):
        for field in fields(struct):
            value = getattr(struct, field.name)
            number = isinstance(value, int | float) and field.name not in ("months", "paths", "seed", "depth")
            if isinstance(value, Range) or number:
                found[prefix + field.name] = value
    return found


def source_of(forecast: Forecast, name: str) -> str:
    """What is said of where an input comes from."""
    value = inputs(forecast)[name]
    return forecast.sources.get(name) or (value.source if isinstance(value, Range) else "") or DEFAULTS.get(name, "")


DEFAULTS = {
    "elasticity": "NBER working paper The Emerging Market for Intelligence: short run, OpenRouter (secondary)",
    "exponent": "710 recorded Claude Code sessions, callanjfox/kv-cache-tester @ 94f6046",
    "supply.gpu_hour_usd": "an H200, NVIDIA and InferenceX (secondary)",
    "child_share": "ours", "supply.utilisation": "ours", "supply.tokens_per_gpu": "ours", "supply.pue": "ours",
    "supply.kw": "10.2 kW of a DGX H100 over 8 GPUs (general knowledge)",
}  # fmt: skip


class Drawn(NamedTuple):
    """The Monte Carlo. Arrays are (month, path) unless said otherwise; month 0 is today."""

    draws: dict[str, Array]  # each input that is not the same on all paths, (path,)
    adopters: Array
    tokens: Array  # a month
    price: Array  # USD per million
    gpus: Array  # that it takes
    megawatts: Array
    cost: Array  # USD a month
    revenue: Array
    short: Array | None  # (path,): first month in which the GPUs do not suffice, inf for never; None: no limit


def draw(forecast: Forecast, sessions: Array | None = None) -> Drawn:
    """All paths. `sessions` are the tokens of measured sessions: each path takes the mean of a resample of them.

    ValueError where neither `tokens` nor `sessions` is given.
    """
    rng = np.random.default_rng(forecast.seed)
    n = forecast.paths
    value = {name: sample(what, n, rng) for name, what in inputs(forecast).items()}
    if forecast.tokens is None:
        value["tokens"] = resampled(sessions, n, rng)
    years = np.arange(forecast.months)[:, None] / 12
    people = adopters(forecast.adopters, value, years)
    price = value["price"] * np.exp2(-years / value["half_life"])
    base = value["agents"] * value["sessions"] * DAYS * value["tokens"]
    tokens = people * base * growth(forecast, value, years)
    if forecast.noise != 0.0:
        steps = rng.standard_normal((forecast.months - 1, n)) * (value["noise"] / math.sqrt(12))
        walk = np.vstack([np.zeros((1, n)), np.cumsum(steps, axis=0)])
        tokens = tokens * np.exp(walk)
    per_gpu = (
        value["supply.tokens_per_gpu"] * np.exp(years * np.log1p(value["supply.better"])) * value["supply.utilisation"]
    )
    needed = tokens / SECONDS / per_gpu
    hour = value["supply.gpu_hour_usd"] * np.exp(years * np.log1p(-value["supply.cheaper"]))
    month = None
    if forecast.supply.gpus != 0.0:
        late = needed > value["supply.gpus"] + value["supply.gpus_per_month"] * years * 12
        month = np.where(late.any(axis=0), np.argmax(late, axis=0), np.inf)
    return Drawn(
        draws={name: x for name, x in value.items() if x.size > 1},
        adopters=people, tokens=tokens, price=np.broadcast_to(price, tokens.shape), gpus=needed,
        megawatts=needed * (value["supply.kw"] * value["supply.pue"] / 1000), cost=needed * hour * HOURS,
        revenue=tokens * price / MILLION, short=month,
    )  # fmt: skip


def sample(what: Value, n: int, rng: np.random.Generator) -> Array:
    """One draw for each path, or the number itself as an array of one."""
    if not isinstance(what, Range) or what.low == what.high:
        return np.array([what.low if isinstance(what, Range) else float(what)])
    if what.log:
        log: Array = np.exp(rng.uniform(math.log(what.low), math.log(what.high), n))
        return log
    if what.likely is None:
        return rng.uniform(what.low, what.high, n)
    return rng.triangular(what.low, what.likely, what.high, n)


def resampled(sessions: Array | None, n: int, rng: np.random.Generator) -> Array:
    """Means of resamples (with replacement, of full size) of measured sessions; of many, by their normal limit."""
    if sessions is None or not len(sessions):
        raise ValueError("tokens per session are neither given nor measured; give `tokens`, or a run or sweep folder")
    x = np.asarray(sessions, float)
    if len(x) > 2_000:
        return np.maximum(0.0, rng.normal(x.mean(), x.std(ddof=1) / math.sqrt(len(x)), n))
    rows = max(1, 4_000_000 // len(x))
    parts = [x[rng.integers(len(x), size=(min(rows, n - i), len(x)))].mean(axis=1) for i in range(0, n, rows)]
    return np.concatenate(parts)


def adopters(curve: Adopters, value: dict[str, Array], years: Array) -> Array:
    """How many there are, by month and path."""
    v = {name.partition(".")[2]: x for name, x in value.items() if name.startswith("adopters.")}
    found: Array
    match curve:
        case Logistic():
            found = v["ceiling"] / (1 + np.exp(-v["growth"] * (years - v["middle"])))
        case Bass():
            p, q = v["innovation"], v["imitation"]
            e = np.exp(-(p + q) * (years + v["age"]))
            found = v["ceiling"] * (1 - e) / (1 + q / p * e)
        case Exponential():
            found = np.minimum(v["start"] * np.exp2(years / v["doubling"]), v["ceiling"])
        case Table():
            found = np.interp(years[:, 0] * 12, curve.months, curve.adopters)[:, None] * v["factor"]
    return found


def growth(forecast: Forecast, value: dict[str, Array], years: Array) -> Array:
    """What becomes of a session's tokens, and of the sessions: cheaper, longer, with more sub-agents, some gone."""
    span = max(years[-1, 0], 1e-9)
    cheaper = value["elasticity"] * math.log(2) / value["half_life"]  # ln of (P/P0)^-ε, a year
    change = np.exp(years * (cheaper + value["exponent"] * np.log1p(value["calls"])))
    now = value["sub_agents"]
    then = value.get("sub_agents_end", now)
    r = now + (then - now) * years / span
    grown = 1 + (family(r, forecast.depth) - 1) * value["child_share"]
    left = 1 - value["dying"] * (1 - np.exp(-years / value["life"]))
    whole: Array = left * change * grown / (1 + (family(now, forecast.depth) - 1) * value["child_share"])
    return whole


def family(r: Array, depth: int | None) -> Array:
    """Agents of a session with R sub-agents each (Galton-Watson), to a depth or without a limit."""
    r = np.asarray(r, float)
    if depth is None:
        endless: Array = 1 / (1 - r)
        return endless
    total = np.ones_like(r)
    for _ in range(depth):
        total = 1 + r * total
    return total


BANDS = (5, 25, 50, 75, 95)
"""Percentiles: the 50 % and the 90 % band, and the median."""

Figure: TypeAlias = Literal["adopters", "tokens", "gpus", "megawatts", "cost", "revenue"]
FIGURES: tuple[Figure, ...] = ("adopters", "tokens", "gpus", "megawatts", "cost", "revenue")


def bands(drawn: Drawn) -> dict[str, dict[str, list[float]]]:
    """Percentiles by month of each figure, and of the margin (revenue less cost)."""
    found = {}
    for name in (*FIGURES, "margin"):
        values = drawn.revenue - drawn.cost if name == "margin" else getattr(drawn, name)
        if values.shape[1] == 1:
            levels = np.repeat(values.T, len(BANDS), axis=0)
        else:
            values = np.sort(values, axis=1)  # faster than a partition about five percentiles
            levels = values[:, [round(level / 100 * (values.shape[1] - 1)) for level in BANDS]].T
        found[name] = {f"p{level}": [float(x) for x in row] for level, row in zip(BANDS, levels, strict=True)}
    return found


def tornado(
    drawn: Drawn, figures: tuple[Figure, ...] = ("tokens",), month: int = -1
) -> dict[str, list[dict[str, Any]]]:
    """What drives the spread of each figure in a month: for each uncertain input the figure's median where the input is
    in its lowest and in its highest tenth, and the input's share of the explained variance of ranks.

    Shares are squared rank correlations over their sum, as inputs are drawn independently. Largest first.
    """
    names = [name for name in drawn.draws if name != "noise"]
    x_ranks = {name: _ranks(drawn.draws[name]) for name in names}
    tails = {name: np.quantile(drawn.draws[name], (0.1, 0.9)) for name in names}
    return {figure: _rows(getattr(drawn, figure)[month], drawn, x_ranks, tails) for figure in figures}


def _rows(y: Array, drawn: Drawn, x_ranks: dict[str, Array], tails: dict[str, Array]) -> list[dict[str, Any]]:
    rows, squares = list[dict[str, Any]](), list[float]()
    if not np.ptp(y):
        return rows
    ranks = _ranks(y)
    for name, mine in x_ranks.items():
        x, (low, high) = drawn.draws[name], tails[name]
        medians = {"low": float(np.median(y[x <= low])), "high": float(np.median(y[x >= high]))}
        rows.append({"input": name, **medians, "at": [float(low), float(high)]})
        squares.append(float(np.corrcoef(mine, ranks)[0, 1] ** 2))
    whole = sum(squares) or 1.0
    rows = [{**row, "share": square / whole} for row, square in zip(rows, squares, strict=True)]
    return sorted(rows, key=lambda row: -row["share"])


def _ranks(x: Array) -> Array:
    ranks = np.empty(len(x))
    ranks[np.argsort(x)] = np.arange(len(x))
    return ranks


def runs_out(drawn: Drawn) -> dict[str, Any] | None:
    """When the GPUs do not suffice any more: the share of paths by month, and percentiles of the month (None: never);
    None as a whole where the supply has no limit."""
    if drawn.short is None:
        return None
    months = drawn.tokens.shape[0]
    share = [float((drawn.short <= month).mean()) for month in range(months)]
    levels = np.quantile(drawn.short, (0.05, 0.25, 0.5, 0.75, 0.95), method="inverted_cdf")
    when = {f"p{level}": float(x) if np.isfinite(x) else None for level, x in zip(BANDS, levels, strict=True)}
    return {"share": share, "month": when}
