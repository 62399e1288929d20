"""OpenAI messages as JSONL: one conversation a line, tool calls included. tau-bench's trajectories are read likewise.

A line is `{"messages": […], "tools": […]}`; of tau-bench, `{"traj": […]}`.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from agentload.traces.conversation import agent_of, said
from agentload.traces.graph import Session
from agentload.traces.source import Damaged, Source


class Row(Struct, frozen=True):
    """One conversation."""

    messages: list[Any] | None = None
    traj: list[Any] | None = None
    tools: list[Any] | None = None
    id: str | int | None = None
    session_id: str | int | None = None


def read(source: Source) -> Iterator[Session]:
    for number, row in source.values(Row):
        field = "messages" if row.messages is not None else "traj"
        found = row.messages if row.messages is not None else row.traj
        try:
            if found is None:
                raise Damaged("messages", "is missing")
            messages = [said(message, f"{field}[{i}]") for i, message in enumerate(found)]
            agent = agent_of(messages, field, msgspec.json.encode(row.tools).decode() if row.tools else "")
        except Damaged as damage:
            source.complain(number, damage.field, damage.reason)
            continue
        name = row.session_id if row.session_id is not None else row.id
        yield Session(f"line-{number}" if name is None else str(name)[:1000], agent, shared=True)
