"""The servers' own metrics: read, put into one vocabulary, and never in the way of the load."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import uvloop

from agentload import spec as specs
from agentload.box.options import BoxOptions
from agentload.box.serve import BoxProcess
from agentload.commands import resolve
from agentload.errors import BadInput
from agentload.realtime import run
from agentload.screen import Watch
from agentload.telemetry.scrape import LIMIT, Page, Scraper, pages, parse
from collectors.load import Run, load_run
from collectors.metrics import send_lag
from collectors.records import Sample
from collectors.vocabulary import SOURCES, WORDS, translate

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextlib.contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """A server that answers every GET in that way; its root."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(OSError):  # the reader had enough
                answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def saying(text: str, status: int = 200, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(text.encode())

    return answer


def huge(handler: BaseHTTPRequestHandler) -> None:
    """200 MB of metrics that somebody else may like."""
    handler.send_response(200)
    handler.end_headers()
    block = b'# TYPE x gauge\nvllm:num_requests_running{engine="0"} 1\n' + b'x{a="b"} 1\n' * 90_000
    for _ in range(200):
        handler.wfile.write(block)


def trickling(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(40):
        handler.wfile.write(b"#")
        handler.wfile.flush()
        time.sleep(0.2)


def elsewhere(handler: BaseHTTPRequestHandler) -> None:
    saying("", 302, location="http://127.0.0.2:1/metrics")(handler)


def down() -> str:
    """An address at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/metrics"


VLLM = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3
vllm:num_requests_running{engine="1",model_name="m"} 4
# TYPE vllm:gpu_cache_usage_perc gauge
vllm:gpu_cache_usage_perc{engine="0",model_name="m"} 0.5
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="m"} 1e3
vllm:prompt_tokens_total{engine="0",model_name="lora"} 20 1700000000000
vllm:e2e_request_latency_seconds_bucket{le="0.3"} 4
vllm:generation_tokens_total{engine="0",model_name="m"} NaN
"""


def told(page: Page) -> dict[tuple[str, str], float]:
    return {(sample.name, sample.series): sample.value for sample in page.ask()}


def test_a_page_becomes_the_vocabulary_with_old_names_and_replicas_apart() -> None:
    with serving(saying(VLLM)) as root:
        page = Page([f"{root}/metrics"])
        said = told(page)

    assert said.pop(("seconds", "")) > 0
    assert said == {
        ("up", ""): 1.0,
        ("running", "engine=0"): 3.0,
        ("running", "engine=1"): 4.0,
        ("kv_usage", "engine=0"): 0.5,
        ("prompt_tokens", "engine=0"): 1020.0,
    }
    assert page.servers == {"vllm"}


def test_figures_of_gpus_come_in_plain_units_and_what_was_computed_is_not_the_whole_prompt() -> None:
    lines = [
        b'DCGM_FI_DEV_POWER_USAGE{gpu="0",Hostname="a"} 412.5',
        b'DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{gpu="0",Hostname="a"} 5000',
        b'DCGM_FI_DEV_FB_USED{gpu="0",Hostname="a"} 2',
        b"llamacpp:prompt_tokens_total 10",
        b"llamacpp:prompt_tokens_cached_total 90",
    ]
    said = {(server, word): value for server, _, word, value in translate(parse(lines))}

    assert said["dcgm", "power"] == 412.5
    assert said["dcgm", "energy"] == 5.0
    assert said["dcgm", "gpu_memory"] == 2 << 20
    assert said["llamacpp", "prompt_tokens"] == 100.0
    assert said["llamacpp", "cached_tokens"] == 90.0


def test_every_name_in_the_table_stands_for_a_word_of_the_vocabulary() -> None:
    explained = (Path(__file__).parent.parent / "docs" / "metrics.md").read_text()

    assert {source.word for source in SOURCES} <= set(WORDS)
    assert all(f"`{word}`" in explained for word in WORDS)
    assert {source.server for source in SOURCES} == {
        "vllm", "sglang", "trtllm", "tgi", "llamacpp", "litellm", "dynamo", "dcgm", "box"}  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (saying("", 500), "no metrics there (HTTP 500)"),
        (saying("<html>hello</html>"), "no metrics there (HTTP 200)"),
        (saying("vllm:num_requests_running{ nonsense\n"), "could not convert string to float"),
        (huge, f"larger than {LIMIT >> 20} MB"),
        (elsewhere, "no metrics there (HTTP 302)"),
    ],
)
def test_a_page_that_cannot_be_read_is_down_and_says_why(answer: Answer, error: str) -> None:
    with serving(answer) as root:
        page = Page([f"{root}/metrics"])
        said = told(page)

    assert said["up", ""] == 0.0
    assert error in page.error


def test_an_endpoint_without_metrics_is_asked_at_both_places_and_then_left_alone() -> None:
    asked: list[tuple[str, str | None]] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked.append((handler.path, handler.headers["Authorization"]))
        saying("", 404)(handler)

    with serving(answer) as root:
        (page,) = pages(resolve(None, {"url": f"{root}/v1"}))
        with Scraper([page]) as scraper:
            assert page.absent
        assert [path for path, _ in asked] == ["/metrics", "/prometheus/metrics"]
        assert scraper.describe() == []


