"""The token factory: what operating points cost and earn, the frontier, the best tier, the best split of a budget.

A factory turns GPU-hours into tokens. Money is USD; per GPU-hour unless a name says otherwise. Nonsense raises
ValueError, one line.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from msgspec import Struct

from collectors.economics import MILLION, Price, PriceTable, Tier, rates
from collectors.load import Array
from collectors.metrics import ACCOUNTS
from collectors.points import Point

HOURS = 8_766.0
"""In a year."""

MARKET = {"input_fresh": 1.0, "input_cached": 0.1, "output": 5.0}
"""How much more an account costs than fresh input, where no model of the accelerators is known: the ratios of list
prices (input 1, cached a tenth, output five to eight times; `prices.toml`)."""


class Factory(Struct, frozen=True, forbid_unknown_fields=True):
    """What a GPU-hour costs: rented, or bought (capital over its life, and power)."""

    gpus: float = 1.0
    gpu_hour_usd: float | None = 1.41  # all included; NVIDIA's and InferenceX's figure for an H200 (secondary)
    gpu_usd: float | None = None  # to buy one, its share of server, network and building included
    life_years: float = 5.0  # [ours]
    kw: float = 1.3  # per GPU, its share of the server included: 10.2 kW of a DGX H100 over 8 [general knowledge]
    pue: float = 1.2  # [ours]
    kwh_usd: float = 0.08  # [ours]; already in `gpu_hour_usd`
    utilisation: float = 1.0  # share of the hours paid for that are sold at the operating point

    def __post_init__(self) -> None:
        for name in ("gpus", "life_years", "kw", "pue"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
        if self.pue < 1:
            raise ValueError(f"pue is all power over the computers' power, at least 1; got {self.pue}")
        for name in ("gpu_hour_usd", "gpu_usd", "kwh_usd"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} must be >= 0 USD, got {value}")
        if not 0 < self.utilisation <= 1:
            raise ValueError(f"utilisation must lie within 0 and 1, got {self.utilisation:g}; 70 % is 0.7")
        if self.gpu_hour_usd is None and self.gpu_usd is None:
            raise ValueError("give gpu_hour_usd, or gpu_usd with life_years, kw, pue and kwh_usd")

    @property
    def hour(self) -> float:
        """USD of one GPU for an hour that is sold: hours that are not sold are paid by those that are."""
        paid = self.gpu_hour_usd
        if paid is None:
            paid = (self.gpu_usd or 0.0) / (self.life_years * HOURS) + self.kw * self.pue * self.kwh_usd
        return paid / self.utilisation

    @property
    def per_megawatt(self) -> float:
        """GPUs that a megawatt at the meter feeds."""
        return 1000 / (self.kw * self.pue)


def per_million(gpu_hour_usd: float, tokens_per_second: float, gpus: float = 1.0, utilisation: float = 1.0) -> float:
    """USD per million tokens: hour · GPUs / (tokens/s · 3600) · 10⁶ / utilisation.

    1.41 USD/h at 90 tokens/s are 4.35 USD.
    """
    if not gpu_hour_usd >= 0 or not gpus > 0:
        raise ValueError(f"a GPU-hour must cost >= 0 USD and GPUs be > 0, got {gpu_hour_usd:g} and {gpus:g}")
    if not tokens_per_second > 0:
        raise ValueError(f"tokens per second must be > 0, got {tokens_per_second:g}")
    if not 0 < utilisation <= 1:
        raise ValueError(f"utilisation must lie within 0 and 1, got {utilisation:g}; 70 % is 0.7")
    return gpu_hour_usd * gpus / (tokens_per_second * 3600) * MILLION / utilisation


def account_costs(point: Point, factory: Factory) -> dict[str, float]:
    """USD per million tokens of each account: the factory's cost shared out by the accelerators' seconds that a token
    takes (`point.weights`), or by the ratios of list prices where those are not known. Accounts without tokens: absent.
    """
    weights = point.weights or {name: MARKET.get(name, MARKET["output"]) for name in ACCOUNTS}
    whole = sum(weights[name] * point.accounts[name] for name in ACCOUNTS)
    if whole <= 0:
        raise ValueError("an operating point without tokens has no cost per token")
    usd_per_second = factory.hour * factory.gpus / 3600
    return {name: usd_per_second * weights[name] / whole * MILLION for name in ACCOUNTS if point.accounts[name] > 0}


class Money(Struct, frozen=True):
    """What one operating point earns at one price."""

    tokens_per_gpu: float  # per second, all accounts
    output_per_gpu: float
    speed: float  # tokens per second that a user sees
    jobs_per_gpu_hour: float
    jobs_per_user_hour: float  # by Little's law 3600 / mean seconds of a job; short windows see too few long ones
    revenue: float  # per GPU-hour, as are:
    cost: float
    margin: float
    margin_per_megawatt_hour: float
    usd_per_million: float  # cost, over all tokens
    usd_per_million_fresh: float  # cost, over those that no cache served
    break_even: float  # USD per million output tokens at which revenue is cost, input priced in the same proportion


def money(point: Point, factory: Factory, price: Price) -> Money:
    """Revenue, cost and margin of an operating point, if all its tokens are sold at a price."""
    usd, seconds = rates(price), 3600 / factory.gpus
    total, output = sum(point.accounts.values()), sum(point.accounts[name] for name in ACCOUNTS[2:])
    revenue = sum(point.accounts[name] * usd[name] for name in ACCOUNTS) * seconds * (1 - point.wasted)
    fresh = total - point.accounts["input_cached"]
    return Money(
        tokens_per_gpu=total / factory.gpus,
        output_per_gpu=output / factory.gpus,
        speed=point.speed or 0.0,
        jobs_per_gpu_hour=point.jobs_per_hour / factory.gpus,
        jobs_per_user_hour=point.jobs_per_hour / point.agents if point.agents else 0.0,
        revenue=revenue,
        cost=factory.hour,
        margin=revenue - factory.hour,
        margin_per_megawatt_hour=(revenue - factory.hour) * factory.per_megawatt,
        usd_per_million=factory.hour / (total * seconds) * MILLION if total else math.inf,
        usd_per_million_fresh=factory.hour / (fresh * seconds) * MILLION if fresh else math.inf,
        break_even=break_even(point, factory, price),
    )


def break_even(point: Point, factory: Factory, price: Price) -> float:
    """USD per million output tokens at which the point pays for itself, with input in the proportion of `price` (of
    1 : 0.2 : 0.02 where that is 0)."""
    shape = price.times(1 / price.output) if price.output else Price(0.2, 0.02, 1.0)
    usd = rates(shape)
    sold = sum(point.accounts[name] * usd[name] for name in ACCOUNTS) * 3600 / factory.gpus * (1 - point.wasted)
    return factory.hour / sold if sold else math.inf


# Which points are worth running.


def frontier(speed: Array, throughput: Array) -> Array:
    """Which points no other beats: none has both more speed and more throughput, nor one more and the other equal."""
    speed, throughput = np.asarray(speed, float), np.asarray(throughput, float)
    order = np.lexsort((-throughput, -speed))
    best, keep = -math.inf, np.zeros(len(speed), bool)
    for i in order:
        if throughput[i] > best:
            keep[i], best = True, throughput[i]
    return keep


MOST_ERRORS = 0.05
"""Share of calls not answered above which a point is not sold, in any tier."""


def serves(point: Point, tier: Tier) -> bool:
    """Whether a point delivers what a tier promises: the median user's speed, and its p99 prompt within the context."""
    fast = (point.speed or 0.0) >= tier.speed
    return fast and (point.context or 0.0) <= tier.context and point.error_rate <= MOST_ERRORS


