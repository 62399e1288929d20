"""Sessions as OpenTelemetry traces, against a receiver of OTLP over HTTP in this process."""

import asyncio
import contextlib
import io
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
import uvloop
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from test_collect_metrics import call, session

from agentload.box.options import BoxOptions
from agentload.box.serve import BoxProcess
from agentload.commands import resolve
from agentload.errors import BadInput
from agentload.realtime import run
from agentload.screen import Watch
from agentload.telemetry import traces
from agentload.telemetry.export import export
from agentload.telemetry.message import About, Batch
from agents.endpoint import Endpoint, Features, Place
from agents.request import Request
from agents.text import Calibration, Encoder
from agents.tracecontext import agent_span, call_span, is_sampled, trace_id
from collectors.header import Exported
from collectors.load import Run, load_run
from collectors.metrics import send_lag
from collectors.records import Tool


class Span(NamedTuple):
    name: str
    trace: str
    id: str
    parent: str
    start: int
    end: int
    kind: int
    error: bool
    attributes: dict[str, Any]


class Receiver:
    """What was received."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.metrics: dict[str, Any] = {}
        self.resource: dict[str, Any] = {}
        self.bodies = b""

    def take(self, path: str, body: bytes) -> None:
        self.bodies += body
        if path == "/v1/traces":
            message = ExportTraceServiceRequest.FromString(body)
            for resource in message.resource_spans:
                self.resource = plain(resource.resource.attributes)
                for s in (span for scope in resource.scope_spans for span in scope.spans):
                    ids = s.trace_id.hex(), s.span_id.hex(), s.parent_span_id.hex()
                    times = s.start_time_unix_nano, s.end_time_unix_nano
                    self.spans.append(Span(s.name, *ids, *times, s.kind, s.status.code == 2, plain(s.attributes)))
        else:
            assert path == "/v1/metrics"
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                    self.metrics[metric.name] = metric


def plain(attributes: Any) -> dict[str, Any]:
    found = {}
    for item in attributes:
        kind = item.value.WhichOneof("value")
        value = getattr(item.value, kind)
        found[item.key] = [v.string_value for v in value.values] if kind == "array_value" else value
    return found


@contextlib.contextmanager
def receiving() -> Iterator[tuple[str, Receiver]]:
    """A receiver, and its URL."""
    found, lock = Receiver(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                found.take(self.path, body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", found
        server.shutdown()


def nobody() -> str:
    """An address at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def finished(url: str, out: Path, **flags: Any) -> Run:
    spec = resolve(
        None, {"url": url, "scale": 0.05, "longest_wait": 0.1, "agents": 6, "sessions": 6, "seed": 1} | flags
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        folder, _ = runner.run(run(spec, out, Watch()))
    return load_run(folder)


@pytest.fixture(scope="module")
def box() -> Iterator[str]:
    with BoxProcess(BoxOptions(speed=20.0, sigma=0.0)) as url:
        yield url


def test_a_session_is_one_tree_with_the_right_parents(
    box: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    with receiving() as (url, received):
        result = finished(box, tmp_path, archetype=["orchestrator", "chat"], otlp_endpoint=url, traceparent=True)
    run_id, calls = result.header["run_id"], result.calls.where(result.calls.session >= 0)
    trees: dict[str, list[Span]] = defaultdict(list)
    for span in received.spans:
        trees[span.trace].append(span)

    assert (result.sessions.agent != "").sum() > 1  # there are sub-agents
    assert set(trees) == {f"{trace_id(run_id, n):032x}" for n in range(6)}
    kinds = Counter(span.name.partition(" ")[0] for span in received.spans)
    assert kinds == {"chat": len(calls), "execute_tool": len(result.tools), "invoke_agent": len(result.sessions)}
    for n in range(6):
        spans = {span.id: span for span in trees[f"{trace_id(run_id, n):032x}"]}
        assert [span.id for span in spans.values() if not span.parent] == [f"{agent_span(run_id, n, ''):016x}"]
        for span in spans.values():
            if span.parent:
                parent = spans[span.parent]
                assert parent.name.startswith("invoke_agent ")
                assert parent.start - 10_000 <= span.start <= span.end <= parent.end + 10_000  # ns
    for row in zip(calls.session, calls.agent, calls.step, calls.attempt, calls.sent, strict=True):
        (span,) = [s for s in received.spans if s.id == f"{call_span(run_id, *row[:4]):016x}"]
        assert span.parent == f"{agent_span(run_id, row[0], row[1]):016x}"
        assert span.start / 1e9 == pytest.approx(result.header["clock_anchor"]["unix"] + row[4], abs=0.05)
    children = [s for s in received.spans if s.name == "invoke_agent explorer"]
    assert all(trees[s.trace] and s.parent for s in children)
    assert b"very-secret" not in received.bodies
    assert msgspec.convert(result.header["otlp"], Exported) == Exported(spans=len(received.spans), failed=0, dropped=0)


def test_the_header_of_a_request_names_the_span_that_is_exported() -> None:
    endpoint = Endpoint(url="http://127.0.0.1:1/v1", model="m", traceparent=0.5)
    request = Request(endpoint, Features(), Encoder(Calibration()), "cafe")
    names = [request.names(Place(n, "0.1", "coder", 3, 1, 0.0)) for n in range(400)]
    given = [name.get("traceparent") for name in names]

    for n, header in enumerate(given):
        trace, span = trace_id("cafe", n), call_span("cafe", n, "0.1", 3, 1)
        assert header == (f"00-{trace:032x}-{span:016x}-01" if is_sampled(trace, 0.5) else None)
    assert 140 < sum(header is not None for header in given) < 260  # five standard errors about 200


ABOUT = About("cafe", "1", "m", "http://host:81/v1", True, "chat", 1_000.0, "", 1.0)


def exported(about: About, *batches: Batch) -> dict[str, int]:
    messages = [msgspec.msgpack.encode(message) for message in (about, *batches)]
    return export(io.BytesIO(b"".join(len(text).to_bytes(4) + text for text in messages)))


def test_spans_and_metrics_carry_the_conventions_names_and_the_recorded_times() -> None:
    good = call(wanted_output_tokens=11, reasoning_tokens=4, finish_reason="stop", itl=(0.02, 0.3), tenant="gold")
    bad = call(step=1, status="http_429", first=None, last=None, usage="estimated", error="slow down")
    tool = Tool(0, "", "coder", 0, "shell", 3.0, 4.5, ok=False, result_tokens=5, error="no such file")
    agents = [session(), session(agent="0", archetype="explorer", outcome="failed")]
    with receiving() as (url, received):
        sent = exported(msgspec.structs.replace(ABOUT, endpoint=url), Batch([good, bad], [tool], agents))
    spans = {span.name + span.attributes.get("error.type", ""): span for span in received.spans}
    chat, refused, shell = spans["chat m"], spans["chat mhttp_429"], spans["execute_tool shelltool_error"]
    root, child = spans["invoke_agent coder"], spans["invoke_agent explorerfailed"]

    assert sent == {"spans": 5, "failed": 0}
    assert received.resource["service.name"] == "agentload"
    assert (chat.start, chat.end, chat.kind) == (1_001_000_000_000, 1_003_000_000_000, 3)  # CLIENT
    assert chat.attributes | {
        "gen_ai.operation.name": "chat", "gen_ai.request.model": "m", "gen_ai.conversation.id": "cafe-0",
        "gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 11, "gen_ai.usage.cache_read.input_tokens": 60,
        "gen_ai.usage.reasoning.output_tokens": 4, "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.response.time_to_first_chunk": 0.5, "gen_ai.request.max_tokens": 11, "gen_ai.request.stream": True,
        "server.address": "host", "server.port": 81, "agentload.tenant": "gold",
    } == chat.attributes  # fmt: skip
    assert refused.error and "gen_ai.usage.input_tokens" not in refused.attributes
    assert shell.error and shell.attributes["gen_ai.tool.name"] == "shell" and shell.end - shell.start == 1.5e9
    assert root.attributes["gen_ai.agent.name"] == "coder" and not root.parent
    assert child.parent == root.id and child.error and child.attributes["gen_ai.agent.id"] == "0.0"

    points = received.metrics["gen_ai.client.operation.duration"].histogram.data_points
    assert sum(point.count for point in points) == 2
    assert {plain(point.attributes).get("error.type") for point in points} == {None, "http_429"}
    tokens = {plain(p.attributes)["gen_ai.token.type"]: p.sum
              for p in received.metrics["gen_ai.client.token.usage"].histogram.data_points}  # fmt: skip
    assert tokens == {"input": 100, "output": 11}
    assert [
        p.count for p in received.metrics["gen_ai.client.operation.time_per_output_chunk"].histogram.data_points
    ] == [2]
    assert {"gen_ai.invoke_agent.duration", "gen_ai.execute_tool.duration",
            "gen_ai.client.operation.time_to_first_chunk"} <= set(received.metrics)  # fmt: skip


def test_only_the_sampled_sessions_become_spans_and_all_count_in_the_metrics() -> None:
    with receiving() as (url, received):
        about = msgspec.structs.replace(ABOUT, endpoint=url, sample=0.3)
        exported(about, Batch([call(session=n) for n in range(300)], [], []))
    sampled = {f"{trace_id('cafe', n):032x}" for n in range(300) if is_sampled(trace_id("cafe", n), 0.3)}

    assert {span.trace for span in received.spans} == sampled
    assert 50 < len(sampled) < 130  # five standard errors about 90
    (point,) = received.metrics["gen_ai.client.operation.time_to_first_chunk"].histogram.data_points
    assert point.count == 300


def test_a_receiver_that_is_down_costs_spans_and_nothing_else(
    box: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags: dict[str, Any] = {"archetype": ["chat"], "agents": 12, "sessions": 60}
    alone = finished(box, tmp_path, **flags)
    began = time.perf_counter()
    told = finished(box, tmp_path, otlp_endpoint=nobody(), **flags)
    lag, less = (float(np.nanmedian(send_lag(result.calls))) for result in (told, alone))

    assert len(told.calls) == len(alone.calls)
    assert told.header["otlp"]["failed"] == (told.calls.session >= 0).sum() + len(told.tools) + len(told.sessions)
    assert lag < less + 0.005
    assert f"{told.header['otlp']['failed']:,} spans were not taken" in capsys.readouterr().err
    assert time.perf_counter() - began < 25


def test_asking_for_traces_without_opentelemetry_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "NEEDED", "no_such_package.exporter")
    with pytest.raises(BadInput, match=r"install agentload\[otel\]"):
        traces.wanted(resolve(None, {"url": "http://h/v1", "otlp_endpoint": "http://h:4318"}))

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:4318")  # somebody's environment, not our business then
    assert not traces.wanted(resolve(None, {"url": "http://h/v1"}))


def test_the_environments_endpoint_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = resolve(None, {"url": "http://h/v1"})
    assert not traces.wanted(spec)
    with receiving() as (url, received):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        assert traces.wanted(spec)
        with monkeypatch.context() as grpc:
            grpc.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
            assert not traces.wanted(spec)
        exported(ABOUT, Batch([call()], [], []))
    assert [span.name for span in received.spans] == ["chat m"]
