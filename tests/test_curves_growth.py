"""Growth along the chain, branching and retries: worked examples, simulations, and recorded calls."""

import numpy as np
import pytest
from pytest import approx

from collectors.growth import (
    amplified,
    by_turn,
    chain_fresh,
    chain_growth,
    chain_input,
    extinction,
    family,
    overtakes,
    progeny,
    progeny_variance,
    retry_amplification,
    retry_equilibria,
)
from collectors.load import from_records
from collectors.records import Call, Session
from collectors.steady import CannotSay


def chain_calls(session: int, base: int, per_turn: int, turns: int, agent: str = "") -> list[Call]:
    """A chain that resends its context, served by a cache that forgets nothing."""
    return [
        Call(
            session, agent, "coder", t, 0, t, t, t + 0.1, t + 0.2, t + 0.8, t + 0.9,
            finish_reason="stop", input_tokens=base + per_turn * t, cached_tokens=base + per_turn * (t - 1) if t else 0,
            output_tokens=10,
        )
        for t in range(turns)
    ]  # fmt: skip


def row(session: int, agent: str, children: int, tokens: int) -> Session:
    return Session(
        session, agent, "coder", 0.0, 0.0, 1.0, "done", 1, 1, 1, 0, children, 0, tokens, 0, 0, 0, 0, 1.0, 0.0, 0.0, 0.0
    )


def test_the_quadratic_term_of_the_measured_coder_overtakes_at_48_turns() -> None:
    assert overtakes(25_000, 1_070) == approx(47.7, abs=0.05)
    t = overtakes(25_000, 1_070)
    assert 25_000 * t == approx(1_070 * t * (t - 1) / 2)


def test_a_chain_sums_to_the_closed_form_with_and_without_a_cache() -> None:
    inputs = [2_000 + 300 * t for t in range(12)]

    assert chain_input(2_000, 300, 12) == approx(sum(inputs))
    assert chain_fresh(2_000, 300, 12) == approx(2_000 + 300 * 11)


def test_the_growth_of_recorded_chains_is_found() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 60, 40)
    calls = [c for i, turns in enumerate(lengths.tolist()) for c in chain_calls(i, 20_000, 1_000, turns)]
    found = chain_growth(from_records({}, list(calls)).calls, rng, resamples=200)

    assert found.base.value == 20_000
    assert found.per_turn.value == approx(1_000)
    assert found.overtakes == approx(41.0)
    assert found.total is not None
    assert 1.0 < found.total.exponent.value < 2.0  # between linear and quadratic
    assert found.fresh is not None
    assert found.fresh.exponent.value < 1.0
    assert found.quadratic < 1e-9 < found.linear
    assert found.compacted == 0.0


def test_a_compaction_does_not_pass_for_shrinking_growth() -> None:
    calls = []
    for i in range(20):
        first = chain_calls(i, 10_000, 500, 10 + i % 7)
        again = [
            Call(i, "", "coder", len(first) + t, 0, 50 + t, 50 + t, 50 + t, 50 + t, 51 + t, 51 + t,
                 finish_reason="stop", input_tokens=8_000 + 500 * t, output_tokens=10)
            for t in range(10)
        ]  # fmt: skip
        calls += first + again
    found = chain_growth(from_records({}, list(calls)).calls, np.random.default_rng(1), resamples=100)

    assert found.per_turn.value == approx(500)
    assert found.compacted == 1.0


def test_few_chains_carry_no_fit() -> None:
    calls = [c for i in range(9) for c in chain_calls(i, 100, 10, 5)]

    with pytest.raises(CannotSay, match="9 chains"):
        chain_growth(from_records({}, list(calls)).calls, np.random.default_rng(0))


def test_input_by_turn_is_what_a_chain_that_got_there_had_sent() -> None:
    calls = [c for i in range(10) for c in chain_calls(i, 1_000, 100, 10 if i < 5 else 3)]
    rows = by_turn(from_records({}, list(calls)).calls)

    assert rows["turn"].tolist() == list(range(1, 11))
    assert rows["resent"] == approx(chain_input(1_000, 100, rows["turn"]))
    assert rows["fresh"] == approx(chain_fresh(1_000, 100, rows["turn"]))


