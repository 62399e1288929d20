"""The forecast against closed forms, its bands, its drivers and its nonsense."""

import math
import time

import numpy as np
import pytest
from pytest import approx

from collectors.forecast import (
    DAYS,
    SECONDS,
    Bass,
    Exponential,
    Forecast,
    Logistic,
    Range,
    Supply,
    Table,
    bands,
    draw,
    family,
    inputs,
    runs_out,
    source_of,
    tornado,
)


def plain(**fields: object) -> Forecast:
    """A forecast without a range, of 1,000 adopters and few paths."""
    known = {"adopters": Table([0.0], [1_000.0]), "tokens": 2e6, "paths": 100, "sub_agents": 0.0} | fields
    return Forecast(**known)  # type: ignore[arg-type]


def test_without_ranges_demand_is_the_product_of_its_factors() -> None:
    found = draw(plain(agents=3.0, sessions=5.0))

    assert found.tokens[0] == approx(1_000 * 3 * 5 * DAYS * 2e6)
    assert found.tokens[-1] == approx(found.tokens[0])


def test_gpus_cost_and_revenue_follow_from_the_tokens() -> None:
    supply = Supply(tokens_per_gpu=1_000.0, utilisation=0.5, gpu_hour_usd=2.0, kw=1.0, pue=1.5)
    found = draw(plain(price=3.0, supply=supply))
    gpus = found.tokens[0, 0] / SECONDS / 500

    assert found.gpus[0] == approx(gpus)
    assert found.megawatts[0] == approx(gpus * 1.5 / 1_000)
    assert found.cost[0] == approx(gpus * 2.0 * DAYS * 24)
    assert found.revenue[0] == approx(3.0 * found.tokens[0, 0] / 1e6)


def test_a_tenfold_price_cut_brings_the_tokens_and_the_spending_of_the_worked_example() -> None:
    months = round(12 * math.log2(10) * 2) + 1  # at a half-life of 2 years the price is then a tenth
    found = draw(plain(months=months, half_life=2.0))

    assert found.price[-1] == approx(0.1, rel=0.02)
    assert found.tokens[-1] / found.tokens[0] == approx(12.9, rel=0.03)
    assert found.revenue[-1] / found.revenue[0] == approx(1.29, rel=0.01)


def test_adoption_curves_are_those_of_their_formulas() -> None:
    logistic = draw(plain(adopters=Logistic(1e6, 2.0, 2.0))).adopters[:, 0]
    bass = draw(plain(adopters=Bass(1e6, 0.03, 0.38), months=121)).adopters[:, 0]
    doubling = draw(plain(adopters=Exponential(100.0, 0.5, ceiling=1e4))).adopters[:, 0]
    table = draw(plain(adopters=Table([0, 10, 20], [0, 100, 50]))).adopters[:, 0]

    assert logistic[24] == approx(5e5)
    assert bass[0] == approx(0.0)
    peak = np.argmax(np.diff(bass)) / 12
    assert peak == approx(math.log(0.38 / 0.03) / 0.41, abs=0.1)  # Bass 1969: ln(q/p)/(p+q)
    assert doubling[[0, 6, 12]] == approx([100, 200, 400])
    assert doubling[-1] == 1e4
    assert table[[0, 5, 10, 15, 30]] == approx([0, 50, 100, 75, 50])


def test_longer_chains_more_sub_agents_and_dying_applications_each_do_their_part() -> None:
    longer = draw(plain(months=13, calls=1.0, exponent=1.33)).tokens[:, 0]
    kin = draw(plain(months=13, sub_agents=0.0, sub_agents_end=2.0, depth=2, child_share=0.5)).tokens[:, 0]
    dying = draw(plain(months=13, dying=0.4, life=1.0)).tokens[:, 0]

    assert longer[-1] / longer[0] == approx(2**1.33)
    assert kin[-1] / kin[0] == approx(1 + 0.5 * (2 + 4))
    assert dying[-1] / dying[0] == approx(1 - 0.4 * (1 - math.exp(-1)))


def test_families_are_those_of_the_branching_process() -> None:
    assert family(np.array([0.6]), None) == approx(2.5)
    assert family(np.array([2.0]), 2) == approx(7.0)


def test_bands_hold_what_they_say() -> None:
    found = draw(plain(paths=40_000, agents=Range(1.0, 3.0)))
    band = {level: values[0] for level, values in bands(found)["tokens"].items()}
    each = 1_000 * 10 * DAYS * 2e6

    assert [band[f"p{p}"] / each for p in (5, 25, 50, 75, 95)] == approx([1.1, 1.5, 2.0, 2.5, 2.9], abs=0.03)


