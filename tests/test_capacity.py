"""How many agents a server carries: searches with real runs against servers whose limits are known."""

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from agentload import capacity as capacities
from agentload.capacity import Options, capacity, plan_of, probe_spec, tiers_from, to_text
from agentload.errors import BadInput
from agentload.null import null_server
from agentload.spec import Spec, decode
from collectors.compare import compare
from collectors.health import LIMITS
from collectors.load import load_run

ANYTHING_GOES = LIMITS._replace(send_lag=5.0, loop_lag=5.0, cpu_share=9.0, machine_cpu=2.0)
"""These tests share two cores with whatever else runs there; what they ask is of the search, not of the machine."""


def spec(url: str = "", **more: Any) -> Spec:
    plain: dict[str, Any] = {
        "duration": 10,
        "profile": {"type": "held", "agents": 4},
        "population": [{"archetype": "fixed"}],
        "archetypes": {"fixed": {"steps": 1, "task_tokens": 32, "output_tokens": 4}},
        "endpoint": {"url": url},
    }
    return decode(plain | more)


def simulated(**more: Any) -> Spec:
    box = {"seats": 40, "sigma": 0.0}
    return spec(archetypes={"fixed": {"steps": 3, "task_tokens": 256, "output_tokens": 64}}, box=box, **more)


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "capacity.json").read_text())
    return found


CHUNK = 'data: {"id":"1","object":"chat.completion.chunk","model":"m","choices":[%s]%s}\n\n'


class Crowded:
    """Answers quickly while it has at most `seats` requests, and far longer for each beyond."""

    def __init__(self, seats: int) -> None:
        self.seats, self.busy = seats, 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = re.search(rb"(?i)content-length: *(\d+)", head)
                body = await reader.readexactly(int(length[1]) if length else 0)
                if head.startswith(b"GET"):
                    writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 23\r\n\r\n{"data": [{"id": "m"}]}')
                    continue
                self.busy += 1
                await asyncio.sleep(0.02 if self.busy <= self.seats else 0.5)
                writer.write(self.answer(body))
                self.busy -= 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def answer(self, body: bytes) -> bytes:
        asked = re.search(rb'"max_(?:completion_)?tokens": *(\d+)', body)
        tokens = int(asked[1]) if asked else 4
        words = CHUNK % ('{"index":0,"delta":{"role":"assistant","content":"a a"},"finish_reason":null}', "")
        stop = CHUNK % ('{"index":0,"delta":{},"finish_reason":"length"}', "")
        usage = f',"usage":{{"prompt_tokens":{len(body) // 5},"completion_tokens":{tokens}}}'
        text = words + stop + CHUNK % ("", usage) + "data: [DONE]\n\n"
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {len(text)}\r\n\r\n"
        return (head + text).encode()


