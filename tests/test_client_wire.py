"""The clients at the edge of the network: what they ask for, and how connections live and die."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import uvloop

from agentload.null import null_server
from agents.chain import Chat, Context, Message, ToolSchema
from agents.endpoint import Endpoint, Features, Place
from agents.request import Request, join, needs_sdk
from agents.text import Encoder
from agents.wire import Wire
from collectors.records import Call
from tests.cases import HELLO_SCRIPT
from tests.cases_broken import TWO
from tests.client_made import CLIENTS, call, chat, place
from tests.torture import CLOSE, RESET, STALL, Torture, head, sized, stream

MEGABYTE = b"x" * 1024 * 1024
HELLO_BYTES = b"".join(step for step in HELLO_SCRIPT if isinstance(step, bytes))
FINISHED = HELLO_BYTES.index(b"\n\n", HELLO_BYTES.index(b'"stop"')) + 2
CUTS = sorted({*range(0, len(HELLO_BYTES), 97), FINISHED - 1, FINISHED, len(HELLO_BYTES)})
"""Bytes of an answer after which its connection is reset."""

both = pytest.mark.parametrize("client", CLIENTS)


@pytest.fixture(scope="module")
def server() -> Iterator[Torture]:
    huge = [head("200 OK", "application/json", f"Content-Length: {100 * len(MEGABYTE)}"), *[MEGABYTE] * 100]
    scripts = {
        "hello": HELLO_SCRIPT,
        "closing": [*HELLO_SCRIPT, CLOSE],
        "dying*": [HELLO_SCRIPT, [CLOSE], HELLO_SCRIPT],
        "dying_by_reset*": [HELLO_SCRIPT, [RESET], HELLO_SCRIPT],
        "dying_twice*": [HELLO_SCRIPT, [CLOSE], [CLOSE]],
        "dying_late*": [HELLO_SCRIPT, [head(), CLOSE], HELLO_SCRIPT],
        "dead": [CLOSE],
        "refusing": [sized("400 Bad Request", "application/json", b'{"error":"no"}', "Connection: close"), CLOSE],
        "two": stream(*TWO, end=(STALL,)),
        "huge": huge,
        "huge_stream": [head("200 OK", "text/event-stream", "X: y"), b"data: ", *[MEGABYTE] * 100],
    }
    cuts = {f"reset_after_{size}": [HELLO_BYTES[:size], 0.02, RESET] for size in CUTS}
    with Torture(scripts | cuts) as torture:
        yield torture


def endpoint(url: str, **more: Any) -> Endpoint:
    return msgspec.convert({"url": url, "model": "m"} | more, Endpoint)


def run(client: str, url: str, times: int = 1, pause: float = 0.0, **more: Any) -> list[Call]:
    return uvloop.run(call(client, endpoint(url, **more), times, pause))[0]


# What is asked for


@pytest.mark.parametrize("slash", ["", "/"])
def test_both_clients_send_the_same_request(slash: str, server: Torture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "a-secret-key")
    monkeypatch.setenv("OPENAI_ORG_ID", "an-organization")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "a-project")
    seen = []
    for client in CLIENTS:
        more: dict[str, Any] = {
            "headers": {"X-Tenant": "blue"},
            "session_header": "X-Session-ID",
            "api_key_env": "A_KEY",
            "sampling": {"temperature": 0.5, "seed": 1},
        }
        run(client, server.url("hello") + slash, **more, extra_body={"priority": 3})
        seen.append(server.log[-1])

    wire, sdk = seen
    assert wire.path == sdk.path == "/hello/v1/chat/completions"
    assert wire.body == sdk.body
    assert wire.body["messages"] == [{"role": "user", "content": "Say hello to the wörld, please."}]
    own = {"x-stainless", "accept-encoding", "connection"}  # telemetry, and what the SDK says of itself
    sdk_headers = {k: v for k, v in sdk.headers.items() if not k.startswith(tuple(own))}
    assert {k: v for k, v in wire.headers.items() if not k.startswith(tuple(own))} | {
        "content-length": sdk_headers["content-length"]  # the same body, with other blanks
    } == sdk_headers
    assert wire.headers["authorization"] == "Bearer a-secret-key"
    assert wire.headers["openai-organization"] == "an-organization"
    assert wire.headers["x-tenant"] == "blue"
    assert wire.headers["x-request-id"] == "run-3.0.1-0-0"
    assert wire.headers["x-session-id"] == sdk.headers["x-session-id"] == "run-3"


@pytest.mark.parametrize(
    "base",
    ["http://h/v1", "https://h:8443/a/b/", "http://[::1]:1/v1", "http://h", "http://h/ä ö/v1", "https://h:443/v1"],
)
def test_the_url_is_joined_as_the_openai_client_joins_it(base: str) -> None:
    import httpx2
    import openai

    sdk = openai.AsyncOpenAI(base_url=base, api_key="k", http_client=httpx2.AsyncClient())
    wanted = sdk._prepare_url("/chat/completions")

    got = join(base, "chat/completions")

    assert got.path.encode() == wanted.raw_path
    assert (got.host, got.tls) == (wanted.host, wanted.scheme == "https")
    assert got.authority.encode() == wanted.netloc


def test_fields_of_a_request_follow_the_features_of_the_endpoint() -> None:
    tools = (ToolSchema("f"),)
    asked = Chat(Context([], tools), 9, exact=True, call_tools=False)
    plain = Endpoint(url="http://h/v1", model="m", extra_body={"temperature": 2}, sampling={"temperature": 1})
    able = Request(plain, Features(), Encoder(), "r")
    unable = Request(
        plain,
        Features(force_length=False, stream_usage=False, max_tokens_field="max_completion_tokens"),
        Encoder(),
        "r",
    )

    assert able.fields(asked) == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 9,
        "ignore_eos": True,
        "min_tokens": 9,
        "tool_choice": "none",
        "temperature": 2,
    }
    assert unable.fields(asked) == {
        "model": "m",
        "stream": True,
        "max_completion_tokens": 9,
        "tool_choice": "none",
        "temperature": 2,
    }
    assert json.loads(able.head(asked) + b"]}") == able.fields(asked) | {
        "tools": json.loads(Encoder().tools(tools)),
        "messages": [],
    }


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"sampling": {"n": 2}}, "n must be 1"),
        ({"extra_body": {"messages": []}}, "filled in by the client"),
        ({"headers": {"X": "a\r\nb"}}, "cannot be sent"),
        ({"url": "ftp://h/v1"}, "url must be"),
        ({"url": "http://h/v1?x=1"}, "query"),
        ({"url": "http://me:pw@h/v1"}, "must not carry a user name or password"),
        ({"headers": {"Authorization": "Bearer abc"}}, "must not be written down"),
        ({"headers": {"Cookie": "a=b"}}, "must not be written down"),
        ({"headers": {"X-Auth-Token": "abc"}}, "must not be written down"),
        ({"headers": {"Ocp-Apim-Subscription-Key": "abc"}}, "must not be written down"),
        ({"headers": {"X-Auth-Token": "$NOT_SET_ANYWHERE"}}, "NOT_SET_ANYWHERE, which is not set"),
        ({"extra_body": {"api_key": "abc"}}, "must not be written down"),
    ],
)
def test_an_endpoint_that_cannot_be_asked_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Request(endpoint(**{"url": "http://h/v1"} | more), Features(), Encoder(), "run")


def test_a_header_may_come_from_the_environment_and_is_concealed_like_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "a-secret-token")
    own = {"X-Auth-Token": "$A_TOKEN", "Authorization": "Bearer $A_TOKEN", "X-Price": "$5", "Idempotency-Key": "7"}

    made = Request(endpoint("http://h/v1", headers=own), Features(), Encoder(), "run")

    assert {name: made.headers[name] for name in own} == {
        "X-Auth-Token": "a-secret-token", "Authorization": "Bearer a-secret-token", "X-Price": "$5",
        "Idempotency-Key": "7",
    }  # fmt: skip
    assert made.conceal("no a-secret-token here") == "no [secret] here"
    assert made.conceal("cut off: a-secret-t…") == "cut off: "


def test_a_proxy_in_the_environment_needs_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "inside.example")

    assert needs_sdk(endpoint("http://h/v1")) is None
    assert "proxy" in (needs_sdk(endpoint("https://h/v1")) or "")
    assert needs_sdk(endpoint("https://inside.example/v1")) is None


def test_the_past_is_encoded_once_and_arrives_whole(server: Torture) -> None:
    context = Context([Message("user", 7, text="one")])
    asked = []

    async def talk() -> None:
        wire = Wire(endpoint(server.url("hello")), Features(), Encoder(), time.perf_counter, "run")
        for step in range(12):
            reply = await wire.send(Chat(context, 9), place(step), lambda call: None)
            asked.append(list(context.encoded))
            context.append(reply.message())
            context.append(Message("user", 7, text=f"and {step}"))
        await wire.close()

    uvloop.run(talk())

    assert all(a is b for a, b in zip(asked[0], asked[-1], strict=False))
    sent = [m["content"] for m in server.log[-1].body["messages"]]
    assert sent == ["one", *(text for step in range(11) for text in ("Hello wörld", f"and {step}"))]


# Connections


@both
def test_a_connection_is_used_again(client: str, server: Torture) -> None:
    before = server.connections

    records = run(client, server.url("hello"), 5)

    assert [r.status for r in records] == ["ok"] * 5
    assert server.connections - before == 1
    assert [r.connect > 0 for r in records] == [True, False, False, False, False]


@both
def test_a_connection_that_the_server_closed_is_not_used_again(client: str, server: Torture) -> None:
    records = run(client, server.url("closing"), 3, pause=0.05)

    assert [(r.status, r.resent) for r in records] == [("ok", 0)] * 3


@pytest.mark.parametrize("script", ["dying*", "dying_by_reset*"])
@both
def test_a_kept_connection_that_dies_before_a_byte_is_replaced_once(client: str, script: str, server: Torture) -> None:
    server._turns.pop(script, None)

    records = run(client, server.url(script), 2)

    # The SDK without its retries does not ask again: what is a second send for wire is a failed attempt there.
    wanted = [("ok", 0), ("ok", 1)] if client == "wire" else [("ok", 0), ("reset", 0)]
    assert [(r.status, r.resent) for r in records] == wanted


def test_nothing_else_is_sent_again(server: Torture) -> None:
    twice = run("wire", server.url("dying_twice*"), 2)
    late = run("wire", server.url("dying_late*"), 2)
    fresh = run("wire", server.url("dead"))

    assert [(r.status, r.resent) for r in twice] == [("ok", 0), ("reset", 1)]
    assert [(r.status, r.resent) for r in late] == [("ok", 0), ("truncated", 0)]
    assert [(r.status, r.resent) for r in fresh] == [("reset", 0)]


@both
def test_a_connection_that_ends_with_an_error_is_not_used_again(client: str, server: Torture) -> None:
    records = run(client, server.url("refusing"), 3)

    assert [(r.status, r.resent, r.connect > 0) for r in records] == [("http_400", 0, True)] * 3


@both
def test_a_reset_after_any_byte_is_a_record(client: str, server: Torture) -> None:
    async def ask() -> list[list[Call]]:
        calls = (call(client, endpoint(server.url(f"reset_after_{size}"))) for size in CUTS)
        return [records for records, _ in await asyncio.gather(*calls)]

    got = {size: (record.status, record.resent) for size, (record,) in zip(CUTS, uvloop.run(ask()), strict=True)}

    assert got == {size: ("ok" if size >= FINISHED else "reset", 0) for size in CUTS}


@both
def test_a_refused_connection_is_a_record(client: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        (record,) = run(client, f"http://127.0.0.1:{port}/v1")

    assert (record.status, record.first, record.output_tokens) == ("connect_failed", None, 0)
    assert record.error


@both
def test_tls_to_a_server_that_has_none_is_a_failed_connection(client: str, server: Torture) -> None:
    (record,) = run(client, server.url("hello").replace("http", "https", 1))

    assert record.status == "connect_failed"


@both
def test_a_connection_that_nobody_accepts_times_out(client: str) -> None:
    with socket.socket() as full, contextlib.ExitStack() as others:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            other = others.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(full.getsockname())
        port = full.getsockname()[1]
        (record,) = run(client, f"http://127.0.0.1:{port}/v1", timeouts={"connect": 0.2})

    assert record.status == "timeout_connect"
    assert 0.198 <= record.end - record.due < 0.5  # uvloop's timers count whole milliseconds


@both
def test_a_body_of_100_megabytes_is_refused(client: str, server: Torture) -> None:
    (record,) = run(client, server.url("huge"), stream=False)
    assert (record.status, record.output_tokens) == ("bad_reply", 0)
    assert "bytes" in record.error


def test_an_event_without_end_is_refused(server: Torture) -> None:
    (record,) = run("wire", server.url("huge_stream"))

    assert record.status == "bad_reply"
    assert "event" in record.error


@both
def test_a_cancelled_call_is_recorded_and_the_server_sees_the_client_go(client: str, server: Torture) -> None:
    records: list[Call] = []

    async def cancel() -> None:
        door = CLIENTS[client](endpoint(server.url("two")), Features(), Encoder(), time.perf_counter, "run")
        task = asyncio.create_task(door.send(chat(), place(), records.append))
        async with asyncio.timeout(5):
            while not (server.log and server.log[-1].client == client and len(server.log[-1].writes) == 4):  # noqa: ASYNC110 another thread's
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.1)
        await door.close()

    uvloop.run(cancel())

    (record,) = records
    assert record.status == "cancelled"
    assert record.first is not None
    assert (record.output_tokens, record.usage) == (2, "estimated")
    (gone,) = server.log[-1].gone
    assert 0 <= gone - record.end < 0.1


def test_a_call_cancelled_while_it_connects_is_recorded(server: Torture) -> None:
    records: list[Call] = []

    async def cancel() -> None:
        wire = Wire(endpoint(server.url("hello")), Features(), Encoder(), time.perf_counter, "run")
        task = asyncio.create_task(wire.send(chat(), place(), records.append))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await wire.close()

    uvloop.run(cancel())

    assert [r.status for r in records] == ["cancelled"]


def test_the_wire_works_on_the_loop_of_the_standard_library(server: Torture) -> None:
    records, _ = asyncio.run(call("wire", endpoint(server.url("hello")), 3))

    assert [r.status for r in records] == ["ok"] * 3


def test_a_call_that_is_cancelled_while_it_connects_does_not_keep_the_client_open() -> None:
    """uvloop closes such a socket without a word to the protocol; `close` must not wait for that word."""

    async def main(url: str) -> None:
        for delay in range(60):
            client = Wire(Endpoint(url, "m"), Features(), Encoder(), time.perf_counter, "run")
            here = Place(0, "", "a", 0, 0, 0.0)
            calls = [
                asyncio.ensure_future(client.send(Chat(Context([Message("user", 9)]), 4), here, lambda call: None))
                for _ in range(4)
            ]
            await asyncio.sleep(delay * 20e-6)
            for made in calls:
                made.cancel()
            await asyncio.wait(calls)
            await asyncio.wait_for(client.close(), 2.0)

    with null_server() as url, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(url))
