"""The servers' view of a run, by numbers worked out by hand."""

import json
import os
from pathlib import Path

import msgspec
import numpy as np
import pytest
from test_collect_metrics import call, session

from agentload import spec as specs
from agentload.simulation import simulate
from collectors import server
from collectors.load import Run, from_records, load_run
from collectors.records import CALIBRATION, Sample
from collectors.recovery import recover
from collectors.report import render
from collectors.store import Store
from collectors.summary import summarise
from collectors.text import to_text

PAGE = "http://a/metrics"


def said(word: str, *values: float, series: str = "engine=0", who: str = "vllm", first: float = -1.0) -> list[Sample]:
    """One reading a second."""
    return [Sample(first + i, PAGE, who, series, word, value) for i, value in enumerate(values)]


def run_of(*parts: list[Sample], calls: tuple[msgspec.Struct, ...] = (), **header: object) -> Run:
    return from_records(header, [*calls, *(sample for part in parts for sample in part)])


def test_a_counter_that_falls_has_been_reset_and_counts_from_zero() -> None:
    found = server.readings(run_of(said("preemptions", 10, 15, 3, 4)).server, "vllm", "preemptions")

    assert server.rises(found[0].values).tolist() == [0, 5, 3, 1]
    assert server.increase(found) == 9
    assert server.resets(found) == 1


def test_each_replicas_counter_is_reset_for_itself() -> None:
    parts = said("prompt_tokens", 1000, 0, 10), said("prompt_tokens", 1000, 1010, 1020, series="engine=1")
    found = server.readings(run_of(*parts).server, "vllm", "prompt_tokens")

    assert server.increase(found) == 10 + 20  # of the sums 2000, 1010, 1030 nobody could say


def test_levels_add_up_over_replicas_or_are_their_mean_and_grow_old() -> None:
    found = server.readings(
        run_of(said("running", 1, 2), said("running", 5, 7, series="engine=1")).server, "vllm", "running"
    )
    at = np.array([-1.5, -0.5, 0.5, 3.0, 3.5])

    assert server.level(found, at).tolist() == pytest.approx([np.nan, 6, 9, 9, np.nan], nan_ok=True)
    assert server.level(found, at, mean=True).tolist() == pytest.approx([np.nan, 3, 4.5, 4.5, np.nan], nan_ok=True)


def test_rates_are_of_what_rose_between_readings_through_a_reset() -> None:
    found = server.readings(run_of(said("generation_tokens", 0, 10, 40, 20)).server, "vllm", "generation_tokens")
    edges = np.array([-2.0, -1.0, 0.0, 0.5, 1.0, 2.0, 3.0])

    assert server.rate(found, edges).tolist() == pytest.approx([np.nan, 10, 30, 30, 20, np.nan], nan_ok=True)


CALLS = (
    call(session=CALIBRATION),
    call(),
    call(usage="estimated", status="cancelled", input_tokens=7, output_tokens=2),
)


@pytest.mark.parametrize(
    ("counted", "says"),
    [
        ((0, 200), "equal to the token"),
        ((0, 320), "the server counted 120 more: 1 calls of this run whose usage never came (cancelled, failed; by our "
                   "own count up to 7 tokens); other clients"),
        ((0, 207), "the server counted 7 more: 1 calls of this run whose usage never came (cancelled, failed; by our "
                   "own count up to 7 tokens)"),
        ((0, 900, 100), "other clients"),
        ((500, 600, 50), "the server counted 50 fewer: 1 restarts: what was counted after the last reading before them "
                         "is lost"),
    ],
)  # fmt: skip
def test_the_ledger_is_held_against_the_counters_and_a_difference_is_named(
    counted: tuple[float, ...], says: str
) -> None:
    rows = list(server.reconciled(run_of(said("prompt_tokens", *counted), calls=CALLS)))

    assert [(row["server"], row["account"], row["ledger"]) for row in rows] == [("vllm", "input", 200)]
    assert says in rows[0]["says"]
    assert counted != (0, 207) or rows[0]["says"] == says  # no other client is suspected


def test_energy_comes_from_counters_else_from_power_over_time() -> None:
    gpus = [said("energy", 100, 200, 300, who="dcgm", series=f"gpu={i}") for i in range(2)]
    power = said("power", 100, 100, 300, who="dcgm", series="gpu=0")
    by_counter = server.energy(run_of(*gpus, power, calls=CALLS), 4.0)
    by_power = server.energy(run_of(power, calls=CALLS), 4.0)

    assert by_counter is not None and by_power is not None
    assert (by_counter["gpus"], by_counter["joules"], by_counter["mean_watts"]) == (2, 400, 200)
    assert by_counter["tokens_per_joule"] == (200 + 22) / 400
    assert by_counter["output_tokens_per_joule"] == 22 / 400
    assert by_counter["output_tokens_per_second_per_gpu"] == 22 / 4 / 2
    assert (by_power["joules"], by_power["source"]) == (100 + 200, "power")