def test_six_tenths_of_a_child_are_two_and_a_half_agents() -> None:
    assert progeny(0.6) == approx(2.5)
    assert progeny(2.0, depth=2) == 7.0
    assert progeny(1.0, depth=3) == 4.0
    assert amplified(0.6, child_share=0.5) == approx(1.75)


def test_progeny_and_its_variance_are_those_of_simulated_families() -> None:
    rng = np.random.default_rng(0)
    alive = np.ones(40_000, int)
    total = alive.copy()
    while alive.any():
        alive = rng.poisson(0.6 * alive)
        total += alive

    assert total.mean() == approx(progeny(0.6), abs=0.06)
    assert total.var() == approx(progeny_variance(0.6, 0.6), rel=0.1)


@pytest.mark.parametrize(("mean", "q"), [(0.5, 1.0), (1.0, 1.0), (2.0, 0.2031878), (1.5, 0.4171884)])
def test_extinction_of_poisson_families(mean: float, q: float) -> None:
    assert extinction(mean) == approx(q, abs=1e-6)


def test_extinction_of_two_children_or_none_is_the_root_of_its_quadratic() -> None:
    assert extinction(0.0, np.array([0.4, 0.0, 0.6])) == approx(0.4 / 0.6)


def test_a_family_without_end_needs_a_depth() -> None:
    with pytest.raises(ValueError, match=r"R = 1.2 without a depth"):
        progeny(1.2)
    with pytest.raises(ValueError, match=">= 0"):
        progeny(-0.1)


def test_recorded_families_are_measured_beside_theory() -> None:
    rows = []
    for session in range(50):
        children = session % 3
        rows.append(row(session, "", children, 1_000))
        rows += [row(session, str(i), 0, 250) for i in range(children)]
    run = from_records({}, list(rows))
    found = family(run.calls, run.sessions, np.random.default_rng(0))
    mean = np.mean([s % 3 for s in range(50)])

    assert found.generations == approx((mean, 0.0))
    assert found.measured.value == approx(1 + mean)
    assert found.theory == approx(1 + mean)
    assert found.measured.low < 1 + mean < found.measured.high
    assert found.child_share == approx(0.25)
    assert found.tokens.value == approx(1 + 0.25 * mean)
    assert found.extinct == 1.0


def test_the_interval_of_agents_per_session_holds_in_nine_of_ten_seeds() -> None:
    held = 0
    for rng in np.random.default_rng(4).spawn(200):
        kids = rng.poisson(0.8, 80).tolist()
        rows = [row(i, "", k, 1) for i, k in enumerate(kids)]
        rows += [row(i, str(j), 0, 1) for i, k in enumerate(kids) for j in range(k)]
        run = from_records({}, list(rows))
        found = family(run.calls, run.sessions, rng, resamples=200)
        held += found.measured.low <= 1.8 <= found.measured.high

    assert held >= 180


def test_retries_multiply_attempts() -> None:
    assert retry_amplification(0.5) == 2.0
    assert retry_amplification(0.5, retries=2) == approx(1.75)
    assert retry_amplification(0.5, retries=2, layers=2) == approx(1.75**2)
    assert retry_amplification(1.0, retries=3) == 4.0
    with pytest.raises(ValueError, match="never end"):
        retry_amplification(1.0)


def test_a_system_that_fails_under_load_has_a_second_state() -> None:
    steep = retry_equilibria(lambda load: 1 / (1 + np.exp(-(load - 180) / 5)), offered=100, retries=2)
    gentle = retry_equilibria(lambda load: np.full_like(load, 0.1), offered=100, retries=2)

    assert len(steep) == 3
    assert steep[0] == approx(100, rel=0.01)
    assert steep[2] == approx(300, rel=0.01)
    assert gentle == [approx(111.0, rel=1e-3)]
