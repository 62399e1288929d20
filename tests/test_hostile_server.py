"""A server that means harm: what it can make us read is bounded, and nothing that it says goes further as it is."""

import asyncio
import gzip
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvloop
from msgspec import structs

from agentload.session import Clock, execute
from agents.archetypes import ARCHETYPES
from agents.chain import Reply, ToolCall
from agents.endpoint import Endpoint, Timeouts
from agents.kind import PythonTool
from agents.limits import (
    MAX_BODY,
    MAX_ERROR,
    MAX_ERROR_BODY,
    MAX_EVENT_BYTES,
    MAX_HEADERS,
    MAX_NAME,
    MAX_REASON,
    MAX_RETRY_AFTER,
    MAX_TOOL_CALLS,
)
from agents.tools import Toolbox
from collectors.records import Call, Tool
from collectors.store import to_batch
from tests.client_made import CLIENTS, call
from tests.torture import JSON, ROLE, SSE, STALL, Torture, chunk, completion, event, framed, head, sized, stream, tool

KIB, MIB = 1 << 10, 1 << 20
TURN = 32 * 256_000
"""Bytes that come at most before anything else has a turn: uvloop reads 256,000 at a time, libuv 32 times in a row."""
BRIEF = Timeouts(connect=5, first_token=0.4, between_tokens=0.4, call=0.8)
LONG = Timeouts(connect=5, first_token=60, between_tokens=60, call=60)


class Endless:
    """A script that begins somehow and then says the same until nobody listens."""

    def __init__(self, *first: bytes, again: bytes, pause: float = 0.0) -> None:
        self.first, self.again, self.pause = first, again, pause

    def __iter__(self) -> Iterator[Any]:
        yield from self.first
        while True:
            yield self.again
            if self.pause:
                yield self.pause


def framed_once(data: bytes) -> bytes:
    return framed(data)[0]


class ToolCalls:
    """A stream of a million tool calls, a thousand in each event."""

    def __iter__(self) -> Iterator[Any]:
        yield head()
        for i in range(1_000):
            calls = [tool(1_000 * i + j, f"c{i}-{j}", "t") for j in range(1_000)]
            yield framed_once(event(chunk({"tool_calls": calls})))


class Hostile(NamedTuple):
    """A script, the status it must end as, and how many bytes may have come to a client when it sees that."""

    script: Any
    status: str
    most: int | None = None
    stream: bool = True
    limits: Timeouts = LONG
    says: str = ""  # in the error, of the wire client
    sdk: str = ""  # another status with the SDK, which counts otherwise


NASTY = "\x1b]0;owned\x07\x1b[2J\r\n<script>owned()</script>\u202e\ud800" + "A" * 10_000
"""Terminal escapes, line breaks, markup, turned-around text, half of a surrogate pair, and a lot of it."""
BIG = "x" * (64 * KIB)
DROP = {"pause": 0.01}
BOMB = gzip.compress(b"\0" * (80 * MIB), compresslevel=1)
MANY = json.loads(completion({"tool_calls": [tool(None, None, "t")] * (MAX_TOOL_CALLS + 1)}))

