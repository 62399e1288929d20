"""Two runs side by side: what is found, and what is not claimed."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from collect_made import HEADER, made_run

from collectors import resample
from collectors.compare import compare, compare_capacity, compare_runs, to_text
from collectors.load import Run, from_records
from collectors.records import Call, Session
from collectors.store import Store, write_header


def made(
    rng: np.random.Generator,
    slower: float = 1.0,
    sessions: int = 60,
    steps: int = 10,
    failing: float = 0.0,
    **header: Any,
) -> Run:
    """Sessions whose calls share a speed: TTFT lognormal by session and by call, times `slower`."""
    records: list[Call | Session] = []
    for number in range(sessions):
        now, speed = float(number), float(rng.lognormal(0, 0.3))
        for step in range(steps):
            ttft = 0.2 * slower * speed * float(rng.lognormal(0, 0.4))
            first, end = now + ttft, now + ttft + 0.4
            status = "http_503" if rng.random() < failing else "ok"
            records.append(
                Call(number, "", "coder", step, 0, now, now, now, first, end, end, status=status, finish_reason="stop",
                     input_tokens=1_000, cached_tokens=500, output_tokens=int(rng.integers(20, 60)))
            )  # fmt: skip
            now = end
        records.append(Session(number, "", "coder", number, number, now, "done", 1, steps, steps, *[0] * 8, *[0.0] * 4))
    return from_records({"duration": 80.0, "health": {}, "spec": {"scale": 1.0}} | header, records)


def rows(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in found["figures"]}


def test_between_runs_of_one_distribution_the_intervals_cover_no_change_at_least_9_times_in_10() -> None:
    names = ("ttft_p50", "ttft_p95", "session_p50", "tokens_per_agent_hour", "output_speed_p25")
    covered = dict.fromkeys(names, 0)
    for rng in np.random.default_rng(5).spawn(200):
        found = rows(compare_runs(made(rng, sessions=30, steps=5), made(rng, sessions=30, steps=5), count=250))
        for name in names:
            covered[name] += found[name]["verdict"] == "none"

    assert {name: count / 200 for name, count in covered.items() if count / 200 < 0.90} == {}
    assert min(covered.values()) < 200  # an interval that always covers says nothing


def test_a_slower_run_is_found_and_said_in_a_sentence() -> None:
    rng = np.random.default_rng(1)

    found = rows(compare_runs(made(rng), made(rng, slower=1.6)))

    for name in ("ttft_p50", "ttft_p95", "e2e_p50", "session_p50"):
        assert found[name]["verdict"] == "up", name
    assert found["ttft_p50"]["low"] < 0.6 < found["ttft_p50"]["high"]
    assert found["ttft_p50"]["sentence"].startswith("B is slower: TTFT p50 +")
    assert found["tpot_p50"]["verdict"] == "none"
    assert found["tpot_p50"]["sentence"].startswith("No difference can be shown: TPOT p50 ")


def test_swapping_the_runs_turns_the_finding_round() -> None:
    a, b = made(np.random.default_rng(1)), made(np.random.default_rng(2), slower=1.6)

    assert rows(compare_runs(a, b))["ttft_p50"]["verdict"] == "up"
    assert rows(compare_runs(b, a))["ttft_p50"]["sentence"].startswith("B is faster: TTFT p50 −")


def test_shares_are_compared_in_points_and_failures_are_found() -> None:
    rng = np.random.default_rng(3)

    found = rows(compare_runs(made(rng), made(rng, failing=0.1)))["error_rate"]

    assert (found["a"], found["relative"], found["verdict"]) == (0.0, False, "up")
    assert found["change"] == pytest.approx(0.1, abs=0.037)  # three standard errors
    assert "points" in found["sentence"]


def test_calls_of_one_session_are_not_taken_for_independent() -> None:
    """The interval follows the spread of sessions: with it between them alone, ten calls each are worth one."""
    rng = np.random.default_rng(4)
    values, code = np.repeat(rng.normal(10, 1, 100), 10), np.repeat(np.arange(100), 10)
    statistic = resample.percentiles(values, code, (50,))

    drawn = np.concatenate([statistic(w)[:, 0] for w in resample.resamples(100, 2_000, rng)])

    assert drawn.std() == pytest.approx(1.2533 / np.sqrt(100), rel=0.35)  # of a median of 100; of 1,000 it is a third


def test_resampled_percentiles_are_those_of_the_sessions_drawn() -> None:
    rng = np.random.default_rng(6)
    values, code = rng.exponential(size=200), rng.integers(0, 7, 200)
    weights = next(resample.resamples(7, 5, rng))

    found = resample.percentiles(values, code, (50, 95))(weights)

    for row, weight in zip(found, weights, strict=True):
        taken = np.sort(np.repeat(values, weight[code]))
        assert row == pytest.approx([taken[int(np.ceil(q * len(taken))) - 1] for q in (0.5, 0.95)])
    assert weights.sum(axis=1).tolist() == [7] * 5


def test_figures_worked_out_by_hand() -> None:
    calls = [Call(i, "", "chat", 0, 0, i, i, i, i + 0.5, i + 1.5, i + 1.5, input_tokens=90, cached_tokens=45,
                  output_tokens=10) for i in range(20)]  # fmt: skip
    sessions = [Session(i, "", "chat", i, i, i + 3.0, "done", 2, 1, 1, *[0] * 8, *[0.0] * 4) for i in range(20)]
    run = from_records({"duration": 40.0}, [*calls, *sessions])

    found = {name: row["a"] for name, row in rows(compare_runs(run, run)).items()}

    assert found["ttft_p50"] == pytest.approx(0.5)
    assert found["output_speed_p25"] == pytest.approx(9.0)
    assert found["session_p50"] == pytest.approx(3.0)
    assert found["calls_per_second"] == pytest.approx(0.5)
    assert found["output_tokens_per_second"] == pytest.approx(5.0)
    assert found["prefix_hit_rate"] == pytest.approx(0.5)
    assert found["tokens_per_agent_hour"] == pytest.approx(2_000 / (60 / 3600))
    assert found["tokens_per_intent"] == pytest.approx(50.0)


def test_warm_up_is_left_out_of_both() -> None:
    header = {"phases": [["warm-up", 0.0, 30.0, False], ["measurement", 30.0, 60.0, True]]}
    rng = np.random.default_rng(8)

    found = compare_runs(made(rng, **header), made(rng))

    assert 25 <= found["sessions"][0] < 40
    assert found["sessions"][1] == 60


def test_too_few_sessions_or_too_thin_a_tail_say_nothing() -> None:
    rng = np.random.default_rng(9)

    few = compare_runs(made(rng, sessions=6), made(rng))
    thin = rows(compare_runs(made(rng, sessions=30), made(rng)))

    assert {row["verdict"] for row in few["figures"]} == {"unknown"}
    assert "A has 6 sessions" in few["notes"][0]
    assert thin["ttft_p99"]["sentence"].startswith("Too few data to tell: TTFT p99")
    assert thin["ttft_p50"]["verdict"] == "none"


def test_what_is_not_comparable_is_said_and_where_the_server_runs_is_not() -> None:
    def run(seed: int, **changes: Any) -> Run:
        spec = {"scale": 1.0, "seed": seed, "endpoint": {"url": f"http://{seed}"}, "profile": {"agents": 8}}
        endpoint = {"model": "m", "simulated": False}
        return made(np.random.default_rng(seed), spec=spec | changes, endpoint=endpoint | changes.pop("endpoint", {}))

    assert compare_runs(run(1), run(2))["warnings"] == []
    (warning,) = compare_runs(run(1), run(2, profile={"agents": 9}))["warnings"]
    assert warning == "the specs differ: profile.agents 8 → 9"
    said = compare_runs(run(1), run(2, endpoint={"model": "n", "simulated": True}))["warnings"]
    assert "B ran against a simulated cluster and the other against a real one" in said
    assert "the models differ: m and n" in said
    untrusted = made(np.random.default_rng(1), health={"cpu_share": 0.99})
    assert any(text.startswith("B is not trustworthy") for text in compare_runs(run(1), untrusted)["warnings"])


def test_run_folders_are_compared_and_the_result_is_json_and_text(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        store = Store(tmp_path / name)
        for record in made_run(seed=seed):
            store.emit(record)
        store.close()
        write_header(tmp_path / name, HEADER)

    found = compare(tmp_path / "a", tmp_path / "b")
    text = to_text(found)

    assert msgspec.json.decode(msgspec.json.encode(found)) == found
    assert {"ttft_p95", "itl_p50", "tpot_p99", "e2e_p50", "session_p50", "tokens_per_intent"} <= set(rows(found))
    assert text.splitlines()[0].startswith("A  ")
    assert "TTFT p95" in text
    assert compare(tmp_path / "a", tmp_path / "b") == found  # seeded


def test_a_folder_that_is_no_run_and_an_empty_run_are_refused(tmp_path: Path) -> None:
    write_header(tmp_path / "empty", {})

    with pytest.raises(FileNotFoundError, match="not a run folder"):
        compare(tmp_path / "empty", tmp_path / "none")
    with pytest.raises(ValueError, match="run A holds no session"):
        compare(tmp_path / "empty", tmp_path / "empty")


def limit(low: float, sure: tuple[float, float | None], **more: Any) -> dict[str, Any]:
    tier = {"tier": "slo", "slos": ["ttft_p95 ≤ 2"], "low": low, "sure_low": sure[0], "sure_high": sure[1]}
    return {"unit": "agents", "simulated": False, "spec": {"scale": 1.0}, "tiers": [tier]} | more


def test_capacities_differ_where_their_intervals_lie_apart() -> None:
    a = limit(48, (46, 50))

    (more,) = compare_capacity(a, limit(64, (60, 67)))["figures"]
    (less,) = compare_capacity(limit(64, (60, None)), a)["figures"]
    (same,) = compare_capacity(a, limit(50, (47, 53)))["figures"]
    (endless,) = compare_capacity(a, limit(49, (48, None)))["figures"]

    assert more["sentence"] == "B carries more: slo (ttft_p95 ≤ 2) 48 agents [46, 50] → 64 agents [60, 67]"
    assert less["verdict"] == "down"
    assert (same["verdict"], endless["verdict"]) == ("none", "none")


def test_capacities_of_different_questions_are_not_compared(tmp_path: Path) -> None:
    other = limit(5, (4, 6))
    other["tiers"][0]["slos"] = ["ttft_p95 ≤ 9"]
    (tmp_path / "capacity.json").write_bytes(msgspec.json.encode(limit(5, (4, 6))))
    write_header(tmp_path / "run", {})

    found = compare_capacity(limit(5, (4, 6)), other)

    assert found["figures"] == []
    assert "different SLOs" in found["warnings"][0]
    assert "scale 1.0 → 2.0" in compare_capacity(limit(5, (4, 6)), limit(5, (4, 6), spec={"scale": 2.0}))["warnings"][0]
    with pytest.raises(ValueError, match="compare two of a kind"):
        compare_capacity(limit(5, (4, 6)), limit(5, (4, 6), unit="sessions_per_second"))
    with pytest.raises(ValueError, match="is a capacity result and"):
        compare(tmp_path, tmp_path / "run")
    assert compare(tmp_path, tmp_path)["figures"][0]["verdict"] == "none"
