"""Mooncake traces, and AIPerf's extensions of them: one request a line, prompts as blocks of 512 tokens.

Without a `session_id` each line is a session of one call. With one (AIPerf), lines of a session follow each other: each
adds `input_length` tokens, of which `hash_ids` are the blocks, to the prompt and the reply before it.
Source: kvcache-ai/Mooncake FAST25-release; ai-dynamo/aiperf docs (mooncake_trace).
"""

from collections.abc import Iterator
from typing import Annotated, Any

from msgspec import Meta, Struct

from agentload.traces.graph import Agent, Gap, Key, Piece, Session, Step, Thread, Tokens, blocks, identity
from agentload.traces.source import Gather, Source, estimate

BLOCK = 512
Milliseconds = Annotated[float, Meta(ge=-1e15, le=1e15)]


class Row(Struct, frozen=True, gc=False):
    """One line."""

    output_length: Tokens | None = None
    input_length: Tokens | None = None
    timestamp: Milliseconds | None = None
    hash_ids: list[Key] = []
    session_id: str | int | None = None
    delay: Annotated[float, Meta(ge=0, le=1e13)] | None = None
    messages: Any = None
    text_input: str | None = None


def read(source: Source) -> Iterator[Session]:
    open_: Gather[Row] = Gather()
    for number, row in source.values(Row):
        if row.output_length is None:
            source.complain(number, "output_length", "is missing")
        elif row.input_length is None and row.messages is None and row.text_input is None:
            source.complain(number, "input_length", "is missing, and so are messages and text_input")
        elif row.session_id is None:
            yield alone(number, row)
        else:
            for name, rows in open_.add(str(row.session_id), row, 10 + len(row.hash_ids)):
                yield together(name, rows)
    for name, rows in open_.rest():
        yield together(name, rows)


def size(row: Row) -> int:
    """Input tokens: as stated, or estimated from the text."""
    if row.input_length is not None:
        return row.input_length
    if row.text_input is not None:
        return estimate(row.text_input)
    texts = row.messages if isinstance(row.messages, list) else []
    return sum(estimate(m.get("content")) + 4 for m in texts if isinstance(m, dict))


def alone(number: int, row: Row) -> Session:
    call = Thread().call(blocks(row.hash_ids, BLOCK, size(row)), size(row), row.output_length or 0)
    start = None if row.timestamp is None else row.timestamp / 1000
    return Session(f"line-{number}", Agent((call,)), start, shared=True)


def together(name: str, rows: list[Row]) -> Session:
    """The turns of a session; the reply is in the history, so the next prompt is longer by it, too."""
    steps: list[Step] = []
    thread, pieces, last = Thread(), list[Piece](), rows[0].timestamp
    for turn, row in enumerate(rows):
        if turn:
            since = 0.0 if row.timestamp is None or last is None else max(0.0, row.timestamp - last)
            gap = since if row.delay is None else row.delay
            if gap:
                steps.append(Gap(min(gap / 1000, 1e10), person=True))
        added, output = size(row), row.output_length or 0
        pieces = pieces + blocks(row.hash_ids, BLOCK, added)
        rest = added - min(added, BLOCK * len(row.hash_ids))
        if rest:
            pieces.append((identity(name, turn, "text"), rest))
        steps.append(thread.call(pieces, sum(tokens for _, tokens in pieces), output))
        if output:
            pieces = [*pieces, (identity(name, turn, "reply"), output)]
        last = row.timestamp if row.timestamp is not None else last
    start = rows[0].timestamp
    return Session(name[:1000], Agent(tuple(steps)), None if start is None else start / 1000, shared=True)