HOSTILE = {
    "endless_tokens": Hostile(
        Endless(head(), again=framed_once(event(chunk({"content": BIG})))), "bad_reply", MAX_BODY, says="more than"
    ),
    "endless_event": Hostile(
        Endless(head(), again=framed_once(b"data: " + BIG.encode() + b"\n")), "bad_reply", MAX_BODY, says="an event of"
    ),
    "endless_body": Hostile(
        Endless(head("200 OK", JSON), again=framed_once(BIG.encode())), "bad_reply", MAX_BODY, stream=False
    ),
    "endless_header": Hostile(
        Endless(b"HTTP/1.1 200 OK\r\nX: ", again=BIG.encode()), "bad_reply", MAX_HEADERS, says="headers of more"
    ),
    "endless_headers": Hostile(
        Endless(b"HTTP/1.1 200 OK\r\n", again=b"X: y\r\n" * 4_000), "bad_reply", MAX_HEADERS, says="headers of more"
    ),
    "endless_status_line": Hostile(Endless(b"HTTP/1.1 200 ", again=BIG.encode()), "bad_reply", MAX_HEADERS),
    "endless_continue": Hostile(
        Endless(again=b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000), "bad_reply", limits=BRIEF, sdk="timeout_first"
    ),
    "endless_trailers": Hostile(
        Endless(head("200 OK", JSON) + framed_once(b"{}") + b"0\r\n", again=b"X: y\r\n" * 4_000),
        "bad_reply",
        MAX_HEADERS,
        stream=False,
        says="without any content",
    ),
    "endless_chunk_extension": Hostile(
        Endless(head() + b"5;", again=BIG.encode()), "bad_reply", MAX_HEADERS, says="without any content"
    ),
    "endless_comments": Hostile(
        Endless(head(), again=framed_once(b": wait\n\n"), **DROP), "timeout_first", limits=BRIEF
    ),
    "one_byte_at_a_time": Hostile(
        [bytes([byte]) if i % 2 else 0.01 for byte in head() for i in (0, 1)], "timeout_first", limits=BRIEF
    ),
    "tokens_forever": Hostile(
        Endless(head(), again=framed_once(event(chunk({"content": "x"}))), **DROP), "timeout_call", limits=BRIEF
    ),
    "a_million_tool_calls": Hostile(ToolCalls(), "bad_reply", 2 * MIB, says="1000 tool calls"),
    "too_many_tool_calls_at_once": Hostile(
        [sized("200 OK", JSON, json.dumps(MANY).encode())], "bad_reply", stream=False, says="1000 tool calls"
    ),
    "too_many_tool_calls_of_one_number": Hostile(
        Endless(head(), again=framed_once(event(chunk({"tool_calls": [tool(0, "a", "t"), tool(0, "b", "t")]})))),
        "bad_reply",
        MIB,
    ),
    "tool_arguments_of_a_hundred_megabytes": Hostile(
        [head(), *framed(*[event(chunk({"tool_calls": [tool(0, arguments="y" * 16 * KIB)]}))] * 6_400), STALL],
        "bad_reply",
        MAX_BODY,
    ),
    "gzip_bomb": Hostile([sized("200 OK", JSON, BOMB, "Content-Encoding: gzip")], "bad_reply", stream=False),
    "gzip_bomb_streamed": Hostile([sized("200 OK", SSE, BOMB, "Content-Encoding: gzip")], "bad_reply"),
    "gzip_bomb_in_an_error": Hostile([sized("500 Oops", JSON, BOMB, "Content-Encoding: gzip")], "http_500"),
    "deep_json_in_an_event": Hostile(stream(ROLE, event(b'{"choices":' + b"[" * MIB)), "bad_reply"),
    "deep_json_in_an_error": Hostile([sized("500 Oops", JSON, b'{"error":' * 60_000)], "http_500"),
    "deep_json_in_an_error_event": Hostile(stream(ROLE, event(b'{"error":' * MIB)), "bad_reply"),
    "a_number_of_a_million_digits": Hostile(
        stream(ROLE, event(b'{"choices":[],"usage":{"prompt_tokens":' + b"9" * MIB + b"}}")), "bad_reply"
    ),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Torture]:
    said = {name: case.script for name, case in HOSTILE.items()}
    with Torture(said | {name: script for name, (script, _) in STRINGS.items()} | USAGES) as torture:
        yield torture


class Counting(uvloop.Loop):
    """A loop that counts the bytes it hands over. What lies in the kernel's buffers is not among them: how much that
    may be is the machine's affair (`net.ipv4.tcp_rmem`, `tcp_wmem`), and the server can only say what it got rid of."""

    taken = 0

    async def create_connection(self, protocol_factory: Callable[[], Any], *args: Any, **kwargs: Any) -> Any:
        def counted() -> Any:
            protocol = protocol_factory()
            received = type(protocol).data_received

            def data_received(protocol: Any, data: bytes) -> None:
                self.taken += len(data)
                received(protocol, data)

            counting = {"data_received": data_received, "__slots__": ()}
            protocol.__class__ = type("Counted", (type(protocol),), counting)
            return protocol

        return await super().create_connection(counted, *args, **kwargs)


