"""Sessions as traces, to OpenTelemetry: starts the process that makes and sends them, and feeds it."""

import contextlib
import importlib.util
import os
import subprocess
import sys
from importlib import metadata
from typing import Any

import msgspec

from agentload.errors import BadInput
from agentload.prepare import Prepared
from agentload.spec import Spec
from agentload.telemetry.message import About, Batch
from agentload.telemetry.tap import Record
from collectors.records import Call, Session, Tool

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
NEEDED = "opentelemetry.exporter.otlp"
PATIENCE = 12.0
"""Seconds that the last spans and metrics get: two requests that nobody answers."""


def wanted(spec: Spec) -> bool:
    """Whether traces are asked for: by the spec, or by OpenTelemetry's own variables where it is installed.

    BadInput where the spec asks for what is not installed.
    """
    try:
        installed = importlib.util.find_spec(NEEDED) is not None
    except ModuleNotFoundError:
        installed = False
    if spec.telemetry.otlp_endpoint:
        if not installed:
            raise BadInput(
                "otlp_endpoint needs OpenTelemetry, which is not installed; install agentload[otel], or leave it out"
            )
        return True
    said = os.environ.get
    refused = said("OTEL_SDK_DISABLED", "").lower() == "true" or said("OTEL_EXPORTER_OTLP_PROTOCOL", "") == "grpc"
    return installed and not refused and any(said(name) for name in ENDPOINTS)


class Traces:
    """The exporting process: `take` tells it of records, `close` lets it finish."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "agentload.telemetry.export"]
        self._process = subprocess.Popen(
            command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )  # Ctrl-C is for the run, which has records for it yet
        self._encoder = msgspec.msgpack.Encoder()

    def about(self, prepared: Prepared, epoch: float) -> None:
        """Say what runs; `epoch` is the run clock's zero in Unix time. Comes before the first record."""
        spec, endpoint = prepared.spec, prepared.spec.endpoint
        self._tell(
            About(
                run_id=prepared.run_id,
                version=metadata.version("agentload"),
                model=endpoint.model,
                url=endpoint.url,
                stream=endpoint.stream,
                operation="text_completion" if endpoint.api == "completions" else "chat",
                epoch=epoch,
                endpoint=spec.telemetry.otlp_endpoint,
                sample=spec.telemetry.sample,
            )
        )

    def take(self, rows: list[Record]) -> None:
        """Pass a batch of records on; blocks while the process has too many to send."""
        self._tell(
            Batch(
                [row for row in rows if isinstance(row, Call)],
                [row for row in rows if isinstance(row, Tool)],
                [row for row in rows if isinstance(row, Session)],
            )
        )

    def _tell(self, message: msgspec.Struct) -> None:
        assert self._process.stdin is not None
        text = self._encoder.encode(message)
        left = memoryview(len(text).to_bytes(4) + text)
        with contextlib.suppress(OSError, ValueError):  # it has ended; `close` says so
            while left:
                left = left[self._process.stdin.write(left) :]

    def close(self) -> dict[str, Any]:
        """Wait for the last spans, but not for ever; what became of them, for the run's header."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            said, _ = self._process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            said, _ = self._process.communicate()
        cut = {"spans": 0, "failed": 0, "error": "the exporting process was cut off"}
        found: dict[str, Any] = msgspec.json.decode(said) if said else cut
        return found
