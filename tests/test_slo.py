"""Service levels: how they are written, and what a run says about them."""

import datetime
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from collectors import slo
from collectors.load import Run, from_records
from collectors.records import CALIBRATION, Call, Session


def call(session: int, due: float, ttft: float | None, *, seconds: float = 1.0, **more: Any) -> Call:
    """A call that was sent when it was due, and took `seconds` from its first token, or from `due` without one."""
    first = None if ttft is None else due + ttft
    end = due + (ttft or 0.0) + seconds
    fields: dict[str, Any] = {"output_tokens": 21, "finish_reason": "stop"} | more
    last = None if first is None else end
    return Call(session, "", "fixed", 0, 0, due, due, first, first, last, end, **fields)


def session(number: int, due: float, end: float, outcome: str = "done") -> Session:
    return Session(number, "", "fixed", due, due, end, outcome, 1, *[0] * 10, *[0.0] * 4)


def judged(text: str, records: Sequence[Call | Session], header: dict[str, Any] | None = None) -> slo.Judged:
    run: Run = from_records(header or {}, list(records))
    return slo.judge(slo.parse(text), *slo.counted(run))


@pytest.mark.parametrize(
    ("text", "name", "limit", "needed", "at_least"),
    [
        ("ttft_p95=2", "ttft_p95", 2.0, 0.95, False),
        (" itl_p99 <= 0.05 ", "itl_p99", 0.05, 0.99, False),
        ("output_speed_p25=20", "output_speed_p25", 20.0, 0.75, True),
        ("output_speed_p25>=20", "output_speed_p25", 20.0, 0.75, True),
        ("session_p50=600", "session_p50", 600.0, 0.50, False),
        ("error_rate=0.01", "error_rate", 0.01, 0.99, False),
    ],
)
def test_a_name_and_a_limit_are_an_objective_whose_metric_knows_the_direction(
    text: str, name: str, limit: float, needed: float, at_least: bool
) -> None:
    found = slo.parse(text)

    assert (found.name, found.limit, found.at_least) == (name, limit, at_least)
    assert found.needed == pytest.approx(needed)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tftt_p95=2", "did you mean ttft_p95?"),
        ("ttft=2", "did you mean ttft_p95?"),
        ("sesion_p90=2", "did you mean session_p90?"),
        ("output_speed=20", "did you mean output_speed_p25?"),
        ("error_rat=0.1", "did you mean error_rate?"),
        ("ttft_p100=2", "p1 to p99"),
        ("ttft_p0=2", "p1 to p99"),
        ("ttft_p95", "must be NAME=LIMIT"),
        ("ttft_p95<2", "must be NAME=LIMIT"),
        ("ttft_p95=2s", "must be a number (seconds), got '2s'"),
        ("ttft_p95=-1", ">= 0"),
        ("ttft_p95=nan", "must be a number"),
        ("ttft_p95>=2", "must be <= its limit; write ttft_p95=2"),
        ("output_speed_p25<=9", "must be >= its limit"),
        ("error_rate=1", "1 % is 0.01"),
    ],
)
def test_a_bad_objective_is_one_line_that_names_the_fix(text: str, said: str) -> None:
    with pytest.raises(ValueError) as error:
        slo.parse(text)

    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_table_is_one_tier_and_a_table_of_tables_several() -> None:
    (one,) = slo.from_table({"ttft_p95": 2, "error_rate": 0.01})
    fast, slow = slo.from_table({"fast": {"ttft_p95": 1.0}, "slow": {"ttft_p95": 9.0}})

    assert [str(each) for each in one.slos] == ["ttft_p95 ≤ 2", "error_rate ≤ 0.01"]
    assert (fast.name, slow.name, slow.slos[0].limit) == ("fast", "slow", 9.0)
    with pytest.raises(ValueError, match="'ttft_p95' stands beside tiers"):
        slo.from_table({"ttft_p95": 2, "slow": {"ttft_p95": 9.0}})
    with pytest.raises(ValueError, match="empty"):
        slo.from_table({})
    with pytest.raises(ValueError, match="must be a number"):
        slo.from_table({"ttft_p95": "2"})


def test_the_shipped_tiers_are_dated_have_a_source_and_get_stricter() -> None:
    sets = slo.published()
    assert "aa-deepseek-v4-pro" in sets
    for name, entry in sets.items():
        tiers = slo.tiers_named(name)
        speeds = [tier.slos[0].limit for tier in tiers]

        assert isinstance(entry["as_of"], datetime.date)
        assert entry["source"].startswith("https://")
        assert {each.name for tier in tiers for each in tier.slos} == {"output_speed_p25", "ttft_p95"}
        assert speeds == sorted(speeds)
    with pytest.raises(ValueError, match="there are aa-"):
        slo.tiers_named("aa")