def test_the_key_goes_to_the_endpoint_and_to_no_other_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    heard: list[tuple[str, str | None]] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        heard.append((handler.path, handler.headers["Authorization"]))
        saying(VLLM)(handler)

    with serving(answer) as home, serving(answer) as other:
        for named in (f"{other}/metrics", f"{home}/own"):
            for page in pages(resolve(None, {"url": f"{home}/v1", "metrics_url": [named]})):
                told(page)

    key = "Bearer sk-secret"
    assert heard == [("/metrics", None), ("/metrics", key), ("/own", key), ("/metrics", key)]


def test_several_endpoints_have_a_page_each_and_one_that_is_named_is_read_once() -> None:
    plain = {
        "urls": {"http://a:1/v1": 1.0, "http://b:2/v1/": 1.0},
        "telemetry": {"metrics_urls": ["http://b:2/metrics"]},
    }
    spec = specs.decode({"profile": {"type": "held", "agents": 1}, "population": [{"archetype": "chat"}], "sessions": 1}
                        | plain)  # fmt: skip

    assert [page.urls for page in pages(spec)] == [
        ["http://b:2/metrics"], ["http://a:1/metrics", "http://a:1/prometheus/metrics"]]  # fmt: skip


def test_what_is_read_before_the_clock_lies_before_zero_and_counters_are_waited_for() -> None:
    late = iter([5, 5, 900, 900, 900, 900, 900, 900, 900])
    running = iter([0, 1, 1, 1, 0, 0, 0, 0, 0])

    def answer(handler: BaseHTTPRequestHandler) -> None:
        text = f"vllm:num_preemptions_total {next(late)}\nvllm:num_requests_running {next(running)}\n"
        saying(text)(handler)

    found: list[Sample] = []
    with serving(answer) as root, Scraper([Page([f"{root}/metrics"])]) as scraper:
        scraper.begin(found.append, time.perf_counter() + 0.2)
        scraper.settle()
        after = len(found)
        time.sleep(0.3)
    counts = [sample.value for sample in found if sample.name == "preemptions"]

    assert found[0].time < -0.2
    assert counts[0] == 5
    assert counts[-1] == 900
    assert [sample.value for sample in found if sample.name == "running"][-1] == 0
    assert len(found) == after


def test_energy_that_is_always_used_keeps_no_run_from_its_end() -> None:
    joules = iter(range(1000))

    def answer(handler: BaseHTTPRequestHandler) -> None:
        saying(f'DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{gpu="0"}} {next(joules)}\n')(handler)

    with serving(answer) as root, Scraper([Page([f"{root}/metrics"])]) as scraper:
        scraper.begin(lambda sample: None, time.perf_counter())
        began = time.perf_counter()
        scraper.settle()

    assert time.perf_counter() - began < 2


def test_pages_with_passwords_or_of_other_kinds_are_refused_before_anything_is_sent() -> None:
    for url, said in (("http://me:pw@host/metrics", "password"), ("host:9400", "http://")):
        with pytest.raises(BadInput, match=said):
            resolve(None, {"metrics_url": [url]})
    with pytest.raises(BadInput, match="ca_file"):
        pages(resolve(None, {"url": "https://host/v1", "ca_file": "/nowhere.pem"}))
    with pytest.raises(BadInput, match="metrics_port"):
        resolve(None, {"metrics_host": "0.0.0.0"})


def finished(url: str, out: Path, *others: str) -> Run:
    flags = {"url": url, "archetype": ["chat"], "scale": 0.2, "longest_wait": 1.0, "agents": 12, "duration": 2.0,
             "drain": 0.5, "seed": 3, "metrics_url": list(others)}  # fmt: skip
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        folder, _ = runner.run(run(resolve(None, flags), out, Watch()))
    return load_run(folder)


def test_pages_that_are_huge_slow_down_nonsense_or_elsewhere_do_not_disturb_the_load(tmp_path: Path) -> None:
    with (
        BoxProcess(BoxOptions(sigma=0.0)) as url,
        serving(huge) as a,
        serving(trickling) as b,
        serving(saying("\x00" * 100_000)) as c,
        serving(elsewhere) as d,
    ):
        alone = finished(url, tmp_path / "alone")
        beside = finished(url, tmp_path / "beside", down(), *(f"{root}/metrics" for root in (a, b, c, d)))
    lag, less = (float(np.nanmedian(send_lag(result.calls))) for result in (beside, alone))
    own = beside.server.where(beside.server.target == url.removesuffix("/v1") + "/metrics")

    assert len(beside.calls) == pytest.approx(len(alone.calls), rel=0.1)
    assert lag < less + 0.005  # the interpreter changes threads after 5 ms at the latest
    assert (own.value[own.name == "up"] == 1.0).all()
    assert (own.name == "up").sum() >= 3
    others = beside.server.where((beside.server.target != own.target[0]) & (beside.server.name == "up"))
    assert not others.value.any()
    assert len(beside.header["pages"]) == 6
    assert all(page["error"] for page in beside.header["pages"][:5])