def test_without_metrics_of_gpus_the_spec_may_say_how_many_there_are_and_what_they_take() -> None:
    said = server.energy(run_of(calls=CALLS, spec={"gpus": 4, "power_kw": 2.0}), 4.0)
    only = server.energy(run_of(calls=CALLS, spec={"gpus": 4}), 4.0)

    assert said is not None and only is not None
    assert (said["joules"], said["source"], said["mean_watts"]) == (8_000, "spec", 2_000)
    assert said["tokens_per_joule"] == 222 / 8_000
    assert only["output_tokens_per_second_per_gpu"] == 22 / 4 / 4
    assert np.isnan(only["joules"])
    assert server.energy(run_of(calls=CALLS), 4.0) is None


def whole() -> Run:
    return run_of(
        said("running", 0, 3, 5, 0),
        said("waiting", 0, 0, 2, 0),
        said("kv_usage", 0, 0.5, 0.97, 0),
        said("prefix_queries", 0, 50, 100, 100),
        said("prefix_hits", 0, 30, 60, 60),
        said("prompt_tokens", 0, 50, 100, 100),
        said("generation_tokens", 5, 5, 16, 16),
        said("preemptions", 0, 0, 4, 4),
        said("up", 1, 1, 0, 1, who="", series=""),
        said("power", 300, 300, 300, who="dcgm", series="gpu=0"),
        said("gpu_usage", 0.5, 0.9, 0.7, who="dcgm", series="gpu=0"),
        said("gpu_usage", 0.5, 0.7, 0.7, who="dcgm", series="gpu=1"),
        said("gpu_memory", 1e9, 2e9, 2e9, who="dcgm", series="gpu=0"),
        calls=(call(), session()),
    )


def test_summary_text_and_report_say_what_the_server_said() -> None:
    run = whole()
    summary = summarise(run)
    found, text, html = summary["server"], to_text(summary), render(run, summary)

    assert (found["engine"], found["running"]["peak"], found["waiting"]["peak"]) == ("vllm", 5, 2)
    assert (found["kv_usage"]["peak"], found["preemptions"]) == (0.97, 4)
    assert found["gpu_usage"] == {"mean": pytest.approx((0.8 + 0.7 + 0.7) / 3), "peak": 0.8}  # at 0, 1 and 2 s
    assert found["gpu_memory"]["peak"] == 2e9
    assert found["hit_rate"] == {"server": 0.6, "calls": 0.6, "ideal": 0.0}
    assert [(p["url"], p["read"], p["failed"], p["servers"]) for p in found["pages"]] == [
        (PAGE, 3, 1, ["dcgm", "vllm"])
    ]
    assert "up to 5 running, up to 2 waiting, KV cache 97% at most, 4 preemptions, counters equal to the ledger" in text
    assert "What the server said" in html and "equal to the token" in html
    assert "time that GPUs were busy" in html and "2.00GB" in html
    assert json.loads(msgspec.json.encode(summary)) == summary


def test_the_terminal_is_told_of_a_difference_in_one_line() -> None:
    run = run_of(said("prompt_tokens", 0, 320), said("generation_tokens", 0, 10), calls=(*CALLS, session()))
    text = to_text(summarise(run))

    assert "its counters less the ledger: +120 input, -12 output (1 calls of this run" in text


def test_a_run_whose_servers_said_nothing_has_no_such_part() -> None:
    run = run_of(calls=(call(), session()))
    summary = summarise(run)

    assert summary["server"] is None
    assert "What the server said" not in render(run, summary)


def test_what_was_read_before_a_run_was_cut_off_is_recovered(tmp_path: Path) -> None:
    store = Store(tmp_path / "run")
    for sample in said("running", 1, 2):
        store.emit(sample)
    store.flush()
    assert store._held is not None
    os.close(store._held)  # as when its process dies

    assert recover(tmp_path / "run")
    assert load_run(tmp_path / "run").server.value.tolist() == [1.0, 2.0]


def test_a_simulated_cluster_is_read_every_second_of_its_own_time_and_equals_the_ledger(tmp_path: Path) -> None:
    plain = {"salt": 1, "sessions": 40, "scale": 0.2, "longest_wait": 2, "box": {"replicas": 2},
             "profile": {"type": "held", "agents": 8}, "population": [{"archetype": "coder"}]}  # fmt: skip
    folder, _ = simulate(specs.decode(plain), tmp_path)
    run = load_run(folder)
    found = summarise(run)["server"]
    times = run.server.time[run.server.name == "running"]

    assert [row["says"] for row in found["ledger"]] == ["equal to the token"] * 3
    assert times[:-1].tolist() == list(range(len(times) - 1))
    assert times[-1] == run.header["duration"]
    assert found["running"]["peak"] > 1
    assert found["hit_rate"]["server"] == pytest.approx(found["hit_rate"]["calls"], abs=0.02)
