"""TraceLab round traces: one model call a line, with its tools, its events and how much of its prompt was cached.

Source: uw-syfi/TraceLab, round_trace.jsonl. `prefix_tokens` is taken for what the prompt shares with the one before it:
it is what the provider's cache held, so a shared start that had been evicted counts as new. A call lasts from its last
input event to its last event of output; tools that were emitted in it run side by side.
"""

import datetime
from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta, Struct

from agentload.traces.graph import Agent, Gap, Session, Step, Text, Thread, Tokens, Tool, Tools
from agentload.traces.source import Gather, Source

Milliseconds = Annotated[float, Meta(ge=0, le=1e13)]
INPUTS = ("user_message", "tool_result")


class Event(Struct, frozen=True, gc=False):
    """Something that was seen to come."""

    event_type: str
    timestamp: datetime.datetime | None = None


class Used(Struct, frozen=True, gc=False):
    """A tool call."""

    tool_name: Text = "tool"
    tool_wall_latency_ms: Milliseconds | None = None
    tool_internal_latency_ms: Milliseconds | None = None
    is_error: bool | None = False
    result_chars: Tokens | None = None


class Round(Struct, frozen=True, gc=False):
    """One line."""

    session_id: Text
    round_index: int
    input_tokens_total: Tokens
    output_tokens: Tokens
    prefix_tokens: Tokens = 0
    reasoning_output_tokens: Tokens | None = None
    timing_events: list[Event] = []
    tools: list[Used] = []
    first_input_event_type: str | None = None


def read(source: Source) -> Iterator[Session]:
    open_: Gather[Round] = Gather()
    for _, row in source.values(Round):
        for name, rounds in open_.add(row.session_id, row, 20 + 10 * len(row.timing_events)):
            yield together(name, rounds)
    for name, rounds in open_.rest():
        yield together(name, rounds)


def together(name: str, rounds: list[Round]) -> Session:
    rounds = sorted(rounds, key=lambda row: row.round_index)
    steps: list[Step] = []
    thread = Thread()
    last: float | None = None  # when the round before, its tools included, had ended
    start: float | None = None
    for row in rounds:
        asked, answered = span(row)
        if asked is not None:
            start = asked if start is None else start
            if last is not None and asked > last:
                steps.append(Gap(asked - last, person=row.first_input_event_type == "user_message"))
        took = None if asked is None or answered is None else max(0.0, answered - asked)
        reasoning = min(row.reasoning_output_tokens or 0, row.output_tokens)
        keep = min(row.prefix_tokens, row.input_tokens_total)
        steps.append(
            thread.grown(
                row.input_tokens_total, row.output_tokens, keep, reasoning=reasoning, cached=keep, seconds=took
            )
        )
        tools = tuple(tool(used) for used in row.tools)
        if tools:
            steps.append(Tools(tools))
        if answered is not None:
            last = answered + max((used.seconds for used in tools), default=0.0)
    return Session(name, Agent(tuple(steps), name.partition(":")[0][:100]), start)


def tool(used: Used) -> Tool:
    took = used.tool_wall_latency_ms if used.tool_wall_latency_ms is not None else used.tool_internal_latency_ms
    return Tool(used.tool_name, (took or 0.0) / 1000, -(-(used.result_chars or 0) // 4), not used.is_error)


def span(row: Round) -> tuple[float | None, float | None]:
    """When the call was asked for, and when it was answered, in seconds since 1970."""
    inputs = [e.timestamp.timestamp() for e in row.timing_events if e.timestamp and e.event_type in INPUTS]
    outputs = [e.timestamp.timestamp() for e in row.timing_events if e.timestamp and e.event_type not in INPUTS]
    before = [at for at in inputs if not outputs or at <= max(outputs)]
    return (max(before) if before else None), (max(outputs) if outputs else None)
