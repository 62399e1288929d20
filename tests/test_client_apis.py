"""The three APIs as both clients speak them: what they ask for, and when an answer without text came."""

import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import msgspec
import openai
import pytest
import uvloop

from agents.chain import Chat, Context, Message, ToolCall, ToolSchema
from agents.endpoint import Endpoint, Features
from agents.request import Request, headers, join, refuse
from agents.text import Encoder
from collectors.records import Call
from tests.cases import HELLO_SCRIPT
from tests.cases_apis import COMPLETIONS, HI_SCRIPT, SILENT
from tests.client_made import CLIENTS, call, place
from tests.torture import Step, Torture

TOOLS = (ToolSchema("f", "does", {"type": "object", "properties": {}}),)
SCRIPTS = {"chat": HELLO_SCRIPT, "responses": HI_SCRIPT, "completions": COMPLETIONS["as_vllm"].script}
PAUSE = 0.1
both = pytest.mark.parametrize("client", CLIENTS)
each = pytest.mark.parametrize("api", SCRIPTS)


def spaced(script: list[Step]) -> list[Step]:
    """The same writes with a pause after each."""
    return [part for step in script for part in (step, PAUSE)]


@pytest.fixture(scope="module")
def server() -> Iterator[Torture]:
    silent = {f"silent_{name}": spaced(case.script) for name, case in SILENT.items() if case.stream}
    with Torture(SCRIPTS | silent) as torture:
        yield torture


def endpoint(**fields: Any) -> Endpoint:
    return msgspec.convert({"url": "http://h/v1", "model": "m"} | fields, Endpoint)


def ask(client: str, to: Endpoint, context: Context, times: int = 1, **how: Any) -> list[Call]:
    """Steps of one conversation; each but the first adds a user's message after the reply."""
    records: list[Call] = []

    async def talk() -> None:
        door = CLIENTS[client](to, Features(), Encoder(), time.perf_counter, "run")
        for step in range(times):
            if step:
                context.append(Message("user", 5, text=f"and {step}"))
            reply = await door.send(Chat(context, 9, **how), place(step), records.append)
            context.append(reply.message())
        await door.close()

    uvloop.run(talk())
    return records


def conversation(tools: tuple[ToolSchema, ...] = ()) -> Context:
    called = (ToolCall("f", '{"x":1}', "a"), ToolCall("g", "{}", "b"))
    return Context(
        [
            Message("system", 5, text='Be "brief".'),
            Message("user", 5, text="Look."),
            *(
                [
                    Message("assistant", 5, text="So:", tool_calls=called),
                    Message("tool", 5, text="yes", call_id="a"),
                    Message("tool", 5, text="", call_id="b"),
                    Message("assistant", 5, text="", tool_calls=called[:1]),
                    Message("tool", 5, text="no", call_id="a"),
                ]
                if tools
                else [Message("assistant", 5, text="So:")]
            ),
            Message("user", 5, text="Gö\non\\"),
        ],
        tools,
    )


def call_item(name: str, arguments: str, id: str) -> dict[str, str]:
    return {"type": "function_call", "call_id": id, "name": name, "arguments": arguments}


BODIES: dict[str, dict[str, Any]] = {
    "responses": {
        "model": "m",
        "stream": True,
        "max_output_tokens": 9,
        "ignore_eos": True,
        "tool_choice": "none",
        "tools": [
            {
                "type": "function",
                "name": "f",
                "description": "does",
                "parameters": {"type": "object", "properties": {}},
                "strict": False,
            }
        ],
        "input": [
            {"role": "system", "content": 'Be "brief".'},
            {"role": "user", "content": "Look."},
            {"role": "assistant", "content": "So:"},
            call_item("f", '{"x":1}', "a"),
            call_item("g", "{}", "b"),
            {"type": "function_call_output", "call_id": "a", "output": "yes"},
            {"type": "function_call_output", "call_id": "b", "output": ""},
            call_item("f", '{"x":1}', "a"),
            {"type": "function_call_output", "call_id": "a", "output": "no"},
            {"role": "user", "content": "Gö\non\\"},
        ],
    },
    "completions": {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 9,
        "ignore_eos": True,
        "min_tokens": 9,
        "prompt": 'system:\nBe "brief".\n\nuser:\nLook.\n\nassistant:\nSo:\n\nuser:\nGö\non\\\n\nassistant:\n',
    },
}


@pytest.mark.parametrize("api", BODIES)
@both
def test_a_conversation_is_sent_in_the_words_of_the_api(client: str, api: str, server: Torture) -> None:
    tools = TOOLS if api == "responses" else ()

    (record,) = ask(client, endpoint(url=server.url(api), api=api), conversation(tools), exact=True, call_tools=False)

    assert record.status == "ok"
    assert server.log[-1].path == f"/{api}/v1/{api}"
    assert server.log[-1].body == BODIES[api]


@each
def test_both_clients_send_the_same_request_to_every_api(api: str, server: Torture) -> None:
    tools = () if api == "completions" else TOOLS
    more = {"sampling": {"temperature": 0.5}, "extra_body": {"priority": 3}, "headers": {"X-Tenant": "blue"}}
    seen = []
    for client in CLIENTS:
        ask(client, endpoint(url=server.url(api), api=api, **more), conversation(tools), times=2)
        seen.append(server.log[-1])

    wire, sdk = seen
    assert wire.path == sdk.path
    assert wire.body == sdk.body
    assert wire.body["temperature"] == 0.5
    assert wire.headers["authorization"] == sdk.headers["authorization"]
    assert wire.headers["x-request-id"] == sdk.headers["x-request-id"] == "run-3.0.1-1-0"