def test_a_percentile_keeps_its_limit_exactly_when_the_share_of_good_calls_suffices() -> None:
    calls = [call(i, i, 0.5 if i < 95 else 3.0) for i in range(100)]

    kept, broken = judged("ttft_p95=0.5", calls), judged("ttft_p96=0.5", calls)

    assert (kept.share, kept.value, kept.items) == (0.95, 0.5, 100)
    assert (broken.share, broken.value) == (0.95, 3.0)


def test_output_speed_is_of_one_call_after_its_first_token_and_its_p25_is_its_slow_side() -> None:
    calls = [call(i, i, 0.2, seconds=1.0 if i % 10 < 3 else 0.5) for i in range(100)]  # 20 tokens in 1 s or half of it

    found = judged("output_speed_p25=25", calls)

    assert found.value == pytest.approx(20.0)
    assert found.share == pytest.approx(0.70)
    assert judged("output_speed_p25=19.9", calls).share == 1.0


def test_a_call_that_failed_is_outside_every_limit() -> None:
    calls = [call(i, i, None, status="http_503") if i % 10 == 0 else call(i, i, 0.1) for i in range(100)]

    shares = {name: judged(f"{name}={limit}", calls).share for name, limit in LOOSE.items()}

    assert shares == dict.fromkeys(LOOSE, 0.9)
    assert judged("ttft_p95=9", calls).value is None  # no time is long enough
    assert judged("error_rate=0.2", calls).value == pytest.approx(0.1)


LOOSE = {"ttft_p95": 9, "e2e_p95": 9, "response_p95": 9, "tpot_p95": 9, "output_speed_p25": 0.01, "error_rate": 0.5}


def test_a_call_cut_by_the_end_is_bad_if_it_was_late_by_then_and_left_out_if_nobody_can_tell() -> None:
    calls = [call(i, i, 0.1) for i in range(98)]
    waiting = [call(98, 98, None, seconds=5.0, status="cancelled"), call(99, 99, None, seconds=0.2, status="cancelled")]
    begun = [call(97, 97, 0.3, seconds=5.0, status="cancelled")]

    ttft, e2e = judged("ttft_p95=2", calls + waiting + begun), judged("e2e_p95=2", calls + waiting + begun)

    assert (ttft.items, ttft.cut, ttft.share) == (100, 1, 0.99)  # the first token of the third came in time
    assert (e2e.items, e2e.cut, e2e.share) == (100, 1, 0.98)
    assert judged("error_rate=0.5", calls + waiting).items == 98


def test_session_latency_counts_sessions_that_failed_as_bad_and_leaves_out_the_unfinished() -> None:
    rows = [session(i, i, i + 10) for i in range(20)]
    rows += [session(20, 0, 1, "failed"), session(21, 0, 50, "unfinished"), session(22, 0, 5, "unfinished")]

    found = judged("session_p90=20", rows)

    assert (found.items, found.cut, found.sessions) == (22, 1, 22)
    assert found.share == pytest.approx(20 / 22)


def test_itl_is_judged_on_every_gap_and_says_so_where_none_were_kept() -> None:
    kept = [call(i, i, 0.1, chunks=5, itl=(0.01, 0.01, 0.01, 0.5)) for i in range(50)]
    lost = [call(i, i, 0.1, chunks=5) for i in range(50)]

    assert judged("itl_p75=0.1", kept).items == 200
    assert judged("itl_p75=0.1", kept).share == 0.75
    with pytest.raises(ValueError, match="set itl = true"):
        judged("itl_p95=0.1", lost)


def test_only_counted_phases_and_agents_calls_are_judged() -> None:
    calls = [call(i, float(i), 9.0 if i < 10 else 0.1) for i in range(30)] + [call(CALIBRATION, -1.0, 9.0)]
    header = {
        "phases": [["warm-up", 0.0, 10.0, False], ["measurement", 10.0, 25.0, True], ["drain", 25.0, None, False]]
    }

    assert judged("ttft_p95=1", calls, header).items == 15
    assert judged("ttft_p95=1", calls, header).share == 1.0
    assert judged("ttft_p95=1", calls).items == 30


