"""The box over HTTP, asked with the stock `openai` client and with bare sockets."""

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from urllib.parse import urlsplit

import msgspec
import numpy as np
import openai
import pytest

from agentload.box.options import BoxOptions, Habits
from agentload.box.serve import BoxProcess
from agentload.errors import Failed

FAST = BoxOptions(sigma=0.0, speed=20.0, kv_tokens=400_000)
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "read_file",
            "description": "Reads a file.",
            "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
        },
    }
]
FORCED = {"max_tokens": 20, "extra_body": {"ignore_eos": True}}


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("box") / "access.jsonl"


@pytest.fixture(scope="module")
def url(log):
    with BoxProcess(msgspec.structs.replace(FAST, log=str(log))) as url:
        yield url


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


def user(text):
    return [{"role": "user", "content": text}]


def streamed(client, **request):
    """All chunks of a streamed chat, and its text, reasoning and tool calls put together."""
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(model="box", stream=True, stream_options=options, **request))
    said = {"content": "", "reasoning_content": "", "tool_calls": {}}
    for chunk in chunks:
        for choice in chunk.choices:
            said["content"] += choice.delta.content or ""
            said["reasoning_content"] += getattr(choice.delta, "reasoning_content", None) or ""
            for call in choice.delta.tool_calls or []:
                whole = said["tool_calls"].setdefault(call.index, {"id": "", "name": "", "arguments": ""})
                whole["id"] += call.id or ""
                whole["name"] += call.function.name or ""
                whole["arguments"] += call.function.arguments or ""
    return chunks, said


def metric(url, name):
    page = urllib.request.urlopen(url.removesuffix("/v1") + "/metrics").read().decode()
    return next(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(name + "{"))


