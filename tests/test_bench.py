"""The null server that the benchmarks are held against, the table they print, and the machine's check of itself."""

import http.client
import json
import math
import os
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import msgspec
import numpy as np
import pytest
from pytest import approx

from agentload.null import null_server, read_log
from agentload.selfcheck import Rung, advice, limits, stand, to_text
from agents.sse import Events
from benchmarks.command import fixed, run
from benchmarks.heldout import AIM, LOADS, MEASURED, apart, by_preset
from benchmarks.page import renew
from benchmarks.rows import Row, to_markdown
from benchmarks.silicon import EACH, predicted, stepping, storm_of


def post(url: str, body: dict[str, object], identity: str) -> list[bytes]:
    """The events of an answer."""
    request = urllib.request.Request(url + "/chat/completions", json.dumps(body).encode(), {"X-Request-Id": identity})
    with urllib.request.urlopen(request) as answer:
        return Events().feed(answer.read())


def test_the_null_server_writes_the_tokens_it_was_asked_for_at_the_times_it_logs() -> None:
    with null_server("--ttft", "0.05", "--itl", "0.01") as url:
        before = time.perf_counter()
        events = post(url, {"stream": True, "max_tokens": 5, "messages": []}, "one")
        after = time.perf_counter()
        read, first, last = read_log(url)["one"]

    texts = [choice["delta"].get("content") for e in events[:-1] for choice in json.loads(e)["choices"]]
    assert sum(bool(text) for text in texts) == 5
    assert json.loads(events[-2])["usage"]["completion_tokens"] == 5
    assert before < read < first < last < after
    assert first - read >= 0.05 and last - read >= 0.09  # deadlines, not gaps: lateness does not add up


def test_the_null_server_finds_options_behind_a_long_prompt_and_in_pieces() -> None:
    body = json.dumps({"messages": ["x" * 600_000], "max_tokens": 3, "stream": True}).encode()
    with null_server() as url:
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc)
        connection.putrequest("POST", "/v1/chat/completions")
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders()
        for i in range(0, len(body), 100_001):
            connection.send(body[i : i + 100_001])
        events = Events().feed(connection.getresponse().read())
        connection.close()

    assert json.loads(events[-2])["usage"]["completion_tokens"] == 3


def test_the_null_server_answers_whole_and_at_once_when_told_to() -> None:
    with null_server("--coalesced") as url:
        assert len(post(url, {"stream": True, "max_tokens": 2}, "a")) == 1 + 2 + 1 + 1 + 1
        request = urllib.request.Request(url + "/chat/completions", b'{"max_tokens": 2}')
        with urllib.request.urlopen(request) as answer:
            whole = json.load(answer)

    assert whole["usage"]["completion_tokens"] == 2


