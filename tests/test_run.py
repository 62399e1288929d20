"""Whole runs, as a user starts them: real processes, the box or a real server, records on disk."""

import asyncio
import contextlib
import gc
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvloop

from agentload.box.options import BoxOptions
from agentload.box.serve import BoxProcess
from agentload.commands import resolve
from agentload.realtime import HEAD_START
from agentload.realtime import run as run_here
from agentload.screen import Watch
from collectors.load import Run, load_run
from tests.vllm_made import vllm

QUICK = BoxOptions(speed=5.0, sigma=0.0)
MIX = [str(Path(__file__).parent / "mix.toml")]


def command(*arguments: str, out: Path) -> list[str]:
    return [sys.executable, "-m", "agentload", "run", "--out", str(out), *arguments]


def run(*arguments: str, out: Path, code: int = 0) -> Run:
    """A run to its end; its records."""
    ended = subprocess.run(command(*arguments, out=out), capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    return load_run(Path(ended.stdout.strip().splitlines()[-1]).parent)


def side_by_side(*each: tuple[str, ...], out: Path) -> list[Run]:
    """Runs, two at a time; their records."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda i: run(*each[i], out=out / str(i)), range(len(each))))


def counters(url: str, *names: str) -> np.ndarray[Any, Any]:
    """Sums of Prometheus counters over their labels."""
    page = urllib.request.urlopen(f"{url}/metrics", timeout=5).read().decode()
    found = [re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", page, re.MULTILINE) for name in names]
    assert all(found), f"{url}/metrics lacks one of {names}"
    return np.array([sum(float(value) for value in values) for values in found])


LEDGER = ("vllm:prompt_tokens_total", "vllm:prompt_tokens_cached_total", "vllm:generation_tokens_total")


def ledger(run: Run) -> list[int]:
    calls = run.calls
    return [int(calls.input_tokens.sum()), int(calls.cached_tokens.sum()), int(calls.output_tokens.sum())]


def sessions(run: Run) -> list[tuple[Any, ...]]:
    """What makes two runs the same: every call's place, sizes and outcome."""
    c = run.calls
    rows = zip(
        c.session, c.agent, c.archetype, c.step, c.wanted_output_tokens, c.output_tokens, c.status, c.finish_reason,
        c.tool_calls, c.input_tokens, strict=True,
    )  # fmt: skip
    return sorted(row for row in rows if row[0] >= 0)


@pytest.fixture(scope="module")
def box() -> Iterator[str]:
    with BoxProcess(QUICK) as url:
        yield url


def test_a_run_of_nothing_but_a_count_starts_its_own_box_and_leaves_a_whole_folder(tmp_path: Path) -> None:
    result = run("--sessions", "6", "--agents", "6", *MIX, out=tmp_path)
    (folder,) = tmp_path.iterdir()

    assert {file.name for file in folder.iterdir()} == {
        "run.json", "calls.parquet", "tools.parquet", "sessions.parquet", "server.parquet", "summary.json",
        "report.html"}  # fmt: skip
    roots = result.sessions.agent == ""
    assert sorted(result.sessions.session[roots].tolist()) == list(range(6))
    assert set(result.sessions.outcome.tolist()) == {"done"}
    assert set(result.calls.status.tolist()) == {"ok"}
    assert result.header["endpoint"]["simulated"] is True
    assert result.header["health"]["stop_reason"] == "done"
    assert "SIMULATED" in (folder / "report.html").read_text().upper()


def test_the_ledger_is_what_the_endpoint_counted(box: str, tmp_path: Path) -> None:
    root = box.removesuffix("/v1")
    before = counters(root, *LEDGER)
    result = run("--url", box, "--sessions", "12", "--agents", "6", *MIX, out=tmp_path)
    summary = json.loads(next(tmp_path.glob("*/summary.json")).read_text())
    sums = summary["tokens"]

    assert ledger(result) == (counters(root, *LEDGER) - before).tolist()
    assert [row["says"] for row in summary["server"]["ledger"]] == ["equal to the token"] * 3
    assert [sums["input"], sums["input_cached"], sums["output"]] == ledger(result)


def test_prompts_and_replies_on_the_box_have_exactly_the_lengths_that_were_wanted(box: str, tmp_path: Path) -> None:
    calls = run("--url", box, "--sessions", "12", "--agents", "6", *MIX, out=tmp_path).calls
    made = calls.session >= 0

    assert calls.input_tokens[made].tolist() == calls.wanted_input_tokens[made].tolist()
    assert (calls.output_tokens[made] == calls.wanted_output_tokens[made]).all()


def test_both_clients_and_both_loops_give_the_same_sessions_for_a_seed(box: str, tmp_path: Path) -> None:
    spec = tmp_path / "salted.toml"
    spec.write_text("salt = 1\n" + Path(*MIX).read_text())
    common = (str(spec), "--url", box, "--sessions", "6", "--seed", "5")
    more = [("--client", "sdk"), ("--seed", "6"), ("--rate", "3")]
    runs = side_by_side(common, *((*common, *flags) for flags in more), out=tmp_path)
    wire, sdk, other, open_loop = map(sessions, runs)

    assert wire == sdk
    assert wire == open_loop
    assert wire != other


@pytest.mark.parametrize("where", ["box", "vllm"])
def test_live_agents_are_driven_by_the_models_tool_calls(box: str, tmp_path: Path, where: str) -> None:
    """The same against the box and against a real vLLM, whose model has a small context."""
    with vllm() if where == "vllm" else contextlib.nullcontext(box.removesuffix("/v1")) as root:
        live = (*MIX, "--url", f"{root}/v1", "--mode", "live", "--sessions", "9", "--agents", "9", "--scale", "0.05")
        before = counters(root, *LEDGER)
        runs = side_by_side(*(("--client", client, *live) for client in ("wire", "sdk")), out=tmp_path)
        counted = counters(root, *LEDGER) - before

    for result in runs:
        asked = result.calls.tool_calls.sum()
        assert asked > 2
        assert asked == len(result.tools.name)
        assert set(result.sessions.outcome.tolist()) <= {"done", "step_limit"}
        assert "tool_calls" in set(result.calls.finish_reason.tolist())
    assert np.sum([ledger(result) for result in runs], axis=0).tolist() == counted.tolist()


def test_not_streaming_gives_the_same_sessions(box: str, tmp_path: Path) -> None:
    spec = tmp_path / "plain.toml"
    spec.write_text(
        "salt = 1\nsessions = 4\nscale = 0.1\n"
        'longest_wait = 0.1\npopulation = [{archetype="support"}]\nprofile = {type="held", agents=4}\n'
    )
    whole = tmp_path / "whole.toml"
    whole.write_text(spec.read_text() + "[endpoint]\nstream = false\n")
    each = [(str(spec),), *((str(whole), "--client", client) for client in ("wire", "sdk"))]
    streamed, wire, sdk = side_by_side(*((*words, "--url", box) for words in each), out=tmp_path)

    assert sessions(wire) == sessions(sdk) == sessions(streamed)


def test_a_parent_waits_for_its_children_end_to_end(box: str, tmp_path: Path) -> None:
    spec = tmp_path / "brood.toml"
    spec.write_text(
        'sessions = 2\npopulation = [{archetype="lead"}]\nprofile = {type="held", agents=2}\n'
        '[archetypes.lead]\nbase = "fixed"\nsteps = 2\nchildren = 3\nchild = "fixed"\n'
    )
    result = run(str(spec), "--url", box, out=tmp_path / "runs")
    rows, calls = result.sessions, result.calls

    assert sorted(rows.agent.tolist()) == ["", "", "0", "0", "1", "1", "2", "2"]
    for number in (0, 1):
        mine = rows.session == number
        children = mine & (rows.agent != "")
        assert rows.start[children].max() < rows.end[children].min()  # side by side
        resumed = calls.due[(calls.session == number) & (calls.agent == "") & (calls.step == 1)][0]
        assert resumed >= rows.end[children].max()


def test_latencies_are_those_the_server_logged(tmp_path: Path) -> None:
    """First and last byte as the box says it wrote them; bounds are wide, since other work shares these cores.

    `make bench` measures how close it really is.
    """
    log = tmp_path / "box.log"
    with BoxProcess(BoxOptions(sigma=0.0, log=str(log))) as url:
        result = run("--url", url, "--agents", "30", "--sessions", "30", *MIX, out=tmp_path / "runs")
    wrote = {line["id"]: line for line in map(json.loads, log.read_text().splitlines())}
    anchor, calls = result.header["clock_anchor"]["monotonic"], result.calls
    late_first, late_last = [], []
    for i in np.flatnonzero(calls.session >= 0):
        path = f".{calls.agent[i]}" if calls.agent[i] else ""
        name = f"{result.header['run_id']}-{calls.session[i]}{path}-{calls.step[i]}-{calls.attempt[i]}"
        late_first.append(calls.first[i] + anchor - wrote[name]["first_write"])
        late_last.append(calls.end[i] + anchor - wrote[name]["last_write"])

    assert min(late_first) > -0.0005
    assert np.quantile(late_first, 0.5) < 0.005
    assert np.quantile(late_last, 0.5) < 0.005


def test_only_what_was_due_in_a_counted_phase_is_in_the_latencies(box: str, tmp_path: Path) -> None:
    result = run("--url", box, "--duration", "4", "--warmup", "2", *MIX, out=tmp_path)
    summary = json.loads(next(tmp_path.glob("*/summary.json")).read_text())
    made = result.calls.session >= 0
    due = result.calls.due[made & (result.calls.status == "ok")]
    inside = (due >= 2) & (due < 4)

    assert 0 < inside.sum() < len(due)
    assert summary["serving"]["e2e"]["count"] == inside.sum()
    assert summary["serving"]["calls_per_second"] == pytest.approx(inside.sum() / 2)
    assert summary["tokens"]["input"] == result.calls.input_tokens.sum()  # the ledger leaves nothing out


def start(*arguments: str, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(command(*arguments, out=out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def records_on_disk(out: Path, calls: int) -> Path:
    """Wait until a run has that many of its agents' calls on disk."""
    for _ in range(200):
        for file in out.glob("*/calls.arrows"):
            if (load_run(file.parent).calls.session >= 0).sum() >= calls:
                return file.parent
        time.sleep(0.05)
    raise AssertionError("no records within ten seconds")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_sessions_and_writes_the_report(box: str, tmp_path: Path, number: int) -> None:
    process = start("--url", box, "--agents", "8", "--duration", "60", *MIX, out=tmp_path)
    folder = records_on_disk(tmp_path, 10)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    result = load_run(folder)

    assert process.returncode == 130, err
    assert out.strip().endswith("report.html")
    assert result.header["health"]["stop_reason"] == "interrupted"
    assert "cancelled" not in set(result.calls.status.tolist())
    assert "unfinished" in set(result.sessions.outcome.tolist())


def test_a_second_interrupt_stops_at_once_and_loses_nothing(tmp_path: Path) -> None:
    with BoxProcess(BoxOptions(speed=0.05)) as slow:
        process = start("--url", slow, "--agents", "8", "--duration", "60", *MIX, out=tmp_path)
        folder = records_on_disk(tmp_path, 0)
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=15)
    result = load_run(folder)

    assert process.returncode == 130
    assert out.strip().endswith("report.html")
    cut = result.calls.status == "cancelled"
    assert cut.sum() == 8
    assert len(set(result.sessions.session.tolist())) == 8


def test_a_killed_run_is_reported_from_what_it_had_written(box: str, tmp_path: Path) -> None:
    process = start("--url", box, "--agents", "8", "--duration", "60", *MIX, out=tmp_path)
    folder = records_on_disk(tmp_path, 20)
    process.kill()
    process.communicate(timeout=10)
    ended = subprocess.run(
        [sys.executable, "-m", "agentload", "report", str(folder)], capture_output=True, text=True, check=False
    )

    assert ended.returncode == 0, ended.stderr
    assert (folder / "report.html").is_file()
    result = load_run(folder)
    assert len(result.calls.session) > 10
    assert set(result.calls.session[result.calls.session >= 0].tolist()) == set(result.sessions.session.tolist())


def test_a_limit_on_tokens_stops_a_run_cleanly(box: str, tmp_path: Path) -> None:
    result = run("--url", box, "--agents", "8", "--duration", "60", "--max-tokens", "200000", *MIX, out=tmp_path)

    assert result.header["health"]["stop_reason"] == "max_tokens"
    assert sum(ledger(result)[::2]) >= 200_000
    assert result.header["duration"] < 30


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--url", "http://127.0.0.1:9/v1"], "cannot reach http://127.0.0.1:9/v1: "),
        (["--url", "127.0.0.1:8000"], "url must begin with http:// or https://"),
        (["--url", "BOX", "--model", "gpt"], "model 'gpt' is not at "),
        (["--url", "BOX", "--out", "/proc/x"], "--out '/proc/x' cannot hold run folders"),
        (["--url", "BOX", "--archetype", "coder", "--scale", "40"], "its system prompt and tools are 604,000 tokens"),
        (["nope.toml"], "spec 'nope.toml' does not exist"),
    ],
)
def test_what_cannot_be_run_is_said_in_one_line_and_nothing_is_sent(
    box: str, tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    sent = counters(box.removesuffix("/v1"), LEDGER[0])
    filled = [box if argument == "BOX" else argument for argument in arguments]
    ended = subprocess.run(command(*filled, out=tmp_path / "o") if "--out" not in filled else
                           [sys.executable, "-m", "agentload", "run", *filled],
                           capture_output=True, text=True, check=False)  # fmt: skip

    assert ended.returncode == 2
    assert complaint in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert counters(box.removesuffix("/v1"), LEDGER[0]) == sent
    assert not list(tmp_path.glob("o/*"))


def test_the_key_stays_out_of_everything_that_is_written(box: str, tmp_path: Path) -> None:
    key = "sk-planted-7f3a9c"
    environment = os.environ | {"MY_KEY": key}
    arguments = command("--url", box, "--api-key-env", "MY_KEY", "--sessions", "3", "--agents", "3", *MIX, out=tmp_path)
    ended = subprocess.run(arguments, capture_output=True, env=environment, check=False)

    assert ended.returncode == 0
    assert key.encode() not in ended.stdout + ended.stderr
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or key.encode() not in file.read_bytes(), file


@pytest.mark.parametrize("client", ["wire", "sdk"])
@pytest.mark.parametrize("mode", ["sized", "live"])
def test_the_ledger_is_what_a_real_vllm_counted(tmp_path: Path, client: str, mode: str) -> None:
    flags = ("--client", client, "--mode", mode, "--agents", "32", "--sessions", "96", *MIX, "--scale", "0.05")
    with vllm() as root:
        before = counters(root, *LEDGER)
        result = run("--url", f"{root}/v1", *flags, out=tmp_path)
        counted = counters(root, *LEDGER) - before

    assert set(result.calls.status.tolist()) == {"ok"}
    assert set(result.calls.usage.tolist()) == {"server"}
    assert ledger(result) == counted.tolist()
    said = json.loads(next(tmp_path.glob("*/summary.json")).read_text())["server"]
    assert {row["account"]: row["says"] for row in said["ledger"]} == dict.fromkeys(
        ("input", "cached input", "output"), "equal to the token"
    )
    assert said["engine"] == "vllm"
    assert {"running", "waiting", "kv_usage", "prompt_tokens", "generation_tokens"} <= set(result.server.name.tolist())
    if mode == "sized":
        made = result.calls.session >= 0
        drift = np.abs(result.calls.input_tokens[made] / result.calls.wanted_input_tokens[made] - 1)
        assert np.median(drift) < 0.02
    else:
        assert result.calls.tool_calls.sum() > 10
        assert len(result.tools.name) == result.calls.tool_calls.sum()


def test_a_run_in_which_nothing_was_answered_has_failed(tmp_path: Path) -> None:
    code = (
        "from http.server import *\n"
        "class H(BaseHTTPRequestHandler):\n"
        "    def answer(self, status, body):\n"
        "        self.send_response(status); self.send_header('content-length', str(len(body))); self.end_headers()\n"
        "        self.wfile.write(body)\n"
        '    def do_GET(self): self.answer(200, b\'{"data": [{"id": "m"}]}\')\n'
        '    def do_POST(self): self.answer(500, b\'{"error": {"message": "boom"}}\')\n'
        "    def log_message(self, *a): pass\n"
        "s = ThreadingHTTPServer(('127.0.0.1', 0), H); print(s.server_port, flush=True); s.serve_forever()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
        result = run("--url", url, "--sessions", "3", *MIX, out=tmp_path, code=1)
        server.kill()
    made = result.calls.session >= 0

    assert set(result.calls.status[made].tolist()) == {"http_500"}
    assert result.calls.attempt[made].max() == 2
    assert set(result.sessions.outcome.tolist()) == {"failed"}


def test_capacity_is_found_in_virtual_time_and_two_answers_compared(tmp_path: Path) -> None:
    def agentload(*words: str, code: int = 0) -> str:
        ended = subprocess.run([sys.executable, "-m", "agentload", *words], capture_output=True, text=True, check=False)
        assert ended.returncode == code, ended.stderr
        return ended.stdout or ended.stderr

    search = (
        "capacity",
        *MIX,
        "--simulate",
        "--measure",
        "6",
        "--warmup",
        "2",
        "--agents",
        "16",
        "--out",
        str(tmp_path),
    )
    found = agentload(*search, "--slo", "ttft_p95=1.0")
    (folder,) = tmp_path.iterdir()

    assert "agents with ttft_p95 ≤ 1" in found
    assert "SIMULATED" in found
    assert (folder / "capacity.json").is_file()
    assert "ttft" in agentload("compare", str(folder), str(folder)).lower()
    assert "did you mean" in agentload(*search, "--slo", "tftt_p95=1.0", code=2)
    assert "capacity needs SLOs" in agentload(*search, code=2)


def test_no_full_collection_of_garbage_delays_the_first_sessions(box: str, tmp_path: Path) -> None:
    """In a process that has much loaded, as a sweep's has, one takes a fifth of a second."""
    began: list[float] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] == 2:
            began.append(time.perf_counter())

    spec = resolve(Path(MIX[0]), {"url": box, "sessions": 6})
    gc.callbacks.append(note)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            folder, _ = runner.run(run_here(spec, tmp_path, Watch()))
    finally:
        gc.callbacks.remove(note)
    header = load_run(folder).header
    zero = header["clock_anchor"]["monotonic"]

    assert any(at < zero for at in began)
    assert not [at for at in began if zero - HEAD_START <= at <= zero + 0.9 * header["duration"]]
