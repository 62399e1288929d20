"""Any way of cutting a stream into network reads gives the same answer."""

import asyncio
import itertools
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agents.api import APIS
from agents.http import Connection, Exchange
from agents.sse import Events
from tests.cases import WELL_FORMED
from tests.cases_apis import API_BROKEN, API_WELL_FORMED
from tests.cases_broken import BROKEN

CASES = WELL_FORMED | BROKEN | API_WELL_FORMED | API_BROKEN
WHOLE = {
    name: b"".join(step for step in case.script if isinstance(step, bytes))
    for name, case in CASES.items()
    if case.stream and name not in ("endless_error", "deep_json")
}
SCRIPTS = {name: script for name, script in WHOLE.items() if script}

lines = st.sampled_from(
    [
        b"data: a",
        b"data:b",
        b"data",
        b"data: ",
        b'data: {"x":"\xc3\xa9"}',
        b": c",
        b"event: e",
        b"id: 1",
        b"x",
        b"",
        b"",
    ]
)
streams = st.lists(st.tuples(lines, st.sampled_from([b"\n", b"\n", b"\r\n", b"\r"])), max_size=30).map(
    lambda pairs: b"".join(line + end for line, end in pairs)
)
events_of_one_line = st.lists(st.sampled_from([b"data: a\n\n", b"data: bc\n\n", b": c\n\n", b"data:d\n\n"])).map(
    b"".join
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """The data cut at those places (taken modulo its length)."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[i:j] for i, j in itertools.pairwise(places)]


def split(parts: list[bytes]) -> list[bytes]:
    events = Events()
    return [data for part in parts for data in events.feed(part)]


def by_the_standard(data: bytes) -> list[bytes]:
    """The same by the text of the standard, with the whole stream at hand."""
    found: list[bytes] = []
    current: list[bytes] = []
    for line in data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")[:-1]:
        field, _, value = line.partition(b":")
        if not line and current:
            found.append(b"\n".join(current))
            current = []
        elif line and field == b"data":
            current.append(value.removeprefix(b" "))
    return found


@given(streams | events_of_one_line, st.lists(st.integers(0, 10_000), max_size=20))
@settings(max_examples=400, deadline=None)
def test_events_are_the_same_however_the_stream_is_cut(data: bytes, cuts: list[int]) -> None:
    assert split(pieces(data, cuts)) == by_the_standard(data)


class Sink(asyncio.Transport):
    """A transport that takes what is written, and says when it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True


def answer_to(name: str, reads: list[bytes]) -> dict[str, Any]:
    """What an answer that comes in those reads amounts to, and whether its connection can be used again."""

    async def receive() -> dict[str, Any]:
        ticks = iter(range(10_000_000))
        open_: set[Connection] = set()
        connection, transport = Connection(lambda: float(next(ticks)), open_.discard), Sink()
        connection.connection_made(transport)
        answer = APIS[CASES[name].api].answer()
        exchange = Exchange(answer, True, asyncio.get_running_loop().create_future())
        connection.start(exchange, [b""])
        for read in reads:
            if not transport.closed:
                connection.data_received(read)
        open_until_closed = not exchange.done.done()
        if open_until_closed:
            connection.eof_received()
        return {
            "status": answer.outcome(),
            "error": answer.error,
            "finish": answer.finish_reason,
            "texts": answer.texts(),
            "tokens": answer.tokens(lambda: 1),
            "tools": list(answer._tools.values()),
            "seen": answer.first is not None,
            "reusable": not open_until_closed and connection.release(),
        }

    return asyncio.run(receive())


@given(st.sampled_from(sorted(SCRIPTS)), st.lists(st.integers(0, 100_000), max_size=25))
@settings(max_examples=300, deadline=None)
def test_an_answer_is_the_same_however_its_bytes_are_cut(name: str, cuts: list[int]) -> None:
    whole = answer_to(name, [SCRIPTS[name]])
    parts = answer_to(name, pieces(SCRIPTS[name], cuts))

    # After a failure nobody waits for the end of the body, so whether it had come is chance.
    if whole["status"] != "ok":
        whole.pop("reusable"), parts.pop("reusable")
    assert parts == whole
