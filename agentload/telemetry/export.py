"""The process that turns records into OpenTelemetry's traces and metrics and sends them, by OTLP over HTTP.

It reads from its stdin (`agentload.telemetry.traces` writes there): what Python does to build and encode a span would
be felt by an event loop in the same interpreter, some milliseconds at a time, and by one in another process not at all.
It ends when its stdin closes, and says on stdout, as JSON, what became of the spans.
"""

import logging
import os
import sys
import time
from collections.abc import Iterator
from itertools import islice
from typing import BinaryIO

import msgspec
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult

from agentload.telemetry.message import About, Batch
from agentload.telemetry.spans import Measures, Spans

SPANS = 512
"""Spans of one request, as OpenTelemetry's own batches."""
TIMEOUT = 3.0
"""Seconds for one request, its retries included, where the environment says nothing."""
PAUSE = 15.0
"""Seconds for which nothing is sent to a receiver that did not answer."""
METRICS_PERIOD = 5.0
"""Seconds between two exports of metrics."""


def messages(source: BinaryIO) -> Iterator[bytes]:
    """Messages, each with its length before it (four bytes, big-endian), until the source ends."""
    while len(size := source.read(4)) == 4:
        message = source.read(int.from_bytes(size))
        if len(message) < int.from_bytes(size):
            return
        yield message


class Sender:
    """Sends spans, and counts them. After a failure the next ones are dropped for a while, so that none waits long."""

    def __init__(self, exporter: OTLPSpanExporter) -> None:
        self.exporter = exporter
        self.sent = {"spans": 0, "failed": 0}
        self.down_until = 0.0

    def send(self, spans: Iterator[ReadableSpan]) -> None:
        while some := list(islice(spans, SPANS)):
            up = time.monotonic() >= self.down_until
            good = up and self.exporter.export(some) is SpanExportResult.SUCCESS
            if up and not good:
                self.down_until = time.monotonic() + PAUSE
            self.sent["spans" if good else "failed"] += len(some)


def export(source: BinaryIO) -> dict[str, int]:
    """Send what comes from `source`, first `About` and then `Batch`es; how many spans were sent, and how many not."""
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # what failed is counted, and said once
    found = messages(source)
    first = next(found, None)
    if first is None:
        return {}
    about = msgspec.msgpack.decode(first, type=About)
    base, timeout = about.endpoint.rstrip("/"), None if "OTEL_EXPORTER_OTLP_TIMEOUT" in os.environ else TIMEOUT
    spans = Spans(about)
    sender = Sender(OTLPSpanExporter(f"{base}/v1/traces" if base else None, timeout=timeout))
    figures = OTLPMetricExporter(f"{base}/v1/metrics" if base else None, timeout=timeout)
    reader = PeriodicExportingMetricReader(figures, export_interval_millis=METRICS_PERIOD * 1000)
    provider = MeterProvider([reader], spans.resource, shutdown_on_exit=False)
    measures = Measures(provider.get_meter("agentload", about.version), about)
    decoder = msgspec.msgpack.Decoder(Batch)
    for message in found:
        batch = decoder.decode(message)
        measures.record(batch)
        sender.send(spans.of(batch))
    sender.exporter.shutdown()  # type: ignore[no-untyped-call]  # OpenTelemetry's
    provider.shutdown(timeout_millis=TIMEOUT * 1000)
    return sender.sent


if __name__ == "__main__":
    sys.stdout.write(msgspec.json.encode(export(sys.stdin.buffer)).decode())