def test_the_null_server_dies_with_its_parent() -> None:
    code = (
        "import os, signal\nfrom agentload.null import null_server\n"
        "with null_server() as url:\n    print(url, flush=True)\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    address = urllib.parse.urlsplit(said.stdout.strip())
    deadline = time.monotonic() + 5
    gone = False
    while not gone and time.monotonic() < deadline:
        connection = http.client.HTTPConnection(address.netloc)
        try:
            connection.request("GET", "/log")
            connection.getresponse().read()
        except OSError:
            gone = True
        connection.close()

    assert gone


def test_a_run_of_the_whole_command_is_held_against_the_servers_log() -> None:
    with null_server("--ttft", "0.05", "--itl", "0.005") as url:
        ran = run(url, *fixed(5, 1, tokens=8))
        truth = ran.truth(url)

    calls = ran.answered
    assert len(calls) == len(ran.calls) >= 5 * 8
    assert ran.tokens == 8 * len(calls)
    assert np.all(calls.first >= truth[:, 1]) and np.all(calls.last >= truth[:, 2])
    assert np.median(calls.first - truth[:, 1]) < 0.005
    assert 0.2 < ran.cpu < 20 and ran.peak_bytes > 20e6


def test_a_rung_compares_what_was_recorded_with_what_was_written() -> None:
    import asyncio

    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rung = stand(runner, 8, 0.01)

    assert rung.calls >= 8
    assert 0 <= rung.error_p50 <= rung.error_p99 < 0.1
    assert rung.tokens_per_second == approx(8 * 60 / (0.1 + 59 * 0.01), rel=0.35)
    assert 0 < rung.cpu_share < 1


def test_limits_are_the_highest_load_within_each_error_and_the_lowest_with_a_full_core() -> None:
    def rung(streams: int, error: float, share: float) -> Rung:
        return Rung(streams, 0.02, 10.0 * streams, 100, error / 2, error, 0.0, share)

    rungs = [rung(50, 0.0005, 0.1), rung(80, 0.002, 0.4), rung(128, 0.004, 0.96), rung(205, 0.3, 1.0)]

    assert limits(rungs, lambda each: each.streams) == {"within_1ms": 50, "within_5ms": 128, "cpu_full": 128}
    assert "up to 50 streams, 500 tokens/s" in advice(rungs, rungs[:1])
    assert "no load" in advice(rungs, [])
    assert to_text({"rungs": [msgspec.to_builtins(r) for r in rungs], "advice": "so"}).count("\n") == 6
    assert not Rung(5, 0.02, 0.0, 0, math.inf, math.inf, math.inf, 0.1).within(math.inf)


def test_a_row_says_whether_its_target_is_met() -> None:
    rows = [Row("s", "a", 2.0, "ms", most=2.0), Row("s", "b", 3.0, "", least=4.0), Row("s", "c", None, "B", most=1)]

    assert [row.met for row in rows] == [True, False, None]
    assert [line.split("|")[4].strip() for line in to_markdown(rows).splitlines()[2:]] == ["≤ 2", "≥ 4", "≤ 1"]


def test_the_benchmarks_name_the_sections_there_are() -> None:
    command = [sys.executable, "-m", "benchmarks", "--only", "senders"]
    said = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))

    assert said.returncode == 2
    assert "no section senders; there are start, sender" in said.stderr


def test_a_page_keeps_the_sections_that_are_not_made_anew(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    renew(page, "# Head", {"One": "## One\n\nfirst\n", "Three": "## Three\n\nthird\n"}, ("One", "Two", "Three"))
    renew(page, "# Head", {"Two": "## Two\n\nsecond\n", "Three": "## Three\n\nanew\n"}, ("One", "Two", "Three"))

    assert page.read_text() == "# Head\n\n## One\n\nfirst\n\n## Two\n\nsecond\n\n## Three\n\nanew\n"


def test_what_the_validation_page_says_of_the_engine_can_be_made() -> None:
    stepped = stepping()

    assert stepped.count("| yes |") == 3 and "NO" not in stepped


def test_rows_that_the_fit_did_not_see_are_predicted_within_the_aim() -> None:
    errors = predicted(LOADS, EACH[1]) / MEASURED - 1

    assert by_preset(np.abs(errors)).count("| yes |") == 5 and "**no**" not in by_preset(np.abs(errors))
    assert by_preset(np.abs(errors) + AIM).count("**no**") == 5
    assert "TPOT of `llama-3.1-70b-4xh100` at 64 users by +1" in apart(errors)


@pytest.mark.parametrize(("shared", "preemptions", "hits"), [(0, [77], 0), (2, [117], 24_320), (4, [185, 196], 48_640)])
def test_a_storm_preempts_as_often_as_on_a_real_vllm(shared: int, preemptions: list[int], hits: int) -> None:
    """How often depends on how fast the streams came; what they found in the cache does not."""
    made = [storm_of(shared, apart).counts for apart in (0.0, 0.002, 0.02)]

    assert {counts.hits for counts in made} == {hits}
    assert np.mean([counts.preemptions for counts in made]) == approx(np.mean(preemptions), rel=0.05)
