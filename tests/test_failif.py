"""`compare --fail-if`: a change fails the build where it can be shown, and what is left of a baseline is enough."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from collect_made import HEADER, made_run
from pytest import approx
from test_compare import made
from typer.testing import CliRunner

from agentload.cli import app
from collectors import failif
from collectors.baseline import intervals
from collectors.compare import compare, compare_runs, compare_sides, loaded, recorded
from collectors.gate import exit_code
from collectors.load import Run
from collectors.report import write_report
from collectors.store import Store, write_header
from collectors.summary import summarise


def verdict(a: Run, b: Run, *conditions: str) -> str:
    found = failif.judge([failif.parse(text) for text in conditions], compare_runs(a, b, count=250))
    return str(found["verdict"])


def test_a_change_fails_where_its_whole_interval_lies_beyond_the_limit() -> None:
    a, b = made(np.random.default_rng(1)), made(np.random.default_rng(2), slower=1.6)

    assert verdict(a, b, "ttft_p50 > +10%") == "fail"
    assert verdict(b, a, "ttft_p50 < -10%") == "fail"
    assert verdict(a, b, "ttft_p50 > +200%") == "pass"
    assert verdict(b, a, "ttft_p50 > +10%") == "pass"
    assert verdict(a, b, "tpot_p50 > +10%", "ttft_p50 > +10%") == "fail"


def test_noise_fails_nothing() -> None:
    pairs = [rng.spawn(2) for rng in np.random.default_rng(8).spawn(40)]
    runs = [[made(rng, sessions=30, steps=5) for rng in pair] for pair in pairs]

    failed = sum(verdict(a, b, "ttft_p50 > +0%") == "fail" for a, b in runs)

    assert failed <= 4  # one in 40 is meant; five or more have a chance of 0.3 %


def test_too_few_data_are_no_reason_to_pass() -> None:
    a, b = (made(np.random.default_rng(seed), sessions=4) for seed in (1, 2))

    assert verdict(a, b, "ttft_p50 > +10%") == "undecided"
    assert exit_code({"verdict": "undecided"}) == 3


def test_a_run_that_is_not_trustworthy_passes_nothing() -> None:
    a = made(np.random.default_rng(1))
    b = made(np.random.default_rng(2), health={"loop_lag_p99": 0.5})
    slow = made(np.random.default_rng(2), slower=2.0, health={"loop_lag_p99": 0.5})

    assert verdict(a, b, "ttft_p50 > +50%") == "undecided"
    assert verdict(a, slow, "ttft_p50 > +50%") == "fail"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tfft_p95 > +10%", "figure 'tfft_p95' does not exist; did you mean ttft_p95?"),
        ("ttft_p95 > 10", "condition 'ttft_p95 > 10' must be FIGURE > +N% or FIGURE < -N%, as in 'ttft_p95 > +10%'"),
        ("error_rate > +1%", "condition 'error_rate > +1%': error_rate is compared in points, as in '> +1 points'"),
        ("ttft_p95 > +1 points", "ttft_p95 is compared in percent, as in '> +10%'"),
    ],
)
def test_a_wrong_condition_is_said_in_a_line(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        failif.parse(text)

    assert said in str(error.value)


# Baselines.


def kept(path: Path, run: Run) -> Path:
    """What is kept of a run: its summary alone."""
    path.write_bytes(msgspec.json.encode(summarise(run) | {"intervals": intervals(run)}))
    return path


def test_a_summary_alone_says_what_the_records_say(tmp_path: Path) -> None:
    a, b = made(np.random.default_rng(1)), made(np.random.default_rng(2), slower=1.3)

    bare = compare_sides(loaded(kept(tmp_path / "a.json", a)), recorded(b))

    full = compare_runs(a, b)
    assert bare["trustworthy"] == [True, True]
    assert any("only the summary is left" in note for note in bare["notes"])
    for x, y in zip(bare["figures"], full["figures"], strict=True):
        assert (x["name"], x["a"], x["b"]) == (y["name"], y["a"], y["b"])
        if y["low"] is None or x["name"].startswith(("tpot", "output_speed", "calls_per")):
            continue  # too thin a tail; one of a few values here, which no curve is
        near = 0.15 * (y["high"] - y["low"])
        assert x["low"] == approx(y["low"], abs=near), x["name"]
        assert x["high"] == approx(y["high"], abs=near), x["name"]


def test_a_kept_baseline_fails_a_slower_build_and_passes_the_same(tmp_path: Path) -> None:
    rngs = np.random.default_rng(4).spawn(3)
    files = [kept(tmp_path / f"{i}.json", made(rng, slower=1.0 + (i == 2))) for i, rng in enumerate(rngs)]
    junit = tmp_path / "junit.xml"

    def command(b: Path) -> int:
        words = ["compare", str(files[0]), str(b), "--fail-if", "ttft_p95 > +25%", "--junit", str(junit)]
        return CliRunner().invoke(app, words).exit_code

    assert [command(files[1]), command(files[2])] == [0, 1]
    assert b"<failure" in junit.read_bytes()


def test_a_summary_without_intervals_is_named_with_what_makes_one(tmp_path: Path) -> None:
    old = tmp_path / "summary.json"
    old.write_text('{"run": {}}')

    with pytest.raises(ValueError, match=r"has no intervals to compare by; make it again .* `agentload report`"):
        compare(old, old)


def test_the_report_keeps_the_intervals_of_every_figure(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for record in made_run():
        store.emit(record)
    store.close()
    write_header(tmp_path, HEADER)

    write_report(tmp_path)

    summary = msgspec.json.decode((tmp_path / "summary.json").read_bytes())
    figure = summary["intervals"]["ttft_p95"]
    assert figure["low"] < figure["value"] < figure["high"]
    assert figure["value"] == approx(summary["serving"]["ttft"]["p95"], rel=0.02)  # two definitions of a percentile
