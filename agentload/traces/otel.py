"""OpenTelemetry GenAI spans as OTLP JSON: a file of exported requests, one a line or one in all.

Source: open-telemetry/semantic-conventions-genai, gen-ai-spans.md. Spans with a token usage are calls, `execute_tool`
spans are tools, `invoke_agent` spans are agents (those inside another one are sub-agents of it). Spans of one
`gen_ai.conversation.id`, or else of one trace, are a session. What a call shares with the one before is
`gen_ai.usage.cache_read.input_tokens`: what the provider's cache held.
"""

from collections.abc import Iterator
from typing import Annotated, Any

from msgspec import Meta, Struct

from agentload.traces.graph import Agent, Gap, Session, Start, Step, Thread, Tool, Tools
from agentload.traces.source import Gather, Source

Nanoseconds = int | Annotated[str, Meta(pattern=r"^[0-9]{1,20}$")]
LATEST = 10**19
CALLS = ("chat", "text_completion", "generate_content", "responses")


class Value(Struct, frozen=True, gc=False, rename="camel"):
    """An attribute's value."""

    string_value: str | None = None
    int_value: int | str | None = None
    double_value: float | None = None
    bool_value: bool | None = None


class Attribute(Struct, frozen=True, gc=False):
    """One attribute."""

    key: str
    value: Value = Value()


class Span(Struct, frozen=True, rename="camel"):
    """One span."""

    span_id: str
    start_time_unix_nano: Nanoseconds
    end_time_unix_nano: Nanoseconds
    trace_id: str = ""
    parent_span_id: str = ""
    name: str = ""
    attributes: list[Attribute] = []
    status: Any = None

    @property
    def start(self) -> float:
        return int(self.start_time_unix_nano) / 1e9

    @property
    def end(self) -> float:
        return int(self.end_time_unix_nano) / 1e9

    def get(self, key: str) -> Value:
        return next((a.value for a in self.attributes if a.key == key), Value())

    def text(self, key: str) -> str:
        return self.get(key).string_value or ""

    def tokens(self, key: str) -> int:
        value = self.get(key).int_value
        text = str(value if value is not None else "")
        return min(int(text), 1_000_000_000) if text.isdecimal() and len(text) < 20 else 0

    @property
    def operation(self) -> str:
        return self.text("gen_ai.operation.name") or self.name.partition(" ")[0]


class Scope(Struct, frozen=True, rename="camel"):
    """Spans of one library."""

    spans: list[Span] = []


class Resource(Struct, frozen=True, rename="camel"):
    """Spans of one process."""

    scope_spans: list[Scope] = []


class Export(Struct, frozen=True, rename="camel"):
    """One exported request."""

    resource_spans: list[Resource]


def read(source: Source) -> Iterator[Session]:
    open_: Gather[Span] = Gather()
    for number, export in source.values(Export):
        conversation_of: dict[str, str] = {}
        spans = [span for resource in export.resource_spans for scope in resource.scope_spans for span in scope.spans]
        for span in spans:
            conversation = span.text("gen_ai.conversation.id")
            if conversation:
                conversation_of.setdefault(span.trace_id, conversation)
        for span in spans:
            if span.operation not in (*CALLS, "execute_tool", "invoke_agent"):
                continue
            if not 0 <= int(span.start_time_unix_nano) <= int(span.end_time_unix_nano) <= LATEST:
                source.complain(
                    number, "startTimeUnixNano", f"must be before endTimeUnixNano in span {span.span_id[:20]}"
                )
                continue
            if span.operation in CALLS and not span.tokens("gen_ai.usage.input_tokens"):
                source.complain(number, "gen_ai.usage.input_tokens", f"is missing in span {span.span_id[:20]}")
                continue
            name = span.text("gen_ai.conversation.id") or conversation_of.get(span.trace_id) or span.trace_id
            for key, held in open_.add(name, span, 100):
                yield from session(key, held)
    for key, held in open_.rest():
        yield from session(key, held)


def session(name: str, spans: list[Span]) -> Iterator[Session]:
    """The session of some spans; none where no call is among them."""
    own = {span.span_id: span for span in spans}
    inside: dict[str, list[Span]] = {}
    for span in own.values():
        parent = span.parent_span_id
        if parent not in own or parent == span.span_id or not nests(own[parent]):
            parent = ""
        inside.setdefault(parent, []).append(span)
    top = inside.get("", [])
    if len(top) == 1 and top[0].operation == "invoke_agent":
        top = inside.get(top[0].span_id, [])
    steps = steps_of(top, inside, 0)
    if steps and any(span.operation in CALLS for span in spans):
        yield Session(name[:1000], Agent(tuple(steps)), min(span.start for span in spans))


def nests(span: Span) -> bool:
    return span.operation == "invoke_agent"


def steps_of(spans: list[Span], inside: dict[str, list[Span]], depth: int) -> list[Step]:
    """What one agent did: its spans in order, those that overlap side by side."""
    steps: list[Step] = []
    thread, end = Thread(), None
    spans = sorted(spans, key=lambda span: (span.start, span.end))
    i = 0
    while i < len(spans):
        group = [spans[i]]
        kind = spans[i].operation if spans[i].operation not in CALLS else "chat"
        i += 1
        while kind != "chat" and i < len(spans) and spans[i].operation == kind and spans[i].start < group[0].end:
            group.append(spans[i])
            i += 1
        start = group[0].start
        if end is not None and start > end:
            steps.append(Gap(start - end))
        if kind == "chat":
            steps.append(call(group[0], thread))
        elif kind == "execute_tool":
            steps.append(Tools(tuple(tool(span) for span in group)))
        elif depth < 50:
            children = [
                Agent(tuple(inner), (span.text("gen_ai.agent.name") or "")[:1000], max(0.0, span.start - start))
                for span in group
                if (inner := steps_of(inside.get(span.span_id, []), inside, depth + 1))
            ]
            if children:
                steps.append(Start(tuple(children)))
        end = max(end or 0.0, *(span.end for span in group))
    return steps


def call(span: Span, thread: Thread) -> Step:
    input, output = span.tokens("gen_ai.usage.input_tokens"), span.tokens("gen_ai.usage.output_tokens")
    cached = min(span.tokens("gen_ai.usage.cache_read.input_tokens"), input)
    reasoning = min(span.tokens("gen_ai.usage.reasoning.output_tokens"), output)
    return thread.grown(input, output, cached, reasoning=reasoning, cached=cached, seconds=span.end - span.start)


def tool(span: Span) -> Tool:
    return Tool((span.text("gen_ai.tool.name") or "tool")[:1000], span.end - span.start, 0, not span.text("error.type"))
