"""Records as OpenTelemetry's GenAI spans and metrics: a session is a trace.

    invoke_agent coder                    the session
      chat MODEL                          an attempt at a model call
      execute_tool read_file              a tool call
      invoke_agent explorer               a sub-agent, and below it the same again

Names are those of open-telemetry/semantic-conventions-genai @ 004902b (status Development), times the recorded ones.
Nothing here knows a header or a key. This runs in a process of its own (`agentload.telemetry.export`).
"""

import os
import secrets
import urllib.parse
from collections.abc import Iterable, Iterator

from opentelemetry.metrics import Histogram, Meter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from agentload.telemetry.message import About, Batch
from agents.tracecontext import agent_span, call_span, is_sampled, trace_id
from collectors.records import CALIBRATION, Call, Session, Tool

Value = str | int | float | bool | list[str]

SECONDS = tuple(0.01 * 2**i for i in range(14))  # what the conventions advise for durations, to 81.92 s
TOKENS = tuple(4**i for i in range(14))  # and for token counts, to 67,108,864
PACES = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)  # and for a token


class Spans:
    """Makes spans of records."""

    def __init__(self, about: About) -> None:
        self.about = about
        where = urllib.parse.urlsplit(about.url)
        self.server: dict[str, Value] = {"server.address": where.hostname or ""}
        self.server["server.port"] = where.port or (443 if where.scheme == "https" else 80)
        known = {"service.version": about.version, "agentload.run_id": about.run_id}
        if "OTEL_SERVICE_NAME" not in os.environ:
            known["service.name"] = "agentload"
        self.resource = Resource.create(known)
        self.scope = InstrumentationScope("agentload", about.version)

    def of(self, batch: Batch) -> Iterator[ReadableSpan]:
        """The spans of the sampled sessions in a batch."""
        for call in batch.calls:
            if trace := self._trace(call.session):
                yield self._call(trace, call)
        for tool in batch.tools:
            if trace := self._trace(tool.session):
                yield self._tool(trace, tool)
        for session in batch.sessions:
            if trace := self._trace(session.session):
                yield self._agent(trace, session)

    def _trace(self, session: int) -> int:
        """The session's trace; 0 where it has none."""
        trace = trace_id(self.about.run_id, session)
        return trace if session != CALIBRATION and is_sampled(trace, self.about.sample) else 0

    def _call(self, trace: int, call: Call) -> ReadableSpan:
        about = self.about
        found: dict[str, Value] = common(about, call) | self.server | {
            "gen_ai.operation.name": about.operation, "gen_ai.request.model": about.model,
            "gen_ai.request.stream": about.stream, "agentload.step": call.step, "agentload.attempt": call.attempt,
            "agentload.send_lag": max(0.0, call.sent - call.due - call.connect - call.throttled),
        }  # fmt: skip
        if call.wanted_output_tokens is not None:
            found["gen_ai.request.max_tokens"] = call.wanted_output_tokens
        if call.finish_reason:
            found["gen_ai.response.finish_reasons"] = [call.finish_reason]
        if call.first is not None:
            found["gen_ai.response.time_to_first_chunk"] = call.first - call.sent
        if call.usage == "server":
            found |= usage(call)
        if call.status != "ok":
            found["error.type"] = call.status
        own = call_span(about.run_id, call.session, call.agent, call.step, call.attempt)
        parent = agent_span(about.run_id, call.session, call.agent)
        name = f"{about.operation} {about.model}"
        said = "" if call.status == "ok" else call.error or call.status
        return self._span(name, SpanKind.CLIENT, trace, own, parent, call.sent, call.end, found, said)

    def _tool(self, trace: int, tool: Tool) -> ReadableSpan:
        found: dict[str, Value] = common(self.about, tool) | {
            "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": tool.name, "gen_ai.tool.type": "function",
            "agentload.step": tool.step, "agentload.tool.kind": tool.kind,
        }  # fmt: skip
        if not tool.ok:
            found["error.type"] = tool.kind if tool.kind in ("unknown", "malformed") else "tool_error"
        parent = agent_span(self.about.run_id, tool.session, tool.agent)
        own = secrets.randbits(64) or 1  # nobody has to know it before
        said = "" if tool.ok else tool.error or "the tool failed"
        return self._span(
            f"execute_tool {tool.name}", SpanKind.INTERNAL, trace, own, parent, tool.start, tool.end, found, said
        )

    def _agent(self, trace: int, session: Session) -> ReadableSpan:
        about = self.about
        found: dict[str, Value] = common(about, session) | usage(session) | {
            "gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": session.archetype,
            "gen_ai.agent.id": f"{session.session}{f'.{session.agent}' if session.agent else ''}",
            "gen_ai.request.model": about.model, "agentload.outcome": session.outcome, "agentload.steps": session.steps,
        }  # fmt: skip
        failed = session.outcome not in ("done", "unfinished")
        if failed:
            found["error.type"] = session.outcome
        own = agent_span(about.run_id, session.session, session.agent)
        parent = agent_span(about.run_id, session.session, session.agent.rpartition(".")[0]) if session.agent else 0
        said = (session.error or session.outcome) if failed else ""
        name = f"invoke_agent {session.archetype}"
        return self._span(name, SpanKind.INTERNAL, trace, own, parent, session.start, session.end, found, said)

    def _span(
        self, name: str, kind: SpanKind, trace: int, own: int, parent: int, start: float, end: float,
        attributes: dict[str, Value], error: str,
    ) -> ReadableSpan:  # fmt: skip
        flags = TraceFlags(TraceFlags.SAMPLED)
        return ReadableSpan(
            name,
            context=SpanContext(trace, own, is_remote=False, trace_flags=flags),
            parent=SpanContext(trace, parent, is_remote=False, trace_flags=flags) if parent else None,
            resource=self.resource,
            attributes=attributes,
            kind=kind,
            status=Status(StatusCode.ERROR, error) if error else Status(StatusCode.UNSET),
            start_time=self._instant(start),
            end_time=self._instant(max(start, end)),
            instrumentation_scope=self.scope,
        )

    def _instant(self, seconds: float) -> int:
        """Nanoseconds since 1970."""
        return round((self.about.epoch + seconds) * 1e9)


