"""Metrics by numbers worked out by hand."""

import math

import msgspec
import numpy as np
import pytest
from collect_made import made_run
from hypothesis import given
from hypothesis import strategies as st

from collectors import metrics
from collectors.load import Columns, Run, from_records
from collectors.records import CALIBRATION, Call, Session

CALL = Call(0, "", "coder", 0, 0, 1.0, 1.0, 1.1, 1.5, 2.5, 3.0, input_tokens=100, cached_tokens=60, output_tokens=11)
SESSION = Session(0, "", "coder", 0, 0, 10, "done", 1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1.0, 1.0, 1.0, 1.0)


def call(**changes: object) -> Call:
    return msgspec.structs.replace(CALL, **changes)


def session(**changes: object) -> Session:
    return msgspec.structs.replace(SESSION, **changes)


def made(*records: msgspec.Struct) -> Run:
    return from_records({}, list(records))


def calls_of(*records: Call) -> Columns:
    return made(*records).calls


def test_latencies_are_differences_of_instants() -> None:
    calls = calls_of(call(due=0.75, connect=0.125))

    assert metrics.ttft(calls).tolist() == [0.5]
    assert metrics.tpot(calls).tolist() == [0.1]
    assert metrics.e2e(calls).tolist() == [2.0]
    assert metrics.response_time(calls).tolist() == [2.25]
    assert metrics.send_lag(calls).tolist() == [0.125]


def test_tpot_has_no_value_below_two_tokens_and_ttft_none_without_a_token() -> None:
    calls = calls_of(call(output_tokens=1), call(output_tokens=0, first=None, last=None))

    assert np.isnan(metrics.tpot(calls)).all()
    assert np.isnan(metrics.ttft(calls)).tolist() == [False, True]


def test_a_call_that_never_got_a_connection_has_no_send_lag() -> None:
    calls = calls_of(call(status="connect_failed", sent=9.0), call(status="timeout_connect", sent=9.0), call(sent=1.5))

    assert np.isnan(metrics.send_lag(calls)).tolist() == [True, True, False]


def test_latencies_are_over_answered_calls_of_agents_and_the_rest_is_counted_beside_them() -> None:
    calls = calls_of(call(), call(status="http_500"), call(session=CALIBRATION), call(sent=0.5))

    figures = metrics.percentiles(metrics.ttft(metrics.answered(calls)), failed=1)
    assert (figures["count"], figures["failed"], figures["p50"], figures["max"]) == (2, 1, 0.75, 1.0)
    assert len(metrics.agents_calls(calls)) == 3


def test_percentiles_of_nothing_are_nan() -> None:
    figures = metrics.percentiles(np.array([math.nan]))

    assert figures["count"] == 0 and math.isnan(figures["p99"]) and math.isnan(figures["mean"])


def test_the_sweep_line_counts_what_is_open_and_an_end_frees_its_place_for_a_start() -> None:
    level = metrics.sweep(np.array([0.0, 1.0, 2.0]), np.array([2.0, 3.0, 4.0]))

    assert metrics.peak(level) == 2
    assert metrics.time_mean(level, 0.0, 4.0) == pytest.approx(6 / 4)  # 6 call-seconds over 4 s
    assert metrics.time_mean(level, 0.5, 1.5) == pytest.approx(0.5 * 1 + 0.5 * 2)
    assert metrics.time_mean(level, -1.0, 0.0) == 0.0
    assert metrics.time_mean(level, 3.5, 9.5) == pytest.approx(0.5 / 6)


def test_an_amount_is_spread_evenly_between_its_begin_and_its_end() -> None:
    edges = np.array([0.0, 1.0, 2.0, 3.0])

    assert metrics.spread(np.array([10.0]), np.array([0.5]), np.array([2.5]), edges).tolist() == [2.5, 5.0, 2.5]
    assert metrics.spread(np.array([8.0]), np.array([1.2]), np.array([1.2]), edges) == pytest.approx([0.0, 8.0, 0.0])
    both = metrics.spread(np.array([[10.0, 0.0], [0.0, 8.0]]), np.array([0.5, 1.2]), np.array([2.5, 1.2]), edges)
    assert both == pytest.approx(np.array([[2.5, 5.0, 2.5], [0.0, 8.0, 0.0]]))
    assert metrics.spread(*np.zeros((3, 0)), edges).tolist() == [0.0, 0.0, 0.0]


def test_token_rates_add_up_to_the_tokens_of_the_calls() -> None:
    calls = metrics.agents_calls(made(*made_run(agents=10, seconds=30)).calls)
    edges = np.linspace(-1.0, 40.0, 83)

    rates = metrics.token_rate(calls, edges)

    for name, tokens in metrics.accounts(calls).items():
        assert (rates[name] * np.diff(edges)).sum() == pytest.approx(tokens.sum(), rel=1e-6), name