def test_a_queue_that_grows_fails_by_its_second_half_though_the_whole_seems_good() -> None:
    calls = [call(i, i / 10, 0.1 if i < 1_000 else 3.0) for i in range(2_000)]

    found = judged("ttft_p25=1", calls)

    assert (found.verdict, found.part, found.share) == ("fail", "second half", 0.0)
    assert judged("ttft_p25=1", calls[:1_000]).verdict == "pass"


@pytest.mark.parametrize(("good", "verdict"), [(0.99, "pass"), (0.95, "undecided"), (0.90, "fail")])
def test_the_verdict_is_where_the_whole_interval_lies(good: float, verdict: str) -> None:
    n = 1_000
    late = np.linspace(0, n - 1, round(n * (1 - good))).astype(int)  # spread evenly
    calls = [call(i, i, 3.0 if i in late else 0.1) for i in range(n)]

    found = judged("ttft_p95=1", calls)

    assert found.verdict == verdict
    assert found.low < good < found.high


def test_all_objectives_of_a_tier_must_pass_and_one_failure_fails_it() -> None:
    assert slo.together(["pass", "pass"]) == "pass"
    assert slo.together(["pass", "undecided"]) == "undecided"
    assert slo.together(["undecided", "fail"]) == "fail"
    assert slo.together([]) == "undecided"


@pytest.mark.parametrize(  # Newcombe 1998, Statistics in Medicine 17, 857, table I, method 3
    ("good", "n", "low", "high"), [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)]
)
def test_the_score_interval_is_the_published_one(good: int, n: int, low: float, high: float) -> None:
    assert slo.wilson(good / n, n) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(("freedom", "t"), [(3, 3.1824), (5, 2.5706), (10, 2.2281), (30, 2.0423), (1000, 1.9623)])
def test_students_quantile_is_the_tabled_one_within_a_percent(freedom: int, t: float) -> None:
    assert slo.student(freedom) == pytest.approx(t, rel=0.01)


def test_items_that_share_one_fate_by_session_are_worth_no_more_than_their_sessions() -> None:
    good, cluster = np.repeat([True, False] * 20, 50), np.repeat(np.arange(40), 50)

    alike = slo.effective_size(good, cluster)
    mixed = slo.effective_size(np.tile([True, False], 1_000), cluster)

    assert alike == pytest.approx(39 * (slo.Z / slo.student(39)) ** 2)  # k - 1 of k sessions, and Student's price
    assert mixed == pytest.approx(2_000 * (slo.Z / slo.student(39)) ** 2)
    assert slo.effective_size(good, np.zeros(2_000)) == 1.0


def test_the_interval_covers_the_true_share_of_clustered_calls_as_often_as_it_says() -> None:
    covered = naive = 0
    for rng in np.random.default_rng(3).spawn(400):
        chance = np.repeat(rng.beta(9.0, 1.0, 60), 30)  # mean 0.9; sessions differ
        good, cluster = rng.random(1_800) < chance, np.repeat(np.arange(60), 30)
        low, high = slo.wilson(good.mean(), slo.effective_size(good, cluster))
        covered += low <= 0.9 <= high
        low, high = slo.wilson(good.mean(), len(good))
        naive += low <= 0.9 <= high

    assert covered / 400 == pytest.approx(0.95, abs=0.033)  # three standard errors
    assert naive / 400 < 0.75


def test_two_measurements_of_one_load_are_worth_their_sum() -> None:
    parts = [judged("ttft_p95=1", [call(i, i, 3.0 if i % 25 == 0 else 0.1) for i in range(n)]) for n in (300, 600)]

    both = slo.pooled(parts)

    assert both.items == 900
    assert both.effective == pytest.approx(sum(part.effective for part in parts))
    assert both.high - both.low < min(part.high - part.low for part in parts)
    assert [part.verdict for part in parts] == ["undecided", "undecided"]


def test_a_bad_measurement_weighs_by_its_calls_though_they_share_one_bad_spell() -> None:
    good = judged("ttft_p95=1", [call(i, i, 0.1) for i in range(200)])
    spell = judged("ttft_p95=1", [call(i, i, 3.0 if i < 100 else 0.1) for i in range(200)])
    nothing = judged("ttft_p95=1", [session(0, 0, 1)])

    assert spell.effective < 30
    assert slo.pooled([good, spell]).share == 0.75
    assert slo.pooled([good, spell]).effective < 2 * 2 * spell.effective + 1
    assert slo.pooled([good, nothing]) == good


def test_without_a_call_nothing_is_decided() -> None:
    found = judged("ttft_p95=1", [session(0, 0, 1)])

    assert (found.verdict, found.share, found.items) == ("undecided", None, 0)
    assert math.isclose(found.high - found.low, 1.0)