def test_the_uncertainty_of_measured_sessions_is_that_of_their_mean() -> None:
    sessions = np.random.default_rng(0).lognormal(14, 1.0, 200)
    found = draw(plain(tokens=None, paths=20_000), sessions)
    drawn = found.draws["tokens"]

    assert drawn.mean() == approx(sessions.mean(), rel=0.01)
    assert drawn.std() == approx(sessions.std() / math.sqrt(200), rel=0.05)
    with pytest.raises(ValueError, match="neither given nor measured"):
        draw(plain(tokens=None))


def test_the_tornado_ranks_inputs_by_what_they_do() -> None:
    found = draw(plain(paths=20_000, agents=Range(1.0, 10.0), sessions=Range(9.0, 11.0), price=Range(1.0, 5.0)))
    rows = tornado(found, ("tokens", "revenue"))

    assert [row["input"] for row in rows["tokens"]][:2] == ["agents", "sessions"]
    assert rows["tokens"][0]["share"] > 0.95
    assert rows["tokens"][0]["low"] < rows["tokens"][0]["high"]
    assert {row["input"] for row in rows["revenue"][:2]} == {"agents", "price"}
    assert sum(row["share"] for row in rows["revenue"]) == approx(1.0)


def test_capacity_runs_out_when_demand_passes_it() -> None:
    supply = Supply(gpus=100.0, gpus_per_month=10.0, tokens_per_gpu=1_000.0, utilisation=1.0)
    doubling = Exponential(1.0, 1.0)
    each = 100 * 1_000 * SECONDS / DAYS / 10  # tokens of a session at which one adopter fills 100 GPUs
    found = runs_out(draw(plain(adopters=doubling, tokens=each, supply=supply)))
    month = next(t for t in range(60) if 100 * 2 ** (t / 12) > 100 + 10 * t)

    assert found is not None
    assert found["month"]["p50"] == month
    assert found["share"][month] == 1.0
    assert runs_out(draw(plain())) is None


def test_a_hundred_thousand_paths_of_five_years_take_less_than_ten_seconds() -> None:
    wide = Forecast(
        adopters=Logistic(Range(1e5, 3e6, 5e5), Range(1, 3, 2), Range(1, 3)), agents=Range(1, 8, 2),
        sessions=Range(3, 20, 8), half_life=Range(1, 3), elasticity=Range(0.8, 1.6, 1.11), calls=Range(0, 1, 0.4),
        sub_agents=0.1, sub_agents_end=Range(0.2, 2), dying=Range(0.1, 0.6), noise=0.3,
        supply=Supply(gpus=2e4, gpus_per_month=500.0, better=Range(0.1, 0.6)),
    )  # fmt: skip
    began = time.process_time()
    found = draw(wide, np.random.default_rng(0).lognormal(14, 1.2, 500))
    bands(found)
    tornado(found, ("tokens", "gpus", "cost", "revenue"))

    assert found.tokens.shape == (60, 100_000)
    assert time.process_time() - began < 10  # of this process: the machine may have others


def test_the_same_seed_gives_the_same_paths() -> None:
    ranged = plain(agents=Range(1.0, 3.0), noise=0.2)

    assert np.array_equal(draw(ranged).tokens, draw(ranged).tokens)


def test_a_random_walk_spreads_with_the_root_of_time() -> None:
    found = draw(plain(paths=20_000, months=37, noise=0.3))

    assert np.log(found.tokens[12]).std() == approx(0.3, rel=0.05)
    assert np.log(found.tokens[36]).std() == approx(0.3 * math.sqrt(3), rel=0.05)


def test_every_input_is_named_with_its_source() -> None:
    known = inputs(plain(agents=Range(1.0, 2.0, source="a survey")))

    assert {"agents", "elasticity", "supply.gpu_hour_usd"} <= set(known)
    assert source_of(plain(agents=Range(1.0, 2.0, source="a survey")), "agents") == "a survey"
    assert "NBER" in source_of(plain(), "elasticity")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"agents": -1.0}, "agents must lie within 0 and inf, got -1"),
        ({"price": -0.5}, "price must lie within 0"),
        ({"dying": 1.5}, "dying must lie within 0 and 1"),
        ({"supply": Supply(utilisation=1.4)}, "utilisation must lie within"),
        ({"sub_agents": 1.2, "depth": None}, "sub-agents without end"),
        ({"sub_agents_end": Range(0.5, 1.0), "depth": None}, "sub-agents without end"),
    ],
)
def test_a_nonsensical_forecast_gets_one_clear_line(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        plain(**fields)


def test_ranges_and_tables_must_make_sense() -> None:
    with pytest.raises(ValueError, match="low <= likely <= high"):
        Range(2.0, 1.0)
    with pytest.raises(ValueError, match="above 0"):
        Range(0.0, 1.0, log=True)
    with pytest.raises(ValueError, match="months must rise"):
        Table([1.0, 0.0], [1.0, 1.0])