class Best(NamedTuple):
    """The best point of a tier."""

    tier: str
    point: Point
    money: Money


def best_points(points: Sequence[Point], factory: Factory, table: PriceTable, service: str = "standard") -> list[Best]:
    """For each tier that some point serves: the one with the largest margin per GPU-hour; where the price is 0 that
    with the most output."""
    found = []
    for name, tier in table.tiers.items():
        price = table.tier_price(name, service)
        able = [Best(name, p, money(p, factory, price)) for p in points if serves(p, tier)]
        if able:
            found.append(max(able, key=lambda best: (best.money.margin, best.money.output_per_gpu)))
    return found


# How a fixed budget is split.


class Choice(Struct, frozen=True):
    """One way to use a GPU: an operating point sold in a tier and a price class."""

    name: str
    tier: str
    service: str
    revenue: float  # per GPU-hour
    cost: float
    output: float  # output tokens per second of one GPU
    kw: float = 1.0  # at the meter, of one GPU


class Split(NamedTuple):
    """The best use of a budget."""

    gpus: tuple[float, ...]  # of each choice
    margin: float  # USD per hour
    shadow: float  # what one more GPU (or megawatt) would add to it; 0 where demand runs out first
    used: float  # of the budget, in its own unit


def choices(points: Sequence[Point], factory: Factory, table: PriceTable, services: Sequence[str]) -> list[Choice]:
    """The best point of each tier, in each price class."""
    kw = factory.kw * factory.pue
    return [
        Choice(f"{best.tier}, {service}", best.tier, service, best.money.revenue, best.money.cost,
               best.money.output_per_gpu, kw)
        for service in services
        for best in best_points(points, factory, table, service)
    ]  # fmt: skip


