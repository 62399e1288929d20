"""Summary, terminal text and report of runs whose numbers are known."""

import base64
import hashlib
import json
import os
import re
from pathlib import Path

import msgspec
import pytest
from collect_made import HEADER, made_run
from test_collect_metrics import call, session

from collectors.load import Run, from_records
from collectors.records import Call, Session, Tool
from collectors.report import render, write_report
from collectors.store import Store, write_header
from collectors.summary import summarise
from collectors.text import number, share, to_text
from collectors.waterfall import gaps


@pytest.fixture(scope="module")
def run() -> Run:
    return from_records(HEADER, made_run())


@pytest.fixture(scope="module")
def html(run: Run) -> str:
    return render(run, summarise(run))


def figures_of(html: str) -> dict[str, dict]:
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    return json.loads(found.group(1))


def small() -> Run:
    """One coder with a sub-agent and a failed attempt, and one chat: numbers for a hand calculation."""
    coder = {"model_seconds": 6.0, "tool_seconds": 2.0, "wait_seconds": 1.0, "join_seconds": 1.0}
    return from_records(
        {"duration": 20.0, "health": {"agents_asked": 2}, "endpoint": {"model": "m", "simulated": False}},
        [
            session(end=10.0, **coder),
            session(agent="0", archetype="explorer", start=5.0, end=8.0),
            session(session=1, archetype="chat", end=20.0, intents=2),
            call(wanted_input_tokens=80),
            call(status="http_429", attempt=0, step=1, input_tokens=0, cached_tokens=0, output_tokens=0, error="slow"),
            call(attempt=1, step=1, input_tokens=150, cached_tokens=100),
            call(agent="0", archetype="explorer", input_tokens=300, cached_tokens=0, output_tokens=100),
            call(session=1, archetype="chat", input_tokens=50, cached_tokens=0, output_tokens=50),
            Tool(0, "", "coder", 0, "grep", 3.0, 5.0, True, 100),
        ],
    )


def test_the_summary_of_a_small_run_is_what_a_hand_calculation_gives() -> None:
    found = summarise(small())
    demand, coder = found["demand"], found["demand"]["archetypes"]["coder"]

    assert (found["run"]["sessions"], found["run"]["sub_agents"], found["run"]["calls"]) == (2, 1, 5)
    assert (found["run"]["agents_peak"], found["run"]["agents_mean"]) == (2, pytest.approx(30 / 20))
    assert found["tokens"]["input"] == 600 and found["tokens"]["input_cached"] == 160
    assert coder["tokens_per_session"] == 100 + 11 + 150 + 11 + 300 + 100  # its sub-agent's included
    assert coder["tokens_per_intent"] == 672 and demand["archetypes"]["chat"]["tokens_per_intent"] == 50
    assert coder["tokens_per_intent_over_chat"] == pytest.approx(672 / 50)
    assert demand["archetypes"]["chat"]["tokens_per_intent_over_chat"] == 1.0
    assert demand["tokens_per_agent_hour"] == pytest.approx(772 / (30 / 3600))
    assert demand["attempts_per_call"] == pytest.approx(5 / 4)
    assert demand["children_per_agent"] == pytest.approx(1 / 3)
    assert found["jobs"]["archetypes"]["coder"]["time_share"] == pytest.approx(
        {"model": 0.6, "tool": 0.2, "wait": 0.1, "join": 0.1, "other": 0.0}
    )
    assert found["jobs"]["session"]["p50"] == 15.0 and found["jobs"]["outcomes"] == {"done": 2}
    assert found["serving"]["ttft"]["failed"] == 1 and found["serving"]["ttft"]["count"] == 4
    assert found["serving"]["output_tokens_per_second"] == pytest.approx(172 / 20)
    assert found["errors"] == {"http_429": {"count": 1, "example": "slow"}}


def test_drift_compares_wanted_with_what_the_server_counted_and_leaves_estimates_out() -> None:
    rows = [call(wanted_input_tokens=w) for w in (80, 100, 125)]
    rows.append(call(wanted_input_tokens=1, usage="estimated"))
    found = summarise(from_records({}, [*rows, call()]))["drift"]["input"]

    assert found["calls"] == 3 and found["wanted_tokens"] == 305 and found["counted_tokens"] == 300
    assert found["median_relative"] == 0.0 and found["median_absolute_relative"] == pytest.approx(0.2)


def test_calibration_calls_are_in_the_ledger_and_in_no_other_figure(run: Run) -> None:
    bare = from_records(HEADER, [r for r in made_run() if not (isinstance(r, Call) and r.session < 0)])
    with_calibration, without = summarise(run), summarise(bare)

    assert with_calibration.pop("tokens")["uses"]["calibration"]["total"] == 303
    assert without.pop("tokens")["uses"]["calibration"]["total"] == 0
    assert with_calibration == without