@each
@both
def test_a_history_only_grows_in_every_api(client: str, api: str, server: Torture) -> None:
    context = conversation()
    kept: list[list[Any]] = []
    for _ in range(3):
        ask(client, endpoint(url=server.url(api), api=api), context)
        kept.append(list(context.encoded))
        context.append(Message("user", 5, text="more"))

    assert all(a is b for a, b in zip(kept[0], kept[-1], strict=False))
    sent = [exchange.body for exchange in server.log[-3:]]
    for before, after in itertools.pairwise(sent):
        if api == "completions":  # what the model saw and said is a prefix of what it sees next
            assert after["prompt"].startswith(before["prompt"] + "Hello wörld\n\n")
        else:
            field = "messages" if api == "chat" else "input"
            assert after[field][: len(before[field])] == before[field]
            assert after[field][len(before[field])] == {"role": "assistant", "content": "Hello wörld"}


def test_a_system_prompt_is_made_once_for_all_sessions_in_every_api() -> None:
    encoder, system = Encoder(), Message("system", 500, key=1)
    for api in SCRIPTS:
        write = Request(endpoint(api=api), Features(), encoder, "run").api.write

        assert encoder.encode(system, write) is encoder.encode(system, write)
        assert encoder.encode(system, write) == write(encoder.plain(system))


# What is refused


@each
@pytest.mark.parametrize("field", ["n", "best_of"])
def test_several_answers_to_one_call_are_refused_in_every_api(api: str, field: str) -> None:
    for place_of in ("sampling", "extra_body"):
        with pytest.raises(ValueError, match=f"{field} must be 1, got 2: one call is one answer"):
            Request(endpoint(api=api, **{place_of: {field: 2}}), Features(), Encoder(), "run")


def test_tools_are_refused_where_the_api_has_none() -> None:
    with pytest.raises(ValueError, match="has no tools"):
        refuse(endpoint(api="completions"), tools=True)
    with pytest.raises(ValueError, match="has no tools"):
        Request(endpoint(api="completions"), Features(), Encoder(), "r").fields(Chat(Context([], TOOLS), 9))
    refuse(endpoint(api="responses"), tools=True)


# Azure


@pytest.mark.parametrize("base", ["/openai", "/openai/deployments/my-gpt"])
@each
@both
def test_azure_is_asked_as_the_azure_client_of_the_sdk_asks(
    client: str, api: str, base: str, server: Torture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "an-azure-key")
    monkeypatch.delenv("AZURE_OPENAI_AD_TOKEN", raising=False)
    url = server.url(api).removesuffix("/v1") + base
    version = "2024-10-21"

    to = endpoint(url=f"{url}?api-version={version}", api=api, api_key_env="AZURE_OPENAI_API_KEY", model="a model/x")
    (record,) = ask(client, to, conversation())
    ours = server.log[-1]
    uvloop.run(stock_azure(url, version, api))
    stock = server.log[-1]

    assert record.status == "ok"
    assert ours.path == stock.path
    own = ("x-stainless", "accept-encoding", "connection", "content-length", "user-agent", "x-request-id")
    assert {k: v for k, v in ours.headers.items() if not k.startswith(own)} == {
        k: v for k, v in stock.headers.items() if not k.startswith(own)
    }
    assert ours.headers["api-key"] == "an-azure-key"
    assert "authorization" not in ours.headers


async def stock_azure(url: str, version: str, api: str) -> None:
    client = openai.AsyncAzureOpenAI(base_url=url, api_version=version, http_client=httpx2.AsyncClient(trust_env=False))
    async with client:
        match api:
            case "chat":
                await client.chat.completions.create(model="a model/x", messages=[])
            case "responses":
                await client.responses.create(model="a model/x", input="")
            case "completions":
                await client.completions.create(model="a model/x", prompt="")


def test_a_key_of_azure_is_concealed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "an-azure-key")
    to = endpoint(url="https://r.openai.azure.com/openai?api-version=1", api_key_env="A_KEY")

    assert headers(to)["api-key"] == "an-azure-key"
    assert Request(to, Features(), Encoder(), "r").conceal("no: an-azure-key") == "no: [secret]"


def test_a_url_is_joined_whole() -> None:
    assert str(join("http://h:81/v1/", "models")) == "http://h:81/v1/models"
    assert str(join("https://r/openai?api-version=1", "models", "m")) == "https://r/openai/models?api-version=1"


# Answers without text


@pytest.mark.parametrize("name", [name for name, case in SILENT.items() if case.stream])
@both
def test_a_token_without_text_came_when_the_server_said_why_it_ends(client: str, name: str, server: Torture) -> None:
    (record,) = uvloop.run(call(client, endpoint(url=server.url(f"silent_{name}"), api=name)))[0]

    said = [t for t, piece in server.log[-1].writes if b'"stop"' in piece or b"response.completed" in piece]
    assert (record.status, record.output_tokens) == ("ok", 1)
    assert record.first is not None
    assert record.first == record.last
    assert said[0] < record.first < said[0] + PAUSE / 2


@each
def test_nothing_is_forced_that_the_endpoint_does_not_take(api: str) -> None:
    plain = Request(endpoint(api=api), Features(force_length=False), Encoder(), "run").fields(
        Chat(Context(), 9, exact=True)
    )

    assert not {"ignore_eos", "min_tokens"} & plain.keys()
    assert json.loads(json.dumps(plain)) == plain
