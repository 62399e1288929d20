"""How a box is said: presets of one's own, other sizes of a preset, the flags of `agentload serve`, what it says."""

import asyncio
import json
import signal
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentload import spec as specs
from agentload.box.cluster import Cluster
from agentload.box.options import BoxOptions, Failure, Faults, Offload, Quota, Scaling, Transfer
from agentload.box.presets import DEFAULT, PRESETS, Preset
from agentload.box.replica import Lag
from agentload.box.serve import watch
from agentload.errors import BadInput
from agentload.serving import options_from
from agentload.simulation import simulate
from collectors.load import load_run
from collectors.report import write_report

OWN = """
base = "llama-3.1-70b-2xh100"
name = "ours"
serves = "our model on our cards"
validity = "measured on one Tuesday"
prefill_ms = 0.25
kv_tokens = 50_000
"""


def spec_of(**box: Any) -> specs.Spec:
    plain = {"sessions": 2, "salt": 1, "profile": {"type": "held", "agents": 2}, "population": [{"archetype": "fixed"}]}
    return specs.decode(plain | {"box": box})


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "ours.toml"
    path.write_text(OWN)
    return str(path)


def test_a_preset_of_ones_own_comes_from_a_file_or_a_table_and_times_the_run(file: str, tmp_path: Path) -> None:
    spec = spec_of(preset=file, sigma=0.0)
    folder, _ = simulate(spec, tmp_path / "runs")
    run = load_run(folder)
    report = write_report(folder).read_text()

    ours = spec.box.scaled()
    assert (ours.name, ours.prefill_ms, ours.base_ms) == ("ours", 0.25, PRESETS["llama-3.1-70b-2xh100"].base_ms)
    assert (run.calls.first - run.calls.sent)[0] > 1e-3 * (ours.base_ms + 0.25 * 500)
    assert "our model on our cards; measured on one Tuesday" in report
    assert specs.decode(tomllib.loads(specs.encode(spec))).box == spec.box  # the resolved spec needs no file


def test_a_preset_takes_another_cache_and_batch() -> None:
    small = spec_of(kv_tokens=32_000, seats=8, step_tokens=512).box.scaled()

    assert (small.kv_tokens, small.seats, small.step_tokens) == (32_000, 8, 512)
    assert small.prefill_ms == PRESETS[DEFAULT].prefill_ms
    assert Cluster(BoxOptions(kv_tokens=32_000)).capacity == 32_000 - 16  # one block is vLLM's null block


def test_every_shipped_preset_says_what_it_is_and_how_far_to_trust_it() -> None:
    for name, preset in PRESETS.items():
        assert preset.name == name
        assert "H" in preset.serves and "%" in preset.validity
        assert msgspec.convert(msgspec.to_builtins(preset), Preset) == preset  # within its own limits


@pytest.mark.parametrize(
    ("preset", "complaint"),
    [
        ("llama", "there is no preset 'llama'; it can be llama-3.1-70b-2xh100, "),
        ("nowhere.toml", "preset 'nowhere.toml' does not exist"),
        ({"base": "llama"}, "base must be one of"),
        ({"base": DEFAULT, "name": "x"}, "validity cannot be those of"),
        ({"base": DEFAULT, "name": "x", "validity": "y", "base_ms": 0.0}, "`box.preset.base_ms` must be a number > 0"),
        ({"base": DEFAULT, "name": "x", "validity": "y", "prefil_ms": 1.0}, "did you mean `prefill_ms`"),
        ({"base": DEFAULT, "name": "x", "validity": "y", "block": 32}, "block must be 16"),
        ({"base": DEFAULT, "name": "x", "validity": "y", "seats": 9_000}, "step_tokens must be at least seats"),
        ({"name": "x"}, "missing required field `serves` in `box.preset`"),
    ],
)
def test_a_wrong_preset_is_refused_at_the_door(preset: Any, complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        spec_of(preset=preset)


def test_flags_say_the_whole_cluster_over_the_specs_table(file: str) -> None:
    options = options_from(
        {"replicas": 2, "faults": {"stall": 0.1}, "port": 9},
        {
            "preset": file, "port": 7, "host": None, "replicas": 3, "router": "kv_cost", "prefill": 2, "seats": 64,
            "step_tokens": 4_096, "sigma": 0.0, "speed": 4.0, "offload_tokens": 80_000, "transfer_us": 0.5,
            "scale_to": 6, "cold_start": 9.0, "fail": ["30", "40:1", "50:2:5"], "queued": 10, "requests_per_minute": 60,
            "tokens_per_minute": 90_000, "error_rate": 0.01, "reset_rate": 0.02, "fault_key": "k", "log": None,
        },
    )  # fmt: skip

    assert options.failures == (Failure(30.0), Failure(40.0, 1), Failure(50.0, 2, 5.0))
    assert options.faults == Faults(error=0.01, reset=0.02, stall=0.1, key="k")
    assert options.quota == Quota(60, 90_000)
    assert (options.scaling, options.offload) == (Scaling(6, cold_start=9.0), Offload(80_000))
    assert options.transfer == Transfer(token_us=0.5)
    assert (options.replicas, options.router, options.prefill, options.port) == (3, "kv_cost", 2, 7)
    assert options.scaled() == msgspec.structs.replace(options.scaled(), seats=64, step_tokens=4_096, name="ours")


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"fail": ["soon"]}, "--fail 'soon' must be AT"),
        ({"fail": ["1:2:3:4"]}, "must be AT"),
        ({"fail": ["1:5"]}, "there is no replica 5"),
        ({"router": "prefx"}, "did you mean `prefix`"),
        ({"cold_start": 5.0}, "missing required field `most`"),
        ({"error_rate": 1.5}, "`faults.error` must be a number <= 1"),
    ],
)
def test_a_wrong_flag_is_one_line(flags: dict[str, Any], complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        options_from({}, flags)


def test_serve_says_what_it_serves(tmp_path: Path) -> None:
    path = tmp_path / "box.toml"
    path.write_text("[box]\nport = 0\nmodel = 'ours'\nspeed = 40\n")
    command = [sys.executable, "-m", "agentload", "serve", str(path), "--replicas", "2", "--prefill", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        first, second, third, fourth = (server.stderr.readline() for _ in range(4))
        with urllib.request.urlopen(first.split(" at ")[1].strip() + "/models", timeout=5) as page:
            card = json.loads(page.read())["data"][0]
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=10) == 0

    assert "simulated cluster" in first and "model 'ours'" in first
    assert "2 replicas that decode and 1 for prompts, router round_robin; each Llama-3.1-70B" in second
    assert "%" in third
    assert "40 times as fast" in fourth
    assert (card["id"], card["speed"], card["replicas"], card["behind"]) == ("ours", 40.0, 3, False)


def test_falling_behind_is_said_once_for_each_stretch_of_it() -> None:
    lag, stop, said = Lag(), asyncio.Event(), list[str]()

    async def play() -> None:
        watching = asyncio.create_task(watch(lag, stop, said.append, every=0.02))
        for late in (0.0, 0.5, 0.0):
            for _ in range(300):
                lag.add(late)
            await asyncio.sleep(0.05)
        stop.set()
        await watching

    asyncio.run(play())
    assert len(said) == 1
    assert "300 of the last 300 steps" in said[0]
    assert "this machine, not the model" in said[0]
    assert lag.too_much