@pytest.mark.parametrize("records", [[], [call(status="connect_failed", first=None)], [session()], [call()]])
def test_a_run_with_next_to_nothing_in_it_still_has_a_summary_and_a_report(records: list[msgspec.Struct]) -> None:
    run = from_records({}, records)
    found = summarise(run)

    assert json.loads(msgspec.json.encode(found)) == found  # no NaN, nothing that JSON cannot say
    assert "<h1>" in render(run, found)
    assert to_text(found).splitlines()[0].startswith(("Trustworthy", "NOT TRUSTWORTHY"))


def test_the_terminal_text_starts_with_the_verdict_and_its_reasons() -> None:
    late = from_records({"health": {"cpu_share": 0.99}}, [call(), session()])

    lines = to_text(summarise(late)).splitlines()

    assert lines[0] == "NOT TRUSTWORTHY"
    assert lines[1].startswith("  ✗ limited by this machine: the sender used 99% of a core")


def test_the_report_says_what_ran_that_it_was_simulated_and_what_a_coder_costs(run: Run, html: str) -> None:
    times = summarise(run)["demand"]["archetypes"]["coder"]["tokens_per_intent_over_chat"]

    assert "<h1>30 agents against box" in html and "SIMULATED CLUSTER" in html
    assert f'One coder =</div><div class="big">{number(times)}</div>' in html


def test_too_few_sessions_make_no_headline() -> None:
    run = small()

    assert "One coder =" not in render(run, summarise(run))


def test_every_figure_has_its_place_and_every_place_its_figure(html: str) -> None:
    places = re.findall(r'<div id="(\w+)" style="height', html)

    assert sorted(places) == sorted(figures_of(html)) and len(places) == 12


def test_recorded_strings_cannot_become_markup_or_script() -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    header = {**HEADER, "endpoint": {"model": evil, "url": evil}, "started": evil, "spec_toml": evil}
    records = [
        call(archetype=evil, agent=""), call(status=evil, error=evil, archetype=evil),
        session(archetype=evil, outcome=evil), Tool(0, "", evil, 0, evil, 3.0, 4.0, True, 5),
    ]  # fmt: skip
    run = from_records(header, records)
    html = render(run, summarise(run))

    assert "<script>alert" not in html and "<img" not in html
    assert "<" not in re.sub("<br>|</?extra>", "", json.dumps(figures_of(html)))  # markup of our own


def test_the_page_allows_its_own_scripts_by_hash_and_nothing_from_a_network(html: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    hashes = {base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts}

    assert policy is not None and policy.group(1).startswith("default-src 'none'; script-src 'sha256-")
    assert "connect-src" not in policy.group(1) and "http" not in policy.group(1)
    assert hashes == set(re.findall(r"'sha256-([^']+)'", policy.group(1))) and len(hashes) == 2
    assert not re.search(r"<(link|img|iframe)\b", html.replace(max(scripts, key=len), ""))


def test_a_report_does_not_grow_with_the_run(html: str) -> None:
    long = from_records(HEADER, made_run(agents=100, seconds=120))

    assert len(long.calls) > 5_000
    assert len(render(long, summarise(long))) < len(html) + 100_000


def test_an_interrupted_run_gets_its_report_and_says_that_it_was_interrupted(tmp_path: Path) -> None:
    write_header(tmp_path / "run", {key: HEADER[key] for key in ("endpoint", "profile", "spec")})
    store = Store(tmp_path / "run")
    cut_off = [record for record in made_run(agents=5, seconds=10) if not isinstance(record, Session)]
    for record in cut_off:
        store.emit(record)
    store.flush()
    os.close(store._held)  # what the system does when a process dies

    path = write_report(tmp_path / "run")

    found = json.loads((path.parent / "summary.json").read_text())
    assert path.read_text().startswith("<!doctype html>")
    assert found["run"]["interrupted"] and found["run"]["sessions"] == len({r.session for r in cut_off} - {-1})
    assert found["verdict"]["notes"][0].startswith("the run was interrupted")


def test_a_gap_is_what_no_interval_covers() -> None:
    assert gaps([(1.0, 2.0), (1.5, 3.0), (5.0, 6.0)], (0.0, 7.0)) == [(0.0, 1.0), (3.0, 5.0), (6.0, 7.0)]
    assert gaps([(0.0, 7.0)], (0.0, 7.0)) == []
    assert gaps([(0.0, 3.0), (3.01, 7.0)], (0.0, 7.0)) == []  # too short to see


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (7, "7"),
        (0.5, "0.5"),
        (999.4, "999"),
        (1234, "1.23k"),
        (99_960, "100k"),
        (5.23e6, "5.23M"),
        (None, "–"),
    ],
)
def test_numbers_are_written_with_three_digits(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.88, "88%"), (0.031, "3.1%"), (0.9991, "99.9%"), (1, "100%"), (None, "–")]
)
def test_shares_are_written_as_percentages(value: float | None, text: str) -> None:
    assert share(value) == text
