"""The gate: promises kept, broken and undecided, what the command ends with, and what the build system is told."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
from typer.testing import CliRunner, Result

from agentload.cli import app, main
from collectors import ci, gate
from collectors.health import Verdict
from collectors.load import Run, from_records
from collectors.records import Call, Session

GOOD, BAD = Verdict(True, [], []), Verdict(False, ["p99 send lag 30 ms is above 10 ms"], [])


def made(promises: dict[str, Any], slow: int = 0, calls: int = 400) -> Run:
    """As many one-call sessions, one a second: TTFT 0.2 s, and 3 s for every so many of them."""
    records: list[Call | Session] = []
    for i in range(calls):
        first = i + (3.0 if slow and i % slow == 0 else 0.2)
        records += [
            Call(i, "", "coder", 0, 0, i, i, i, first, first + 1, first + 1, finish_reason="stop", output_tokens=20,
                 chunks=9),
            Session(i, "", "coder", i, i, first + 1, "done", 1, 1, 1, *[0] * 8, *[0.0] * 4),
        ]  # fmt: skip
    return from_records({"duration": float(calls), "spec": {"slo": promises}}, records)


def judged(run: Run, trust: Verdict = GOOD) -> dict[str, Any]:
    found = gate.judge_run(run, trust)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("slow", "calls", "verdict", "code"),
    [(0, 400, "pass", 0), (5, 400, "fail", 1), (20, 400, "undecided", 3), (0, 20, "undecided", 3)],
)
def test_a_promise_is_kept_or_broken_only_where_its_interval_says_so(
    slow: int, calls: int, verdict: str, code: int
) -> None:
    found = judged(made({"ttft_p95": 2.0}, slow, calls))

    assert found["verdict"] == verdict
    assert gate.exit_code(found) == code


def test_a_run_that_is_too_short_says_how_much_longer_it_would_have_to_be() -> None:
    """20 of 20, worth 20·(1.960 / t₁₉)² = 17.5: Wilson's lower end is 17.5 / (17.5 + 1.960²); 73 would be needed."""
    check = judged(made({"ttft_p95": 2.0}, calls=20))["checks"][0]

    assert check["said"] == (
        "200 ms; 100% of 20 calls kept it [82.03%, 100%], 95% are needed; "
        "too short to tell: a run about 5 times as long would"
    )


def test_one_broken_promise_breaks_all_and_tiers_are_named() -> None:
    found = judged(made({"fast": {"ttft_p95": 0.1}, "slow": {"ttft_p95": 2.0, "error_rate": 0.05}}))

    assert found["verdict"] == "fail"
    assert [(c["group"], c["name"], c["verdict"]) for c in found["checks"]] == [
        ("fast", "ttft_p95 ≤ 0.1", "fail"),
        ("slow", "ttft_p95 ≤ 2", "pass"),
        ("slow", "error_rate ≤ 0.05", "pass"),
    ]


def test_a_run_that_is_not_trustworthy_can_break_a_promise_and_cannot_keep_one() -> None:
    found = judged(made({"ttft_p95": 2.0, "e2e_p95": 0.5}), BAD)

    assert [c["verdict"] for c in found["checks"]] == ["undecided", "fail"]
    assert found["reasons"] == ["this run is not trustworthy: p99 send lag 30 ms is above 10 ms"]


def test_gaps_that_an_older_run_did_not_keep_leave_the_promise_undecided() -> None:
    check = judged(made({"itl_p95": 0.1}))["checks"][0]

    assert check["verdict"] == "undecided"
    assert "kept no gaps" in check["said"]


def test_without_promises_there_is_nothing_to_judge() -> None:
    assert gate.judge_run(made({}), GOOD) is None
    assert gate.exit_code(None) == 0


def parsed(xml: bytes) -> ElementTree.Element:
    return ElementTree.fromstring(xml)  # noqa: S314  # our own


# The command.


def command(out: Path, *words: str) -> Result:
    small = ["--archetype", "fixed", "--steps", "2", "--agents", "8", "--sessions", "100", "--out", str(out / "runs")]
    return CliRunner().invoke(app, ["simulate", *small, *words])


@pytest.mark.parametrize(("limit", "code", "word"), [("5", 0, "all kept"), ("0.001", 1, "BROKEN")])
def test_the_command_ends_with_what_came_of_its_promises(limit: str, code: int, word: str, tmp_path: Path) -> None:
    junit, comment = tmp_path / "junit.xml", tmp_path / "comment.md"

    ended = command(tmp_path, "--slo", f"ttft_p95={limit}", "--junit", str(junit), "--markdown", str(comment))

    assert ended.exit_code == code
    assert f"Promises: {word}" in ended.output
    suite = parsed(junit.read_bytes())
    assert (suite.get("tests"), suite.get("failures")) == ("1", str(code))
    assert comment.read_text().startswith(f"### {'❌' if code else '✅'} agentload ")