@given(st.lists(st.tuples(*[st.integers(0, 1_000)] * 5), min_size=1, max_size=20))
def test_accounts_sum_to_the_columns_whatever_a_server_claims(counts: list[tuple[int, ...]]) -> None:
    names = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "argument_tokens")
    calls = calls_of(*(call(**dict(zip(names, row, strict=True))) for row in counts))

    parts = metrics.accounts(calls)

    assert all((part >= 0).all() for part in parts.values())
    assert (parts["input_fresh"] + parts["input_cached"]).tolist() == calls.input_tokens.tolist()
    out = parts["output_reasoning"] + parts["output_visible"] + parts["output_arguments"]
    assert out.tolist() == calls.output_tokens.tolist()


def test_goodput_counts_calls_that_keep_every_limit() -> None:
    calls = calls_of(
        call(), call(first=2.4), call(end=9.0), call(status="reset"), call(output_tokens=1), call(first=None)
    )

    assert metrics.goodput(calls, {"ttft": 1.0, "tpot": 0.1, "e2e": 2.0}, seconds=10.0) == pytest.approx(0.2)
    assert metrics.goodput(calls, {}, seconds=10.0) == pytest.approx(0.5)


def test_errors_are_counted_by_status_with_an_example() -> None:
    bad = [call(status="http_429", error=said) for said in ("", "slow down", "again")]

    assert metrics.errors(calls_of(call(), call(status="reset"), *bad)) == {
        "http_429": {"count": 3, "example": "slow down"},
        "reset": {"count": 1, "example": ""},
    }


def test_attempts_per_call_count_retries() -> None:
    calls = calls_of(call(status="http_503"), call(attempt=1, status="http_503"), call(attempt=2), call(step=1))

    assert metrics.retry_amplification(calls) == 2.0


def test_resent_context_is_the_last_prompt_and_its_visible_answer() -> None:
    chain = [
        call(step=0, input_tokens=100, output_tokens=30, reasoning_tokens=10),
        call(step=1, input_tokens=150, output_tokens=20),  # 120 of them known
        call(step=2, input_tokens=80, output_tokens=5),  # compacted: nothing known
        call(step=3, input_tokens=82, output_tokens=5),  # 82 of at most 85 known
    ]
    other = call(session=1, step=1, input_tokens=500)
    calls = calls_of(*reversed(chain), other, call(agent="0", input_tokens=400))

    assert metrics.resent(calls).tolist() == [82, 0, 120, 0, 0, 0]
    assert metrics.resent_share(calls) == pytest.approx(202 / (100 + 150 + 80 + 82 + 500 + 400))


def test_prefix_hits_are_the_cached_share_of_input() -> None:
    assert metrics.prefix_hit_rate(calls_of(call(), call(cached_tokens=0))) == pytest.approx(60 / 200)


def test_demand_figures_count_sub_agents_towards_their_session() -> None:
    run = made(
        session(end=1800, intents=1), session(agent="0", archetype="explorer", start=5, end=900, intents=1),
        session(session=1, end=1800, intents=3), session(session=2, end=3600, intents=0, outcome="unfinished"),
        call(), call(agent="0", archetype="explorer"), call(session=1), call(session=2, input_tokens=989),
    )  # fmt: skip

    assert metrics.agent_hours(run.sessions) == pytest.approx(2.0)
    assert metrics.tokens_per_agent_hour(run.calls, run.sessions) == pytest.approx((3 * 111 + 1000) / 2)
    assert metrics.in_flight_per_agent(run.calls, run.sessions) == pytest.approx(4 * 2.0 / 7200)
    assert metrics.tokens_per_intent(run.calls, run.sessions) == pytest.approx(3 * 111 / 4)
    assert metrics.session_archetype(run.calls, run.sessions).tolist() == ["coder"] * 4


def test_littles_law_holds_when_no_call_is_cut_and_shows_a_gap_when_one_is() -> None:
    calls = calls_of(call(sent=1.0, end=3.0), call(sent=2.0, end=5.0))
    whole, cut = metrics.littles_law(calls, 0.0, 10.0), metrics.littles_law(calls, 0.0, 4.0)

    assert whole == pytest.approx({"in_flight": 0.5, "per_second": 0.2, "seconds": 2.5, "gap": 0.0}, abs=1e-12)
    assert cut["in_flight"] == pytest.approx(1.0) and cut["gap"] == pytest.approx(-0.25)


def test_dispersion_is_one_for_poisson_zero_for_a_metronome_and_large_for_bursts() -> None:
    poisson = np.random.default_rng(5).uniform(0, 1_000, 20_000)
    even, bursts = np.arange(0.05, 1_000, 0.1), np.repeat(np.arange(0.5, 1_000, 1.0), 20)

    assert metrics.dispersion(poisson, 1.0, 0, 1_000) == pytest.approx(1.0, abs=4 * math.sqrt(2 / 999))
    assert metrics.dispersion(even, 1.0, 0, 1_000) == pytest.approx(0.0)
    assert metrics.dispersion(bursts, 0.1, 0, 1_000) == pytest.approx(18.0, abs=0.1)  # 20 in each tenth window
    assert math.isnan(metrics.dispersion(poisson, 200.0, 0, 1_000))


def test_peak_to_mean_compares_the_busiest_window_with_the_mean_one() -> None:
    assert metrics.peak_to_mean(np.array([0.1, 0.2, 0.3, 1.5, 3.9, 7.0]), 1.0, 0.0, 4.0) == pytest.approx(3 / 1.25)