@contextmanager
def crowded(seats: int) -> Iterator[str]:
    """Such a server, in a thread of its own; its base URL."""
    loop, ports, started = asyncio.new_event_loop(), list[int](), threading.Event()

    async def main() -> None:
        server = await asyncio.start_server(Crowded(seats).serve, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        started.set()
        async with server:
            await stop.wait()

    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    started.wait()
    try:
        yield f"http://127.0.0.1:{ports[0]}/v1"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


def test_the_known_limit_of_a_server_is_found_and_every_probe_kept(tmp_path: Path) -> None:
    said: list[str] = []
    options = Options(tiers_from(["ttft_p90=0.35"]), warmup=0.2, measure=0.8, limits=ANYTHING_GOES, gpus=2)
    with crowded(seats=6) as url:
        folder, code = capacity(spec(url), tmp_path, options, said.append)
    found = read(folder)
    (tier,) = found["tiers"]

    assert code == 0
    assert (tier["outcome"], tier["low"], tier["high"]) == ("found", 6, 7)
    assert tier["per"] == {"gpu": 3.0}
    assert len(said) == len(found["probes"]) <= 12
    for probe in found["probes"]:
        run = load_run(folder / probe["folder"])
        assert run.header["profile"]["agents"] == probe["load"]
        counted = (run.calls.session >= 0) & (run.calls.due >= 0.2) & (run.calls.due < 0.2 + probe["seconds"])
        assert probe["calls"] == counted.sum() >= 7
    assert len({load_run(folder / probe["folder"]).header["salt"] for probe in found["probes"]}) == len(found["probes"])


def test_a_server_whose_ttft_is_constant_has_no_limit(tmp_path: Path) -> None:
    options = Options(
        tiers_from(["ttft_p95=0.5", "error_rate=0.05"]), start=2, most=8, warmup=0.2, measure=0.6, limits=ANYTHING_GOES
    )
    with null_server("--ttft", "0.01", "--coalesced") as url:
        folder, _ = capacity(spec(url), tmp_path, options)
    found = read(folder)

    assert [probe["load"] for probe in found["probes"]][:3] == [2, 4, 8]
    assert found["tiers"][0]["outcome"] == "no_limit"
    assert found["tiers"][0]["sentence"].startswith("No limit found up to 8 agents with ttft_p95 ≤ 0.5")


def test_a_machine_that_is_too_slow_is_named_as_the_limit_and_not_the_server(tmp_path: Path) -> None:
    limits = ANYTHING_GOES._replace(cpu_share=0.0)  # any work is too much for it
    options = Options(tiers_from(["ttft_p95=0.001"]), start=1, warmup=0.1, measure=0.2, limits=limits)
    with null_server("--ttft", "0.01", "--coalesced") as url:
        folder, _ = capacity(spec(url), tmp_path, options)
    found = read(folder)

    assert found["tiers"][0]["outcome"] == "client"
    assert found["tiers"][0]["high"] is None
    assert "this machine can't make even 1 agent" in found["tiers"][0]["sentence"]
    assert "limited by this machine" in to_text(found)


TABLE = {"fast": {"ttft_p95": 0.3, "error_rate": 0.05}, "slow": {"ttft_p95": 0.9, "output_speed_p25": 5}}
VIRTUAL = Options(tiers_from([], table=TABLE), start=32, warmup=4, measure=16, simulate=True)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A capacity folder of the box, in virtual time."""
    return capacity(simulated(), tmp_path_factory.mktemp("capacity"), VIRTUAL)[0]


def test_in_virtual_time_the_answer_is_that_of_measuring_its_two_ends_alone(searched: Path, tmp_path: Path) -> None:
    for found in read(searched)["tiers"]:
        assert found["outcome"] == "found"
        assert held(tmp_path, found["tier"], found["low"])
        assert not held(tmp_path, found["tier"], found["high"])
        assert found["high"] - found["low"] <= max(1, 0.05 * found["low"])
    assert len(read(searched)["probes"]) <= 17


def held(out: Path, tier: str, load: float) -> bool:
    """Whether one load, measured alone, twice as long and with other sessions, holds."""
    wanted = probe_spec(structs.replace(simulated(), seed=99), load, 1, 1, VIRTUAL)
    folder, stopped = capacities.perform(wanted, out, simulated=True)
    probe = capacities.measured(folder, load, VIRTUAL, (4, 36), stopped)
    return all((each.share or 0) >= each.needed for each in probe.judged[tier])


def test_two_searches_agree_within_their_intervals_and_compare_says_so(searched: Path, tmp_path: Path) -> None:
    again = capacity(simulated(seed=2), tmp_path, structs.replace(VIRTUAL, start=40))[0]

    for first, second in zip(read(searched)["tiers"], read(again)["tiers"], strict=True):
        assert first["sure_low"] < second["sure_high"]  # the limit lies in both: [sure_low, sure_high)
        assert second["sure_low"] < first["sure_high"]
        assert second["low"] == pytest.approx(first["low"], rel=0.05)
    assert [row["verdict"] for row in compare(searched, again)["figures"]] == ["none", "none"]


def test_tiers_are_judged_from_the_same_probes(searched: Path) -> None:
    found = read(searched)
    fast, slow = found["tiers"]

    assert 0 < fast["low"] < slow["low"]
    assert all(set(probe["judged"]) == {"fast", "slow"} for probe in found["probes"])
    assert "SIMULATED" in to_text(found)
    assert to_text(found).count("output_speed_p25 ≥ 5") == len(found["probes"]) + 1


def test_an_open_loop_is_searched_by_its_rate_and_keeps_its_own_arrivals(tmp_path: Path) -> None:
    options = Options(tiers_from(["ttft_p95=0.3"]), start=8, resolution=0.2, warmup=2, measure=10, simulate=True)

    folder, _ = capacity(simulated(profile={"type": "gamma", "rate": 1.0, "cv": 2.0}), tmp_path, options)
    found = read(folder)

    assert found["unit"] == "sessions_per_second"
    assert found["tiers"][0]["high"] / found["tiers"][0]["low"] <= 1.2
    assert "sessions/s (" in to_text(found)
    for probe in found["probes"]:
        header = load_run(folder / probe["folder"]).header
        assert header["profile"]["rate"] == pytest.approx(probe["load"])
        assert header["spec"]["profile"]["profile"]["type"] == "gamma"


def test_a_probe_starts_its_agents_over_the_warm_up_and_waits_for_late_answers() -> None:
    options = Options(tiers_from(["ttft_p95=7", "itl_p95=1"]), warmup=20, measure=60)

    probe = probe_spec(spec(salt=5), 30, 1, 3, options)

    assert (probe.duration, probe.warmup, probe.drain) == (140, 20, 7)
    assert (probe.seed, probe.salt, probe.itl, probe.sessions) == (1, 8, True, None)
    times, counts = probe.profile.population(140)
    assert (counts.max(), times[-1] < 20, times[1] > 0) == (30, True, True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"start": 0}, "--start must be a whole number >= 1 (agents), got 0"),
        ({"start": 2.5}, "--start must be a whole number"),
        ({"start": 8, "most": 4}, "--most must be a whole number >= --start (8) agents, got 4"),
        ({"resolution": 5}, "5 % is 0.05"),
        ({"measure": 0}, "--measure > 0"),
        ({"probes": 0}, "--probes must be >= 1"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_a_line(options: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as error:
        plan_of(spec(), Options(tiers_from(["ttft_p95=1"]), **options))

    assert said in str(error.value)


def test_a_search_starts_at_what_the_spec_asks_for() -> None:
    assert plan_of(spec(), Options(tiers_from(["ttft_p95=1"]))).start == 4
    rate = plan_of(spec(profile={"type": "poisson", "rate": 2.5}), Options(tiers_from([], "aa-gpt-oss-120b")))
    assert (rate.start, rate.whole, rate.probes, rate.tiers) == (2.5, False, 27, ("1", "2", "3", "4"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([],), "capacity needs SLOs"),
        ((["ttft_p95=1", "ttft_p95=2"],), "given twice"),
        ((["tftt_p95=1"],), "did you mean ttft_p95?"),
        (([], "aa"), "there are aa-"),
    ],
)
def test_objectives_that_cannot_be_read_are_bad_input(arguments: tuple[Any, ...], said: str) -> None:
    with pytest.raises(BadInput, match=re.escape(said)):
        tiers_from(*arguments)


def test_money_and_power_are_per_what_the_cluster_has() -> None:
    options = Options(tiers_from(["ttft_p95=1"]), gpus=8, power_kw=10, gpu_hour_usd=2.5)

    assert capacities.per(40, options) == {"gpu": 5.0, "megawatt": 4_000.0, "dollar_hour": 2.0}
    assert capacities.per(40, Options(options.tiers, gpu_hour_usd=2.5)) == {}


def test_a_window_without_a_call_is_bad_input_and_not_a_verdict(tmp_path: Path) -> None:
    options = Options(tiers_from(["ttft_p95=1"]), start=1, warmup=0.5, measure=0.001, simulate=True)

    with pytest.raises(BadInput, match="lengthen --measure"):
        capacity(simulated(), tmp_path, options)


def test_an_interrupted_search_keeps_what_it_knew(tmp_path: Path) -> None:
    options = Options(tiers_from(["ttft_p95=1"]), start=8, warmup=1, measure=5, simulate=True)
    plan = plan_of(simulated(), options)
    folder, _ = capacities.perform(probe_spec(simulated(), 8, 0, 1, options), tmp_path, simulated=True)
    known, cut = (capacities.measured(folder, 8, options, (1, 6), why) for why in ("done", "interrupted"))
    first = capacities.result(simulated(), plan, options, [structs.replace(cut, load=8)])
    second = capacities.result(simulated(), plan, options, [known, structs.replace(cut, load=16)])

    assert first["tiers"][0]["sentence"].startswith("Nothing can be said of ttft_p95 ≤ 1 yet")
    assert (second["tiers"][0]["outcome"], second["tiers"][0]["low"], second["interrupted"]) == ("unfinished", 8, True)
    assert second["tiers"][0]["sentence"].startswith("At least 8 agents with ttft_p95 ≤ 1: the search ended")
    assert to_text(second)


def test_an_answer_from_sessions_that_hardly_ended_says_so(tmp_path: Path) -> None:
    long = structs.replace(simulated(), archetypes={"fixed": {"steps": 60, "task_tokens": 64, "output_tokens": 64}})
    options = Options(tiers_from(["ttft_p95=5"]), start=8, most=8, warmup=1, measure=5, simulate=True)

    folder, _ = capacity(long, tmp_path, options)

    assert "only 0 sessions came to their end for 8 agents" in read(folder)["tiers"][0]["notes"][0]
    assert "only 0 sessions" in to_text(read(folder))