def test_a_report_made_again_judges_again(tmp_path: Path) -> None:
    command(tmp_path, "--slo", "ttft_p95=0.001")
    folder = next((tmp_path / "runs").iterdir())

    ended = CliRunner().invoke(app, ["report", str(folder)])

    assert ended.exit_code == 1
    summary = msgspec.json.decode((folder / "summary.json").read_bytes())
    assert summary["slo"]["checks"][0]["verdict"] == "fail"
    assert "Promises: BROKEN" in (folder / "report.html").read_text()


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--archetype", "fixed", "--output-tokens", "8", "--agents", "4", "--sessions", "16"],
        ["replay", str(Path(__file__).parent / "data" / "run-schema-1"), "--simulate"],
    ],
)
def test_runs_and_replays_end_with_1_where_they_break_one(words: list[str], tmp_path: Path) -> None:
    ended = CliRunner().invoke(app, [*words, "--slo", "e2e_p50=0.00001", "--out", str(tmp_path)])

    assert ended.exit_code == 1
    assert "✗ broken" in ended.output


def test_a_promise_about_gaps_keeps_the_gaps(tmp_path: Path) -> None:
    assert command(tmp_path, "--slo", "itl_p50=1").exit_code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--slo", "tfft_p95=2"], "SLO 'tfft_p95' does not exist; did you mean ttft_p95?"),
        (["--slo", "ttft_p95=soon"], "SLO 'ttft_p95=soon': the limit must be a number (seconds), got 'soon'"),
        (["--slo", "ttft_p95=1", "--slo", "ttft_p95=2"], "SLO ttft_p95 is given twice; give it once"),
        (["--slo", "ttft_p95=1", "--junit", "no/junit.xml"], "--junit 'no/junit.xml' cannot be written"),
        (["--junit", "junit.xml"], "--junit 'junit.xml' has nothing to say"),
    ],
)
def test_a_wrong_promise_ends_it_before_anything_is_sent(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["agentload", "run", "--agents", "1", "--out", str(tmp_path / "runs"), *words])

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"agentload: {said}")
    assert not (tmp_path / "runs").exists()


# What the build system is told.

# Attributes and children of each element, from Jenkins' junit-10.xsd (jenkinsci/xunit-plugin @ 031e285).
SCHEMA: dict[str, tuple[set[str], set[str]]] = {
    "testsuites": ({"name", "time", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors", "group", "time", "skipped", "timestamp", "hostname", "id", "package",
         "file", "log", "url"},
        {"properties", "testcase", "system-out", "system-err", "testsuite"},
    ),
    "testcase": (
        {"name", "time", "classname", "group"},
        {"skipped", "error", "failure", "rerunFailure", "rerunError", "flakyFailure", "flakyError", "system-out",
         "system-err"},
    ),
    "failure": ({"type", "message"}, set()),
    "skipped": ({"type", "message"}, set()),
    "system-out": (set(), set()),
}  # fmt: skip
REQUIRED = {"testsuite": {"name", "tests", "failures", "errors"}, "testcase": {"name", "classname"}}


def test_the_junit_file_is_of_the_usual_schema() -> None:
    found = judged(made({"ttft_p95": 2.0, "e2e_p95": 0.5, "session_p99": 4.0}), BAD)

    root = parsed(ci.junit("run", found, 12.5, "2026-11-23T14:02:11+01:00"))

    assert root.tag == "testsuites"
    for element in root.iter():
        attributes, children = SCHEMA[element.tag]
        assert set(element.attrib) <= attributes
        assert set(element.attrib) >= REQUIRED.get(element.tag, set())
        assert {child.tag for child in element} <= children
    suite = root[0]
    cases = suite.findall("testcase")
    assert suite.get("tests") == str(len(cases)) == "3"
    assert suite.get("failures") == str(sum(case.find("failure") is not None for case in cases))
    assert suite.get("skipped") == str(sum(case.find("skipped") is not None for case in cases))
    assert suite.get("timestamp") == "2026-11-23T14:02:11"


def test_recorded_text_can_break_neither_xml_nor_markdown() -> None:
    check = {"group": "a", "name": "b", "verdict": "fail", "said": "\x00\ud800 <script> | @someone `x`\n# no"}
    found = {"verdict": "fail", "reasons": [], "checks": [check]}

    root = parsed(ci.junit("run", found, 1.0))
    comment = ci.markdown("run", found, [])

    assert root.findtext(".//failure") == "?? <script> | @someone `x`\n# no"
    assert comment.splitlines()[4] == "| ✗ broken | b | ?? &lt;script&gt; \\| @\u200bsomeone \\`x\\` \\# no |"