def until(condition, seconds=5.0):
    """Wait for a condition to come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_models_say_that_they_are_simulated(client):
    (model,) = client.models.list().data

    assert model.id == "box"
    assert model.owned_by == "agentload (simulated)"
    assert model.model_extra["simulated"] is True
    assert model.model_extra["max_model_len"] == 131_072
    assert model.model_extra["preset"] == "llama-3.1-70b-4xh100"
    assert client.models.retrieve("box").id == "box"


def test_health_answers(url):
    assert urllib.request.urlopen(url.removesuffix("/v1") + "/health").status == 200


def test_a_stream_begins_with_the_role_and_ends_with_finish_and_usage(client):
    chunks, said = streamed(client, messages=user("begin and end"), **FORCED)

    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].choices == []
    assert len(said["content"].split()) + len(said["reasoning_content"].split()) <= 20
    assert len(chunks) == 1 + 20 + 2
    assert chunks[-1].usage.prompt_tokens == 3 + 5 + 3
    assert chunks[-1].usage.completion_tokens == 20


def test_without_asking_no_usage_is_streamed(client):
    chunks = list(client.chat.completions.create(model="box", messages=user("hush"), stream=True, **FORCED))

    assert all(chunk.usage is None for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "length"


def test_whole_and_streamed_replies_are_the_same(client):
    request = {"messages": user("whole or in pieces"), "max_tokens": 60}
    whole = client.chat.completions.create(model="box", **request)
    chunks, said = streamed(client, **request)
    told = whole.choices[0].message

    assert said["content"] == (told.content or "")
    assert said["reasoning_content"] == (told.model_extra.get("reasoning_content") or "")
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    details = whole.usage.completion_tokens_details
    assert chunks[-1].usage.completion_tokens_details.reasoning_tokens == details.reasoning_tokens


def test_tool_calls_come_name_first_and_make_valid_arguments(client):
    for i in range(8):
        request = {"messages": user(f"call something {i}"), "tools": TOOLS, "tool_choice": "required"}
        chunks, said = streamed(client, **request)
        whole = client.chat.completions.create(model="box", **request)

        assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason == "tool_calls"
        calls = [said["tool_calls"][i] for i in sorted(said["tool_calls"])]
        told = [{"id": call.id, **call.function.model_dump()} for call in whole.choices[0].message.tool_calls]
        assert calls == told
        assert all(isinstance(json.loads(call["arguments"])["path"], str) for call in calls)


def test_a_tool_loop_ends_with_an_answer(client):
    for i in range(5):
        messages, rounds = user(f"work on task {i}"), 0
        while True:
            reply = client.chat.completions.create(model="box", messages=messages, tools=TOOLS).choices[0]
            if reply.finish_reason != "tool_calls":
                break
            rounds += 1
            assert rounds < 60
            messages.append(reply.message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"}))
            messages += [
                {"role": "tool", "tool_call_id": call.id, "content": "done"} for call in reply.message.tool_calls
            ]
        assert reply.message.content


def test_a_conversation_finds_its_past_in_the_cache(client):
    messages = user("remember " + "this long text " * 100)
    first = client.chat.completions.create(model="box", messages=messages, max_tokens=100)
    messages.append({"role": "assistant", "content": first.choices[0].message.content})
    messages.append({"role": "user", "content": "and now"})
    second = client.chat.completions.create(model="box", messages=messages, max_tokens=100)

    thought = first.usage.completion_tokens_details.reasoning_tokens
    spoken = first.usage.completion_tokens - thought
    # The reply counts what it counted when it was made; 2 tokens end it, 7 are the next message, 3 open the answer.
    assert second.usage.prompt_tokens == first.usage.prompt_tokens + spoken + 2 + 7 + 3
    kept = first.usage.total_tokens - 1 if not thought else first.usage.prompt_tokens
    assert second.usage.prompt_tokens_details.cached_tokens == kept // 16 * 16
    assert first.usage.prompt_tokens_details.cached_tokens == 0


def test_counters_grow_by_what_usage_says(client, url):
    names = ("vllm:prompt_tokens_total", "vllm:prompt_tokens_cached_total", "vllm:generation_tokens_total")
    before = [metric(url, name) for name in names]
    replies = [client.chat.completions.create(model="box", messages=user("count " * 40 + str(i % 3))) for i in range(6)]

    usages = [reply.usage for reply in replies]
    cached = sum(usage.prompt_tokens_details.cached_tokens for usage in usages)
    sums = [sum(usage.prompt_tokens for usage in usages), cached, sum(usage.completion_tokens for usage in usages)]
    assert [metric(url, name) - was for name, was in zip(names, before, strict=True)] == sums
    assert cached > 0


def test_plain_completions_work_both_ways(client):
    whole = client.completions.create(model="box", prompt="once upon a time", max_tokens=30)
    pieces = list(client.completions.create(model="box", prompt="once upon a time", max_tokens=30, stream=True))

    assert "".join(piece.choices[0].text for piece in pieces) == whole.choices[0].text
    assert pieces[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert whole.usage.prompt_tokens == 4
    assert client.completions.create(model="box", prompt=[5, 6, 7], max_tokens=1).usage.prompt_tokens == 3


def post(url, body, path="/chat/completions"):
    """Status and body of a bare POST."""
    request = urllib.request.Request(url + path, data=body, headers={"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def ask(**fields):
    return json.dumps({"model": "box", "messages": user("hi"), **fields}).encode()


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{", 400, "JSON"),
        (b"", 400, "JSON"),
        (b"[]", 400, "object"),
        (b'{"model": "\xff"}', 400, "JSON"),
        (b'{"tools": [{"function": {"name": "deep", "parameters": ' + b"[" * 100_000, 400, "JSON"),
        (b'{"model": "box"}', 400, "messages"),
        (ask(messages=[]), 400, "must not be empty"),
        (ask(messages=[{"content": "no role"}]), 400, "role"),
        (ask(messages=[{"role": "user", "content": 3}]), 400, "$.messages[0].content"),
        (ask(messages=[{"role": "user", "content": [{"type": "image_url"}]}]), 400, "text"),
        (ask(max_tokens="many"), 400, "$.max_tokens"),
        (ask(max_tokens=0), 400, "at least 1"),
        (ask(min_tokens=-1), 400, "at least 0"),
        (ask(max_tokens=5, min_tokens=6), 400, "min_tokens"),
        (ask(stream="yes"), 400, "$.stream"),
        (ask(tools=[{"type": "function"}]), 400, "function"),
        (ask(tools=TOOLS, tool_choice="sometimes"), 400, "tool_choice"),
        (ask(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "fly"}}), 400, "'fly'"),
        (ask(n=2), 400, "n must be 1"),
        (ask(model="gpt-9"), 404, "gpt-9"),
        (ask(max_tokens=131_072), 400, "maximum context length is 131072"),
        (ask(max_tokens=10**30), 400, ""),
        (ask(messages=user("word " * 140_000)), 400, "maximum context length is 131072"),
    ],
)
def test_a_bad_request_gets_an_openai_shaped_error(url, body, status, says):
    code, answer = post(url, body)

    assert code == status
    assert says in answer["error"]["message"]
    assert answer["error"]["code"] == status
    assert answer["error"]["type"] == ("NotFoundError" if status == 404 else "BadRequestError")


def test_the_sdk_raises_its_own_errors(client):
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="other", messages=user("hi"))
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        client.chat.completions.create(model="box", messages=user("hi"), max_tokens=200_000)


@pytest.mark.parametrize("path", ["/nothing", "/models/none"])
def test_unknown_paths_are_404_in_json(url, path):
    code, answer = post(url, b"{}", path) if path == "/nothing" else get(url + path)

    assert code == 404
    assert answer["error"]["code"] == 404


def get(address):
    try:
        urllib.request.urlopen(address)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())
    raise AssertionError(f"{address} answered")


def test_odd_but_legal_requests_are_answered(url):
    odd = ask(
        messages=[
            {"role": "developer", "content": [{"type": "text", "text": "be "}, {"type": "text", "text": "brief"}]},
            {"role": "assistant", "content": None, "tool_calls": None},
            {"role": "user", "content": "\ud83d\ude00 日本 \u0000"},
        ],
        max_completion_tokens=3,
        tools=None,
        stream=None,
        temperature=0.5,
        some_field_of_tomorrow=[1],
        seed=-5,
    )
    code, answer = post(url, odd)

    assert code == 200
    assert answer["usage"]["completion_tokens"] <= 3


def test_one_connection_carries_several_streams(url):
    place = urlsplit(url)
    with contextlib.closing(http.client.HTTPConnection(place.hostname, place.port)) as connection:
        for _ in range(3):
            connection.request("POST", "/v1/chat/completions", ask(stream=True, max_tokens=5, ignore_eos=True))
            answer = connection.getresponse()
            assert answer.version == 11
            assert answer.getheader("transfer-encoding") == "chunked"
            lines = answer.read().decode().splitlines()
            assert lines[-2] == "data: [DONE]"
            assert sum('"finish_reason":null' in line for line in lines) == 6  # the role and five tokens


def test_a_client_that_hangs_up_frees_its_seat(url, log):
    place = urlsplit(url)
    body = ask(stream=True, max_tokens=100_000, ignore_eos=True)
    with socket.create_connection((place.hostname, place.port)) as caller:
        names = f"host: 127.0.0.1\r\nx-request-id: quitter\r\ncontent-length: {len(body)}"
        head = f"POST /v1/chat/completions HTTP/1.1\r\n{names}\r\n\r\n"
        caller.sendall(head.encode() + body)
        assert caller.recv(100)
        until(lambda: metric(url, "vllm:num_requests_running") == 1)

    until(lambda: metric(url, "vllm:num_requests_running") == 0)
    until(lambda: "quitter" in log.read_text())
    (line,) = [json.loads(line) for line in log.read_text().splitlines() if '"quitter"' in line]
    assert line["status"] == "abort"
    assert line["output_tokens"] < 100_000


def test_the_log_says_when_tokens_were_written(client, log):
    sent = time.monotonic()
    stream = client.chat.completions.create(
        model="box", messages=user("when"), stream=True, extra_headers={"x-request-id": "timed"}, **FORCED
    )
    arrivals = [time.monotonic() for chunk in stream if chunk.choices and chunk.choices[0].delta.role is None]
    until(lambda: "timed" in log.read_text())
    (line,) = [json.loads(line) for line in log.read_text().splitlines() if '"timed"' in line]

    assert sent < line["received"] < line["first_write"] < line["last_write"] < arrivals[-1]
    assert line["first_write"] < arrivals[0]
    assert len(line["writes"]) == line["output_tokens"] == 20
    assert line["status"] == "ok"


def test_timing_is_the_model_and_does_not_drift():
    """At sigma 0, a lone request's tokens come at the instants that the formula gives, and never before.

    A busy machine delays some tokens and not others. What delays all of them is the model's clock, or what writes: so
    the least late of the first third and of the last are judged.
    """
    with BoxProcess(BoxOptions(sigma=0.0, habits=Habits(reasoning=0.0))) as url:
        place = urlsplit(url)
        with contextlib.closing(http.client.HTTPConnection(place.hostname, place.port)) as connection:
            connection.request("POST", "/v1/chat/completions", ask(max_tokens=1))  # pays for what is lazy
            connection.getresponse().read()
            before = time.monotonic()
            connection.request("POST", "/v1/chat/completions", ask(stream=True, max_tokens=100, ignore_eos=True))
            sent = time.monotonic()
            answer = connection.getresponse()
            arrivals = [time.monotonic() for line in answer if b'"content":"' in line and b'"role"' not in line]

    first = 1e-3 * (18 + 11.11 + 9 * 0.0369)  # offset and one prefill step of nine tokens
    gaps = 1e-3 * np.array([11.11 + 0.0365 + 4.64e-5 * (10 + i) for i in range(99)])
    due = first + np.concatenate(([0.0], np.cumsum(gaps)))
    late = np.array(arrivals) - sent - due
    assert (np.array(arrivals) - before >= due).all()
    assert late[:33].min() < 0.003
    assert late[-33:].min() - late[:33].min() < 0.002  # a sleep for each step would have added up


def test_the_process_starts_soon_and_stops_cleanly():
    begun = time.monotonic()
    box = BoxProcess(FAST)
    with box as url:
        started = time.monotonic() - begun
        assert url.startswith("http://127.0.0.1:") and url.endswith("/v1")
    assert box._process is not None
    assert box._process.returncode == 0
    assert started < 3.0  # 0.4 s on a quiet machine; CI is not quiet


def test_the_process_ends_when_its_parent_is_killed():
    code = (
        "import sys, time\n"
        "from agentload.box.serve import BoxProcess\n"
        "box = BoxProcess()\n"
        "print(box.__enter__(), flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        place = urlsplit(parent.stdout.readline().strip())
        parent.send_signal(signal.SIGKILL)

    def gone():
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection((place.hostname, place.port)):
            return False
        return True

    until(gone)


def test_a_box_that_cannot_start_says_why():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with (
            pytest.raises(Failed, match="address already in use"),
            BoxProcess(BoxOptions(port=taken.getsockname()[1])),
        ):
            pass


@pytest.mark.parametrize(
    "options",
    [{"preset": "none"}, {"sigma": 2.0}, {"habits": {"reasoning": 1.5}}, {"speed": 0}, {"kv": 1}, {"context": 0}],
)
def test_wrong_options_are_refused_at_the_door(options):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(options, BoxOptions)
