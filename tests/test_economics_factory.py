"""The factory: cost per token, frontier, best tiers, the linear programme against brute force, falling prices."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import approx

from collectors.economics import Price, load_prices
from collectors.factory import (
    Choice,
    Factory,
    account_costs,
    best_points,
    break_even,
    choices,
    decline,
    frontier,
    money,
    per_million,
    serves,
    split,
)
from tests.sweep_made import made_point


def test_the_worked_examples_of_cost_per_million_tokens() -> None:
    assert per_million(1.41, 90) == approx(4.35, abs=0.005)
    assert per_million(2.65, 6_000) == approx(0.123, abs=0.0005)
    assert per_million(1.41, 90, utilisation=0.5) == approx(8.70, abs=0.01)


def test_a_bought_gpu_costs_its_capital_and_its_power() -> None:
    bought = Factory(gpu_hour_usd=None, gpu_usd=43_830, life_years=5, kw=1.0, pue=1.25, kwh_usd=0.08, utilisation=0.5)

    assert bought.hour == approx((1.0 + 0.1) / 0.5)
    assert bought.per_megawatt == approx(800)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("utilisation", 1.2, "utilisation must lie within 0 and 1, got 1.2; 70 % is 0.7"),
        ("utilisation", 0.0, "utilisation"),
        ("gpu_hour_usd", -1.0, "gpu_hour_usd must be >= 0"),
        ("gpus", 0.0, "gpus must be > 0"),
        ("pue", 0.9, "pue is"),
        ("gpu_hour_usd", None, "give gpu_hour_usd, or gpu_usd"),
    ],
)
def test_a_nonsensical_factory_gets_one_clear_line(field: str, value: float | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Factory(**{field: value})  # type: ignore[arg-type]


def test_costs_by_account_sum_to_the_factory() -> None:
    point, factory = made_point(tokens=2_000.0), Factory(gpus=4, gpu_hour_usd=3.0)
    cost = account_costs(point, factory)
    hour = sum(cost[name] / 1e6 * point.accounts[name] * 3600 for name in cost)

    assert hour == approx(12.0)
    assert cost["output_visible"] == approx(5 * cost["input_fresh"])  # market ratios, where nothing better is known
    assert cost["input_cached"] == approx(0.1 * cost["input_fresh"])


def test_known_accelerator_seconds_take_the_place_of_market_ratios() -> None:
    weights = {"input_fresh": 1.0, "input_cached": 0.0, "output_reasoning": 9.0, "output_visible": 9.0,
               "output_arguments": 9.0}  # fmt: skip
    cost = account_costs(made_point(weights=weights), Factory())

    assert cost["output_visible"] == approx(9 * cost["input_fresh"])
    assert cost["input_cached"] == 0.0


def test_the_money_of_a_point_by_hand() -> None:
    point = made_point(value=8, tokens=1_000.0, jobs_per_hour=60.0)
    found = money(point, Factory(gpus=2, gpu_hour_usd=1.0, kw=1.0, pue=1.0), Price(1.0, 0.1, 10.0))
    revenue = (200 * 1.0 + 700 * 0.1 + 100 * 10.0) * 3600 / 1e6 / 2

    assert found.revenue == approx(revenue)
    assert found.margin == approx(revenue - 1.0)
    assert found.margin_per_megawatt_hour == approx(1000 * (revenue - 1.0))
    assert found.tokens_per_gpu == 500
    assert found.output_per_gpu == approx(50)
    assert found.jobs_per_gpu_hour == 30
    assert found.jobs_per_user_hour == approx(7.5)
    assert found.usd_per_million == approx(2 / 3.6)
    assert found.usd_per_million_fresh == approx(2 / 3.6 / 0.3)


def test_at_the_break_even_price_the_margin_is_nothing() -> None:
    point, factory, price = made_point(), Factory(gpus=4), Price(2.0, 0.2, 10.0)
    at = break_even(point, factory, price)

    assert money(point, factory, price.times(at / price.output)).margin == approx(0.0, abs=1e-12)


def test_wasted_tokens_earn_nothing() -> None:
    price = Price(1.0, 0.1, 10.0)

    assert money(made_point(wasted=0.25), Factory(), price).revenue == approx(
        0.75 * money(made_point(), Factory(), price).revenue
    )


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=20))
def test_the_frontier_holds_no_dominated_point_and_all_others_are(points: list[tuple[int, int]]) -> None:
    x, y = np.array(points, float).T
    keep = frontier(x, y)

    for i, mine in enumerate(points):
        beaten = any(a >= mine[0] and b >= mine[1] and (a, b) != mine for a, b in points)
        twin = any(keep[j] and points[j] == mine for j in range(len(points)))
        assert keep[i] <= (not beaten)
        assert twin == (not beaten)


def test_a_tier_is_served_by_speed_context_and_answers() -> None:
    tier = load_prices().tiers["high"]

    assert serves(made_point(speed=50.0), tier)
    assert not serves(made_point(speed=39.0), tier)
    assert not serves(made_point(context=200_000.0), tier)
    assert not serves(made_point(error_rate=0.2), tier)


def test_the_best_point_of_a_tier_is_the_busiest_one_that_keeps_its_promise() -> None:
    points = [made_point(n, 500.0 * n**0.7, speed=90.0 - n) for n in (2, 4, 8, 16, 32, 64)]
    best = {found.tier: found.point.value for found in best_points(points, Factory(), load_prices())}

    assert best == {"free": 64, "medium": 64, "high": 32, "premium": 16}


# The split.


def brute_force(options: list[Choice], budget: float, demand: dict[str, float]) -> float:
    """The best margin over all corners of the feasible region."""
    rows = [[1.0] * len(options)] + [[c.output if c.tier == t else 0.0 for c in options] for t in demand]
    most = [budget, *demand.values()]
    rows += [[-1.0 if i == j else 0.0 for j in range(len(options))] for i in range(len(options))]
    a, b = np.array(rows), np.array(most + [0.0] * len(options))
    gain = np.array([c.revenue - c.cost for c in options])
    best = 0.0
    for corner in itertools.combinations(range(len(b)), len(options)):
        try:
            x = np.linalg.solve(a[list(corner)], b[list(corner)])
        except np.linalg.LinAlgError:
            continue
        if (a @ x <= b + 1e-7 * np.maximum(1, abs(b))).all():
            best = max(best, float(gain @ x))
    return best


@pytest.mark.parametrize("seed", range(12))
def test_the_linear_programme_agrees_with_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tiers = ("medium", "high", "premium")
    options = [
        Choice(f"{i}", tiers[i % 3], "standard", float(rng.uniform(0, 20)), 1.41, float(rng.uniform(10, 500)))
        for i in range(4)
    ]
    demand = {tier: float(rng.uniform(50, 5_000)) for tier in tiers}
    found = split(options, 30.0, demand)

    assert found.margin == approx(brute_force(options, 30.0, demand), rel=1e-6)
    assert sum(found.gpus) <= 30.0 + 1e-6
    more = split(options, 30.01, demand).margin
    assert found.shadow == approx((more - found.margin) / 0.01, abs=1e-4)


def test_scarce_demand_of_the_dear_tier_leaves_gpus_to_the_next() -> None:
    dear = Choice("dear", "premium", "standard", revenue=21.41, cost=1.41, output=100.0)
    cheap = Choice("cheap", "medium", "standard", revenue=3.41, cost=1.41, output=200.0)
    found = split([dear, cheap], 10.0, {"premium": 400.0})

    assert found.gpus == approx((4.0, 6.0))
    assert found.margin == approx(4 * 20 + 6 * 2)
    assert found.shadow == approx(2.0)


def test_where_demand_runs_out_first_another_gpu_is_worth_nothing() -> None:
    only = Choice("only", "premium", "standard", revenue=21.41, cost=1.41, output=100.0)
    found = split([only], 10.0, {"premium": 400.0})

    assert found.gpus == approx((4.0,))
    assert found.shadow == approx(0.0)
    assert split([only], 10.0, {"premium, standard": 200.0}).gpus == approx((2.0,))


def test_a_megawatt_is_split_by_power() -> None:
    hungry = Choice("hungry", "high", "standard", revenue=12.0, cost=2.0, output=1.0, kw=4.0)
    lean = Choice("lean", "medium", "standard", revenue=8.0, cost=2.0, output=1.0, kw=1.0)
    found = split([hungry, lean], 1.0, megawatts=True)

    assert found.gpus == approx((0.0, 1_000.0))
    assert found.used == approx(1.0)
    assert found.shadow == approx(6_000.0)


def test_a_use_that_loses_money_is_not_chosen() -> None:
    assert split([Choice("free", "free", "standard", 0.0, 1.41, 10.0)], 10.0).gpus == approx((0.0,))


def test_nonsense_is_not_split() -> None:
    one = Choice("one", "high", "standard", 2.0, 1.0, 1.0)

    with pytest.raises(ValueError, match="no choice"):
        split([], 1.0)
    with pytest.raises(ValueError, match="budget must be >= 0"):
        split([one], -1.0)
    with pytest.raises(ValueError, match="demand of 'high' must be >= 0"):
        split([one], 1.0, {"high": -1.0})


def test_every_tier_and_class_is_a_choice() -> None:
    found = choices([made_point(speed=75.0)], Factory(), load_prices(), ["standard", "batch"])

    assert {(c.tier, c.service) for c in found} == {
        (tier, service) for tier in ("free", "medium", "high", "premium") for service in ("standard", "batch")
    }
    assert found[1].revenue == approx(2 * next(c for c in found if c.name == "medium, batch").revenue)


def test_a_margin_is_gone_when_the_halvings_have_eaten_it() -> None:
    found = decline(revenue=8.0, cost=1.0, price_half_life=1.5)

    assert found.gone == approx(4.5)
    at = np.interp(4.5, found.years, found.revenue - found.cost)
    assert at == approx(0.0, abs=1e-3)
    assert decline(8.0, 1.0, 1.5, cost_half_life=1.5).gone is None
    assert decline(1.0, 2.0, 1.5).gone == 0.0
