"""Qwen-Bailian usage traces: one request a line, prompts as blocks of 16 tokens, turns linked by their parents.

Source: alibaba-edu/qwen-bailian-usagetraces-anon, README. A chat whose parent was seen goes into its parent's session;
`timestamp` is when a request came, and how long it took is not recorded, so gaps are from start to start.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta, Struct

from agentload.traces.graph import Agent, Gap, Key, Session, Step, Thread, Tokens, blocks
from agentload.traces.source import Gather, Source

BLOCK = 16
REMEMBERED = 1_000_000
"""Chats whose session is remembered, the newest."""


class Row(Struct, frozen=True, gc=False):
    """One line."""

    chat_id: int
    timestamp: Annotated[float, Meta(ge=0, le=1e12)]
    input_length: Tokens
    output_length: Tokens
    parent_chat_id: int = -1
    type: str = ""
    turn: int = 1
    hash_ids: list[Key] = []


def read(source: Source) -> Iterator[Session]:
    open_: Gather[Row] = Gather()
    session_of: OrderedDict[int, int] = OrderedDict()
    for _, row in source.values(Row):
        session = session_of.get(row.parent_chat_id, row.chat_id) if row.parent_chat_id >= 0 else row.chat_id
        session_of[row.chat_id] = session
        if len(session_of) > REMEMBERED:
            session_of.popitem(last=False)
        for name, rows in open_.add(str(session), row, 10 + len(row.hash_ids)):
            yield together(name, rows)
    for name, rows in open_.rest():
        yield together(name, rows)


def together(name: str, rows: list[Row]) -> Session:
    rows = sorted(rows, key=lambda row: row.timestamp)
    steps: list[Step] = []
    thread, last = Thread(), rows[0].timestamp
    for row in rows:
        if row.timestamp > last:
            steps.append(Gap(row.timestamp - last, person=row.type != "coder"))
        steps.append(thread.call(blocks(row.hash_ids, BLOCK, row.input_length), row.input_length, row.output_length))
        last = row.timestamp
    return Session(name, Agent(tuple(steps), rows[0].type[:100]), rows[0].timestamp, shared=True)