def common(about: About, record: Call | Tool | Session) -> dict[str, Value]:
    """What every span says."""
    found: dict[str, Value] = {
        "gen_ai.provider.name": "openai",  # whose protocol it is
        "gen_ai.conversation.id": f"{about.run_id}-{record.session}",
        "agentload.archetype": record.archetype,
    }
    if not isinstance(record, Tool) and record.tenant:
        found["agentload.tenant"] = record.tenant
    return found


def usage(record: Call | Session) -> dict[str, Value]:
    return {
        "gen_ai.usage.input_tokens": record.input_tokens,
        "gen_ai.usage.output_tokens": record.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": record.cached_tokens,
        "gen_ai.usage.reasoning.output_tokens": record.reasoning_tokens,
    }


class Measures:
    """The GenAI metrics, of all sessions, sampled or not."""

    def __init__(self, meter: Meter, about: About) -> None:
        def histogram(name: str, unit: str, edges: Iterable[float]) -> Histogram:
            return meter.create_histogram(f"gen_ai.{name}", unit, explicit_bucket_boundaries_advisory=[*edges])

        self.about = about
        self.duration = histogram("client.operation.duration", "s", SECONDS)
        self.tokens = histogram("client.token.usage", "{token}", TOKENS)
        self.first = histogram("client.operation.time_to_first_chunk", "s", SECONDS)
        self.gap = histogram("client.operation.time_per_output_chunk", "s", PACES)
        self.agent = histogram("invoke_agent.duration", "s", SECONDS)
        self.tool = histogram("execute_tool.duration", "s", SECONDS)

    def record(self, batch: Batch) -> None:
        for call in batch.calls:
            if call.session != CALIBRATION:
                self._call(call)
        for tool in batch.tools:
            said = {"gen_ai.tool.name": tool.name} | ({} if tool.ok else {"error.type": "tool_error"})
            self.tool.record(tool.end - tool.start, said)
        for session in batch.sessions:
            self.agent.record(session.end - session.start, {"gen_ai.agent.name": session.archetype})

    def _call(self, call: Call) -> None:
        about = self.about
        said = {
            "gen_ai.operation.name": about.operation, "gen_ai.provider.name": "openai",
            "gen_ai.request.model": about.model,
        }  # fmt: skip
        self.duration.record(call.end - call.sent, said | ({} if call.status == "ok" else {"error.type": call.status}))
        if call.usage == "server":
            self.tokens.record(call.input_tokens, said | {"gen_ai.token.type": "input"})
            self.tokens.record(call.output_tokens, said | {"gen_ai.token.type": "output"})
        if call.first is not None:
            self.first.record(call.first - call.sent, said)
        for gap in call.itl or ():
            self.gap.record(gap, said)