def ask(
    client: str, server: Torture, name: str, streamed: bool = True, limits: Timeouts = LONG
) -> tuple[Call, Reply, int]:
    """A call's record, its reply, and the bytes that came to it."""
    endpoint = Endpoint(url=server.url(name), model="m", stream=streamed, timeouts=limits)
    loop = Counting()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        (record,), reply = runner.run(call(client, endpoint))
    return record, reply, loop.taken


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("client", CLIENTS)
def test_what_a_hostile_server_can_do_to_a_call_is_bounded(client: str, name: str, server: Torture) -> None:
    case, before = HOSTILE[name], time.process_time()

    record, _, taken = ask(client, server, name, case.stream, case.limits)

    assert record.status == (case.sdk if client == "sdk" and case.sdk else case.status), record.error
    assert len(record.error) <= MAX_ERROR and record.error.isprintable()
    if client == "wire":
        assert case.says in record.error
    if case.most is not None:
        # What follows the limit: the turn in which it is passed, that until the call's task hangs up, and framing.
        assert 0 < taken < case.most + 3 * TURN
    assert time.process_time() - before < 20  # the server's own work among it; what is quadratic takes minutes


def test_the_document_of_the_limits_says_what_the_code_does() -> None:
    text = (Path(__file__).parent.parent / "docs" / "limits.md").read_text()
    said = f"{MAX_HEADERS >> 10} KiB | {MAX_BODY >> 20} MiB | {MAX_EVENT_BYTES >> 20} MiB | {MAX_TOOL_CALLS:,}"
    names = f" {MAX_ERROR}, {MAX_REASON}, {MAX_NAME} characters"

    assert all(figure in text for figure in [*said.split(" | "), names])
    assert MAX_RETRY_AFTER == 24 * 3600 and MAX_ERROR_BODY == 64 * KIB


# What it says


def nasty(said: dict[str, Any]) -> bytes:
    """An event in which every character that is not ASCII is escaped, halves of pairs among them."""
    return event(json.dumps(said).encode())


STRINGS: dict[str, tuple[Any, bool]] = {
    "finish_reason": (stream(ROLE, chunk({"content": "x"}), nasty(chunk({}, "stop" + NASTY))), True),
    "tool": (
        stream(
            ROLE,
            nasty(chunk({"tool_calls": [tool(0, "id" + NASTY, "t" + NASTY, '{"a": "' + NASTY)]})),
            chunk({}, "tool_calls"),
        ),
        True,
    ),
    "error_event": (stream(ROLE, nasty({"error": {"message": NASTY}})), True),
    "error": ([sized("500 Oops", JSON, json.dumps({"error": {"message": NASTY}}).encode())], True),
    "error_as_text": ([sized("503 \x1b[31mno", "text/plain", NASTY.encode("utf-8", "replace"))], True),
    "content_type": ([sized("200 OK", "text/\x1b[2Jx<script>", b"{}")], False),
    "encoding": ([sized("200 OK", JSON, b"{}", "Content-Encoding: \x1b[2Jx")], False),
    "text": ([sized("200 OK", JSON, completion({"content": NASTY, "reasoning": NASTY}, "stop"))], False),
}


@pytest.mark.parametrize("name", STRINGS)
@pytest.mark.parametrize("client", CLIENTS)
def test_strings_of_a_server_are_harmless_in_the_records_and_can_be_written(
    client: str, name: str, server: Torture
) -> None:
    record, reply, _ = ask(client, server, name, STRINGS[name][1])

    assert record.error.isprintable() and record.finish_reason.isprintable()
    assert len(record.error) <= MAX_ERROR and len(record.finish_reason) <= MAX_REASON
    for asked in reply.tool_calls:
        assert asked.name.isprintable() and len(asked.name) <= MAX_NAME
    to_batch([record], Call)
    for text in (reply.text, reply.reasoning, *(f"{c.id}{c.arguments}" for c in reply.tool_calls)):
        text.encode()  # it goes back to the server as history


