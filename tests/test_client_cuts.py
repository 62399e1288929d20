"""Any way of cutting a stream into network reads gives the same answer."""

import asyncio
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.answer import Answer
from agents.api import APIS
from agents.frame import frame_of, strings, whole_chunk
from agents.http import Connection, Exchange
from agents.sse import Events
from tests.cases import WELL_FORMED
from tests.cases_apis import API_BROKEN, API_WELL_FORMED
from tests.cases_broken import BROKEN
from tests.torture import DONE, ROLE, chunk, event, framed, stream, words

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


def answer_to(api: str, reads: list[bytes]) -> dict[str, Any]:
    """What an answer that comes in those reads amounts to, and whether its connection can be used again."""

    async def receive() -> dict[str, Any]:
        ticks = iter(range(10_000_000))
        open_: set[Connection] = set()
        connection, transport = Connection(lambda: float(next(ticks)), open_.discard), Sink()
        connection.connection_made(transport)
        answer = APIS[api].answer()
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
            "pieces": answer._pieces(),
            "reusable": not open_until_closed and connection.release(),
        }

    return asyncio.run(receive())


@given(st.sampled_from(sorted(SCRIPTS)), st.lists(st.integers(0, 100_000), max_size=25))
@settings(max_examples=300, deadline=None)
def test_an_answer_is_the_same_however_its_bytes_are_cut(name: str, cuts: list[int]) -> None:
    whole = answer_to(CASES[name].api, [SCRIPTS[name]])
    parts = answer_to(CASES[name].api, pieces(SCRIPTS[name], cuts))

    # After a failure nobody waits for the end of the body, so whether it had come is chance.
    if whole["status"] != "ok":
        whole.pop("reusable"), parts.pop("reusable")
    assert parts == whole


said = st.text(max_size=3) | st.sampled_from(
    ["a", " b", "é", "字", "", '"', "\\", "\n", "\0", "\u2028", "\x7f", "\ud83d", "1"]
)
deltas = st.one_of(
    said.map(lambda text: {"content": text}),
    said.map(lambda text: {"role": "assistant", "content": text, "reasoning_content": None}),
    said.map(lambda text: {"content": None, "reasoning_content": text}),
    said.map(lambda text: {"content": text, "reasoning": text}),
    said.map(lambda text: {"refusal": text, "content": None}),
    said.map(lambda text: {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": text}}]}),
)
rare = st.sampled_from(
    [{"finish_reason": "stop"}, {"usage": {"prompt_tokens": 1, "completion_tokens": 2}}, {"created": 2}]
)


@given(
    st.lists(st.tuples(deltas, st.booleans(), st.none() | rare), max_size=8),
    st.lists(st.integers(0, 7), min_size=60, max_size=150),
    st.sampled_from(["chat", "responses"]),
)
@settings(max_examples=200, deadline=None)
def test_an_answer_is_the_same_when_each_event_comes_in_a_read_of_its_own(
    kinds: list[tuple[dict[str, Any], bool, dict[str, Any] | None]], order: list[int], api: str
) -> None:
    """Long streams of few kinds of events: what is known from the one before is not decoded."""
    events = [ROLE, *words("a")] if api == "chat" else []
    for i in order:
        delta, plain, more = kinds[i] if i < len(kinds) else ({"content": f" {i}"}, True, None)
        if api == "chat":
            data = {"created": 1, "choices": [{"index": 0, "delta": delta} | (more or {})]} | (more or {})
        else:
            data = {"type": "response.output_text.delta", "item_id": "m", "delta": delta.get("content")} | (more or {})
        events.append(b"data: %b\n\n" % json.dumps(data, ensure_ascii=not plain).encode("utf-8", "surrogatepass"))
    reads = [step for step in stream(*events, DONE) if isinstance(step, bytes)]

    assert answer_to(api, reads) == answer_to(api, [b"".join(reads)])


@pytest.mark.parametrize("word", [chunk({"content": "a"}), {"choices": [{"text": "a"}]}])
def test_an_error_in_a_long_stream_is_seen_at_once_even_if_it_ends_like_a_word(word: dict[str, Any]) -> None:
    """The server then says nothing more, and hangs up no more than we do."""

    async def receive(many: int) -> tuple[bool, str, int]:
        exchange = Exchange(Answer(), True, asyncio.get_running_loop().create_future())
        connection = Connection(itertools.count(0.0).__next__, set[Connection]().discard)
        connection.connection_made(Sink())
        connection.start(exchange, [b""])
        for read in (stream()[0], *framed(*[event(word)] * many, event({"error": [{"text": "no"}]}))):
            assert isinstance(read, bytes)
            connection.data_received(read)
            for _ in range(2):
                await asyncio.sleep(0)
        return exchange.done.done(), exchange.answer.status, exchange.answer.chunks

    for many in (1, 20, 100):
        assert asyncio.run(receive(many)) == (True, "error_event", many)


def test_only_a_read_that_is_one_whole_chunk_is_known_without_decoding() -> None:
    read, other = (framed(event(chunk({"content": text})))[0] for text in ("a", "bc"))
    frame = frame_of(read, Answer)
    assert frame is not None
    size, _, rest = other.partition(b"\r\n")

    assert frame.texts([read, other]) == ["a", "bc"]
    lines = (b"%x" % (int(size, 16) + 2), b"0%b;x" % size, b"", b"0" * 9 + size, size + b"_0", b" " + size)
    for wrong in (*(b"%b\r\n%b" % (line, rest) for line in lines), other[:-1], b"x" + other):
        assert frame.texts([read, wrong, other]) == ["a"]
        assert whole_chunk(wrong) is None


@pytest.mark.parametrize(
    "said", ["plain", "two\nlines", 'a "quoted" word', "back\\slash", "wörd", "\u2028", "\U0001f600"]
)
@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("capitals", [True, False])
def test_any_string_between_the_same_bytes_is_known_without_decoding(
    said: str, ascii_only: bool, capitals: bool
) -> None:
    """Escapes and quotes of JSON among plain words, and a server that writes the sizes of its chunks in capitals."""

    def read(text: str) -> bytes:
        data = json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}, ensure_ascii=ascii_only)
        line, _, rest = framed(b"data: %b\n\n" % data.encode())[0].partition(b"\r\n")
        return b"%b\r\n%b" % (line.upper() if capitals else line, rest)

    texts = ["so", said, " it", "x" * 200, " goes"]  # of two and three digits
    frame = frame_of(read("a"), Answer)
    assert frame is not None

    assert frame.texts([*map(read, texts), *framed(DONE)]) == texts
    assert frame.texts([*map(read, texts), read(""), read("on")]) == texts
    assert frame.texts(framed(DONE)) == []


def test_strings_decoded_at_once_are_what_each_is_by_itself() -> None:
    """Quotes, and backslashes that would take the next quote for their own, in all orders."""

    def one_by_one(texts: tuple[bytes, ...]) -> Iterator[str]:
        for text in texts:
            try:
                said = json.loads(b'"%b"' % text)
            except ValueError:
                return
            if not said:
                return
            yield said

    kinds = (b"a", b"a\\", b",", b"\\\\", b"\\n", b"", b'\\"', b'",', b"]", b"\xff", b"\x01")
    for texts in itertools.chain.from_iterable(itertools.product(kinds, repeat=n) for n in range(1, 5)):
        assert strings(list(texts)) == list(one_by_one(texts)), texts
