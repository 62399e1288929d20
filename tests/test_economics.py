"""Prices, service classes, and the cost of recorded sessions, against figures worked out by hand."""

from pathlib import Path

import numpy as np
import pytest
from pytest import approx

from collectors.economics import (
    Price,
    call_costs,
    costs,
    elastic,
    entry_cost,
    load_prices,
    rates,
    session_costs,
)
from collectors.humans import session_table
from collectors.ledger import ledger
from collectors.load import from_records
from collectors.records import Call, Session
from tests.collect_made import made_run

PRICE = Price(input=2.0, cached=0.2, output=10.0)


def call(session: int, n_in: int, cached: int, out: int, status: str = "ok") -> Call:
    return Call(
        session, "", "coder", 0, 0, 0.0, 0.0, 0.1, 0.2, 0.8, 0.9, status=status, input_tokens=n_in,
        cached_tokens=cached, output_tokens=out, reasoning_tokens=out // 4,
    )  # fmt: skip


def ended(session: int, outcome: str = "done", intents: int = 1) -> Session:
    return Session(
        session, "", "coder", 0.0, 0.0, 100.0, outcome, intents, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1.0, 0.0, 0.0, 0.0
    )


def test_a_call_costs_its_tokens_by_account() -> None:
    calls = from_records({}, [call(0, 1_000_000, 600_000, 100_000)]).calls

    assert call_costs(calls, PRICE) == approx([0.4 * 2 + 0.6 * 0.2 + 0.1 * 10])


def test_fresh_input_is_written_to_the_cache_where_that_has_a_price() -> None:
    usd = rates(Price(input=3.0, cached=0.3, output=15.0, write=3.75))

    assert usd["input_fresh"] == approx(3.75e-6)
    assert usd["output_reasoning"] == usd["output_visible"] == approx(15e-6)


def test_a_finished_task_carries_the_cost_of_the_failed_one() -> None:
    records = [call(0, 500_000, 0, 0), call(1, 500_000, 0, 0, "truncated"), ended(0), ended(1, "failed")]
    run = from_records({}, list(records))
    found = costs(run.calls, run.sessions, PRICE, np.random.default_rng(0))

    assert found["total"] == approx(2.0)
    assert found["session"].value == approx(1.0)
    assert found["task"].value == approx(2.0)
    assert found["uses"]["wasted"] == approx(1.0)
    assert found["uses"]["useful"] == approx(1.0)


def test_the_tokens_of_the_economics_are_those_of_the_ledger() -> None:
    run = from_records({}, made_run())
    whole = ledger(run.calls, run.sessions)
    found = costs(run.calls, run.sessions, PRICE, np.random.default_rng(0))

    assert found["tokens"] == whole["total"] == int((run.calls.input_tokens + run.calls.output_tokens).sum())
    assert found["total"] == approx(sum(found["accounts"].values()))
    assert found["total"] == approx(float(call_costs(run.calls, PRICE).sum()))
    assert sum(found["uses"].values()) == approx(found["total"])
    assert entry_cost(whole, PRICE) == approx(found["total"])


def test_ended_sessions_cost_what_their_own_calls_cost() -> None:
    run = from_records({}, made_run())
    table = session_table(run.calls, run.sessions)
    theirs = run.calls.where(np.isin(run.calls.session, run.sessions.session[run.sessions.outcome == "done"]))
    done = table.done == 1

    assert session_costs(table, PRICE)[done].sum() == approx(call_costs(theirs.where(_whole(run, theirs)), PRICE).sum())


def _whole(run: object, calls: object) -> np.ndarray:
    """Calls of sessions whose root is done."""
    sessions = run.sessions  # type: ignore[attr-defined]
    roots = sessions.session[(sessions.agent == "") & (sessions.outcome == "done")]
    return np.isin(calls.session, roots)  # type: ignore[attr-defined]


def test_the_interval_of_a_task_holds_in_nine_of_ten_seeds() -> None:
    held = 0
    for rng in np.random.default_rng(5).spawn(200):
        sizes = rng.lognormal(11, 0.8, 200).astype(int)
        run = from_records({}, [x for i, n in enumerate(sizes.tolist()) for x in (call(i, n, 0, 0), ended(i))])
        task = costs(run.calls, run.sessions, PRICE, rng, resamples=200)["task"]
        held += task.low <= 2e-6 * np.exp(11 + 0.32) <= task.high

    assert held >= 180


def test_shipped_prices_are_those_of_their_sources_in_every_class() -> None:
    table = load_prices()

    assert table.price("claude-opus-4.8").output == 25.0
    assert table.price("gpt-5.5", "priority").input == approx(12.5)
    assert table.price("gpt-5.5", "priority").output == approx(75.0)
    assert table.price("gpt-5.5", "batch").output == approx(15.0)
    assert [tier.price for tier in table.tiers.values()] == [0.0, 3.0, 6.0, 45.0, 150.0]
    assert all(price.source and price.as_of for price in table.models.values())
    assert all(tier.source for tier in table.tiers.values())
    assert table.tier_price("premium").input == approx(9.0)


def test_a_price_table_of_ones_own_takes_the_place_of_the_shipped_one(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('collected = "2027-01-01"\n[models.mine]\ninput = 1\ncached = 0.5\noutput = 2\n')

    assert load_prices(file).price("mine").output == 2.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('collected = "x"\n[models.m]\ninput = -1\ncached = 0\noutput = 1', "input must be a price >= 0"),
        ('collected = "x"\n[models.m]\ninput = 1\ncached = 0\nouput = 1', "unknown field `ouput`"),
        ("collected = ", "Invalid value"),
        ('collected = "x"\n[models]\n[tiers.t]\nprice = -3\nspeed = 1\ncontext = 1', "price of a tier must be >= 0"),
    ],
)
def test_a_nonsensical_price_table_gets_one_clear_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)

    with pytest.raises(ValueError, match=said) as error:
        load_prices(file)
    assert "\n" not in str(error.value)


def test_a_model_that_has_no_price_is_named_with_those_that_have() -> None:
    with pytest.raises(ValueError, match="'gpt-9' is not in the price table; there are claude-opus"):
        load_prices().price("gpt-9")
    with pytest.raises(ValueError, match="service class 'gold'"):
        load_prices().price("gpt-5", "gold")


def test_an_empty_run_has_no_price() -> None:
    run = from_records({}, [])

    with pytest.raises(ValueError, match="holds no call"):
        costs(run.calls, run.sessions, PRICE, np.random.default_rng(0))


def test_a_tenfold_price_cut_is_thirteen_times_the_tokens_and_a_little_more_spending() -> None:
    tokens, spending = elastic(0.1)

    assert tokens == approx(12.9, abs=0.05)
    assert spending == approx(1.29, abs=0.005)
    with pytest.raises(ValueError, match="must be > 0"):
        elastic(0.0)