NO_USAGE = [
    "1.5",
    "-1",
    "NaN",
    '{"a": [1e999]}',
    "Infinity",
    "-Infinity",
    "1e400",
    "9" * 30,
    "9" * 5_000,
    '"x"',
    '"-3"',
    '"²"',
    "[]",
    "{}",
]
USAGES = {
    f"usage{i}": stream(
        ROLE,
        chunk({"content": "Hello"}, "stop"),
        event(b'{"choices":[],"usage":{"prompt_tokens":%b,"completion_tokens":4}}' % number.encode()),
    )
    for i, number in enumerate(NO_USAGE)
}


@pytest.mark.parametrize("client", CLIENTS)
def test_a_usage_that_makes_no_sense_is_an_estimate_or_a_bad_reply_and_never_a_number(
    client: str, server: Torture
) -> None:
    for name, number in zip(USAGES, NO_USAGE, strict=True):
        record, _, _ = ask(client, server, name)

        assert (record.status, record.usage) in (("ok", "estimated"), ("bad_reply", "estimated")), number
        assert 0 < record.input_tokens < 100 and 0 < record.output_tokens < 100, number


@pytest.mark.parametrize("value", ["1e308", "inf", "nan", "-5", "9" * 400, "Wed, 99 Nov 2999 99:00:00 GMT", "\x1b[2J"])
def test_a_server_cannot_make_us_wait_longer_than_a_day(value: str) -> None:
    from agents.trouble import retry_after

    wait = retry_after({"retry-after": value})

    assert wait is None or 0 <= wait <= MAX_RETRY_AFTER


# What it asks for


ADDING = structs.replace(ARCHETYPES["fixed"], python_tools=[PythonTool("tests.test_hostile_server:add")])


def add(a: int, b: int = 1) -> object:
    """Add."""
    if a == 1:
        raise RuntimeError(NASTY)
    if a == 2:
        circle: list[Any] = []
        circle.append(circle)
        return circle
    return NASTY if a == 3 else a + b


WRONG = [
    "",
    "[]",
    "5",
    "null",
    '"a"',
    "{",
    "[" * 100_000,
    '{"a":' * 100_000,
    NASTY,
    "{}",
    '{"b": 1}',
    "NaN",
    '{"a": [1e999]}',
    "9" * 6_000,
]
UNFIT = ['{"a": 1}', '{"a": 2}', '{"a": 3}', '{"a": "x"}', '{"a": null}', '{"a": 1, "c": 2}',
         '{"a": 1, "__class__": 1}', '{"a": 1, "self": 1}']  # fmt: skip


@pytest.mark.parametrize("arguments", WRONG + UNFIT)
def test_arguments_that_do_not_fit_are_answered_and_never_break_the_run(arguments: str) -> None:
    box = Toolbox(ADDING)

    asked = box.resolve(ToolCall("add", arguments, "c1"), None)  # type: ignore[arg-type]  # nothing is drawn

    if arguments in WRONG:
        assert (asked.kind, asked.ok, asked.run) == ("malformed", False, None)
        assert asked.text is not None and asked.text.startswith("Error: ") and len(asked.text) < 1_000
        return
    result, _ = asyncio.run(execute(asked, Clock()))
    assert result.text is not None
    result.text.encode()
    assert result.ok == (arguments == '{"a": 3}')


@pytest.mark.parametrize("name", ["__init__", "python_tools", "os.system", "tests.test_hostile_server:add", "Add", ""])
def test_only_tools_that_the_user_named_can_be_called(name: str) -> None:
    box = Toolbox(ADDING)

    asked = box.resolve(ToolCall(name, '{"a": 1}'), None)  # type: ignore[arg-type]  # nothing is drawn

    assert (asked.kind, asked.run) == ("unknown", None)
    to_batch([Tool(0, "", "", 0, asked.name, 0.0, 0.0, False, 0, asked.kind, asked.text or "")], Tool)