def split(
    options: Sequence[Choice], budget: float, demand: Mapping[str, float] | None = None, *, megawatts: bool = False
) -> Split:
    """The split of `budget` GPUs (or megawatts) between choices that earns most, by linear programming:

        max Σ (revenue_i - cost_i) x_i    Σ x_i (or Σ kw_i x_i / 1000) <= budget,    x_i >= 0,
        Σ output_i x_i <= demand_k        for every tier ("high") or tier and class ("high, batch") that has a limit k

    in output tokens per second. GPUs left idle cost nothing here: they are not rented.
    """
    from scipy.optimize import linprog

    if not options:
        raise ValueError("there is no choice to split between; no operating point serves a tier")
    if not 0 <= budget < math.inf:
        raise ValueError(f"the budget must be >= 0 {'megawatts' if megawatts else 'GPUs'}, got {budget:g}")
    known = {choice.tier for choice in options} | {f"{choice.tier}, {choice.service}" for choice in options}
    limits = dict(demand or {})
    for name, most in limits.items():
        if not most >= 0:
            raise ValueError(f"demand of {name!r} must be >= 0 output tokens/s, got {most:g}")
    limits = {name: most for name, most in limits.items() if name in known and most < math.inf}
    uses = [choice.kw / 1000 if megawatts else 1.0 for choice in options]
    rows, bounds = [uses], [budget]
    for name, limit in limits.items():
        rows.append([c.output if name in (c.tier, f"{c.tier}, {c.service}") else 0.0 for c in options])
        bounds.append(limit)
    scale = [max(max(row), 1e-300) for row in rows]  # rows of about one size keep the solver exact
    found = linprog(
        [c.cost - c.revenue for c in options],
        A_ub=[[x / s for x in row] for row, s in zip(rows, scale, strict=True)],
        b_ub=[b / s for b, s in zip(bounds, scale, strict=True)],
        method="highs",
    )
    if not found.success:
        raise ValueError(f"no best split: {found.message}")
    gpus = tuple(float(x) for x in found.x)
    used = float(np.dot(uses, found.x))
    return Split(gpus, float(-found.fun), float(-found.ineqlin.marginals[0]) / scale[0], used)


# When prices fall.


class Decline(NamedTuple):
    """The margin while prices and costs fall."""

    years: Array
    revenue: Array  # USD per GPU-hour
    cost: Array
    gone: float | None  # years until the margin is 0; 0: there is none today, None: it never goes


def decline(
    revenue: float, cost: float, price_half_life: float, cost_half_life: float = math.inf, years: float = 5.0
) -> Decline:
    """Revenue of a GPU-hour falls by half every `price_half_life` years, its cost (per unit of work, as hardware gets
    better) every `cost_half_life`; they meet after log2(revenue/cost) / (1/price - 1/cost half-life) years.

    Measured half-lives of prices: 1.10 years for economy models, 1.55 for middle ones, none for flagships (arXiv
    2603.28576, secondary).
    """
    if not revenue >= 0 or not cost >= 0:
        raise ValueError(f"revenue and cost must be >= 0 USD, got {revenue:g} and {cost:g}")
    if not price_half_life > 0 or not cost_half_life > 0 or not years > 0:
        raise ValueError("half-lives and years must be > 0")
    at = np.linspace(0.0, years, 121)
    faster = 1 / price_half_life - 1 / cost_half_life
    gone: float | None = None
    if revenue <= cost:
        gone = 0.0
    elif faster > 0 and cost > 0:
        gone = math.log2(revenue / cost) / faster
    return Decline(at, revenue * 2 ** (-at / price_half_life), cost * 2 ** (-at / cost_half_life), gone)
