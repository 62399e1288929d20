"""The box's other faces over HTTP: the Responses API, limits, faults made on purpose, replicas and its metrics page."""

import http.client
import json
import re
import time
import urllib.request
from typing import Any

import openai
import pytest
from msgspec import structs
from pytest import approx

from agentload.box.door import Bucket, Door, duration
from agentload.box.options import BoxOptions, Failure, Faults, Habits, Quota
from agentload.box.protocol import Refused
from agentload.box.serve import BoxProcess

FAST = BoxOptions(sigma=0.0, speed=20.0, habits=Habits(reasoning=0.0))
THINKING = BoxOptions(sigma=0.0, speed=20.0, replicas=2)
FORCED: dict[str, Any] = {"max_tokens": 20, "extra_body": {"ignore_eos": True}}
TOOL = {"type": "function", "name": "read_file", "description": "Reads.", "parameters": {
    "type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}}  # fmt: skip


def sdk(url: str, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=url, api_key=key, max_retries=0)


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def url():
    with BoxProcess(THINKING) as url:
        yield url


def test_responses_whole_and_streamed_are_the_same_and_what_chat_says(url):
    with sdk(url) as client:
        for i in range(6):
            asked = {"model": "box", "input": f"tell me about {i}", "max_output_tokens": 90}
            whole = client.responses.create(**asked)
            events = list(client.responses.create(**asked, stream=True))
            chat = client.chat.completions.create(model="box", messages=user(f"tell me about {i}"), max_tokens=90)

            said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
            thought = "".join(event.delta for event in events if event.type == "response.reasoning_text.delta")
            assert said == whole.output_text == (chat.choices[0].message.content or "")
            assert thought == (chat.choices[0].message.model_extra.get("reasoning_content") or "")
            last = events[-1].response
            assert events[0].type == "response.created"
            assert events[-1].type == f"response.{whole.status}"
            assert [event.sequence_number for event in events] == list(range(len(events)))
            assert last.usage.output_tokens == whole.usage.output_tokens == chat.usage.completion_tokens
            assert whole.usage.input_tokens == chat.usage.prompt_tokens
            assert whole.status == ("incomplete" if chat.choices[0].finish_reason == "length" else "completed")
            assert [item.type for item in last.output] == [item.type for item in whole.output]


def test_a_tool_loop_over_responses_ends_with_an_answer(url):
    with sdk(url) as client:
        given: list[Any] = user("work on it")
        for _round in range(40):
            reply = client.responses.create(model="box", input=given, tools=[TOOL])
            calls = [item for item in reply.output if item.type == "function_call"]
            given += [item.model_dump(exclude_none=True) for item in reply.output]
            if not calls:
                break
            assert all("path" in json.loads(call.arguments) for call in calls)
            given += [{"type": "function_call_output", "call_id": call.call_id, "output": "done"} for call in calls]
        assert reply.output_text


def test_streamed_tool_calls_over_responses_are_whole(url):
    with sdk(url) as client:
        asked = {"model": "box", "input": "call it", "tools": [TOOL], "tool_choice": "required"}
        events = list(client.responses.create(**asked, stream=True))
        whole = client.responses.create(**asked)

    called = [item for item in whole.output if item.type == "function_call"]
    told = [event.item for event in events if event.type == "response.output_item.done"]
    pieces: dict[str, str] = {}
    for event in events:
        if event.type == "response.function_call_arguments.delta":
            pieces[event.item_id] = pieces.get(event.item_id, "") + event.delta
    assert [item.arguments for item in told if item.type == "function_call"] == [call.arguments for call in called]
    assert list(pieces.values()) == [call.arguments for call in called]


def test_a_bad_response_request_is_an_error(url):
    with sdk(url) as client:
        with pytest.raises(openai.BadRequestError, match="must not be empty"):
            client.responses.create(model="box", input=[])
        with pytest.raises(openai.BadRequestError, match="at least 1"):
            client.responses.create(model="box", input="x", max_output_tokens=0)
        with pytest.raises(openai.BadRequestError, match="image"):
            client.responses.create(model="box", input=[{"type": "image_generation_call", "id": "x"}])  # type: ignore[list-item]


def test_replicas_take_turns_and_each_has_its_series(url):
    def running(page: str) -> list[float]:
        return [
            float(v) for v in re.findall(r'vllm:generation_tokens_total\{engine="\d",model_name="box"\} (\S+)', page)
        ]

    before = running(page(url))
    with sdk(url) as client:
        for _ in range(4):
            client.chat.completions.create(model="box", messages=user("go"), **FORCED)
    after = running(page(url))

    assert [b - a for a, b in zip(before, after, strict=True)] == [40, 40]


def page(url: str) -> str:
    text: str = urllib.request.urlopen(url.removesuffix("/v1") + "/metrics").read().decode()
    return text


def test_requests_for_other_hosts_and_too_large_ones_are_refused(url):
    for path in ("/models", "/../metrics"):
        request = urllib.request.Request(url + path, headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError, match="421"):
            urllib.request.urlopen(request)
    with pytest.raises(urllib.error.HTTPError, match="413"):
        urllib.request.urlopen(urllib.request.Request(url + "/chat/completions", bytes(257 << 20)))


def test_the_metrics_page_is_well_formed_and_histograms_add_up(url):
    with sdk(url) as client:
        client.chat.completions.create(model="box", messages=user("measure me"), **FORCED)
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page(url), re.MULTILINE))
    values = {}
    for line in page(url).splitlines():
        if not line.startswith("#"):
            name, labels, value = re.fullmatch(r'([a-z0-9_:]+)\{((?:[a-z_]+="[^"]*",?)+)\} (\S+)', line).groups()
            family = name if name in kinds else re.sub("_(bucket|sum|count)$", "", name)
            assert kinds[family] in ("gauge", "counter", "histogram")
            assert (kinds[family] == "counter") == name.endswith("_total") or family != name
            values[name, labels] = float(value)

    for family in (name for name, kind in kinds.items() if kind == "histogram"):
        label = 'engine="0",model_name="box"'
        buckets = [v for (name, labels), v in values.items() if name == f"{family}_bucket" and labels.startswith(label)]
        assert buckets == sorted(buckets)
        assert buckets[-1] == values[f"{family}_count", label]
    assert 'vllm:time_to_first_token_seconds_bucket{engine="0",model_name="box",le="0.08"}' in page(url)


def test_histograms_hold_the_models_times():
    with BoxProcess(BoxOptions(sigma=0.0, habits=Habits(reasoning=0.0))) as url:
        with sdk(url) as client:
            client.chat.completions.create(model="box", messages=user("one"), **FORCED)
        text = page(url)

    def metric(name: str) -> float:
        return float(re.search(rf"^vllm:{name}\{{[^}}]*\}} (\S+)$", text, re.MULTILINE)[1])

    assert metric("time_to_first_token_seconds_sum") == approx(0.018 + 0.0114, abs=0.003)
    assert metric("inter_token_latency_seconds_count") == 19
    assert metric("inter_token_latency_seconds_sum") == approx(19 * 0.01115, rel=0.01)
    assert metric("request_generation_tokens_sum") == 20
    assert metric("e2e_request_latency_seconds_count") == 1
    assert metric("iteration_tokens_total_count") == 20


def test_a_bucket_fills_evenly_and_never_over():
    bucket = Bucket(60)
    bucket.left = 0.0
    bucket.fill(10.0)
    assert bucket.left == approx(10)
    assert bucket.wait(15) == approx(5)
    assert bucket.reset == approx(50)
    bucket.fill(1_000.0)
    assert bucket.left == 60
    assert bucket.wait(1_000) == 0  # more than there can ever be takes all there is


def test_every_key_has_its_own_quota():
    door = Door(Quota(requests=2, tokens=1_000), None, Faults(), 0)
    assert door.enter("a", 100, 0, 0.0).headers["x-ratelimit-remaining-requests"] == "1"
    assert door.enter("a", 100, 0, 0.0).headers["x-ratelimit-remaining-tokens"] == "800"
    with pytest.raises(Refused, match="2 requests per min") as refused:
        door.enter("a", 1, 0, 0.0)
    assert refused.value.headers["Retry-After"] == "30"
    door.enter("b", 900, 0, 0.0)
    with pytest.raises(Refused, match="1000 tokens per min"):
        door.enter("b", 900, 0, 0.0)


def test_durations_are_written_as_openai_does():
    assert [duration(s) for s in (0.0, 0.85, 1.0, 59.2, 360.0)] == ["0ms", "850ms", "1s", "1m0s", "6m0s"]


def test_over_a_quota_is_429_with_openais_headers():
    with BoxProcess(structs.replace(FAST, speed=1.0, quota=Quota(requests=3))) as url, sdk(url, "k") as client:
        for left in (2, 1, 0):
            got = client.chat.completions.with_raw_response.create(model="box", messages=user("hi"), max_tokens=1)
            assert got.headers["x-ratelimit-limit-requests"] == "3"
            assert got.headers["x-ratelimit-remaining-requests"] == str(left)
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(model="box", messages=user("hi"), max_tokens=1)
        with sdk(url, "other") as other:
            other.chat.completions.create(model="box", messages=user("hi"), max_tokens=1)

    headers = refused.value.response.headers
    assert 15 <= int(headers["retry-after"]) <= 20
    assert re.fullmatch(r"\d+s|1m0s", headers["x-ratelimit-reset-requests"])


def test_too_long_a_queue_is_503():
    with BoxProcess(structs.replace(FAST, speed=1.0, seats=1, queued=1)) as url, sdk(url) as client:
        body = {"model": "box", "messages": user("hold"), "max_tokens": 10_000, "extra_body": {"ignore_eos": True}}
        held = [client.chat.completions.create(**body, stream=True)]
        next(iter(held[0]))
        waiting = client.with_options(timeout=0.5)
        with pytest.raises(openai.APITimeoutError):
            waiting.chat.completions.create(**body, stream=False)
        held.append(client.chat.completions.create(**body, stream=True))
        with pytest.raises(openai.InternalServerError, match="wait already"):
            client.chat.completions.create(**body)
        assert 'vllm:admission_rejections_total{model_name="box",reason="max_num_queued_reqs"} 1' in page(url)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", ["error", "reset", "broken"])
def test_faults_are_seen_by_a_client(fault, stream):
    faults = Faults(**{fault: 1.0}, key="unlucky")
    with BoxProcess(structs.replace(FAST, faults=faults)) as url, sdk(url, "unlucky") as client:
        seen = []
        with pytest.raises((openai.APIError, Exception)) as failed:
            reply = client.chat.completions.create(model="box", messages=user("hi"), stream=stream, **FORCED)
            seen += [chunk for chunk in reply if chunk.choices and chunk.choices[0].delta.content]
        with sdk(url, "lucky") as lucky:
            assert lucky.chat.completions.create(model="box", messages=user("hi"), **FORCED).choices

    if fault == "error" or (fault == "broken" and not stream):
        assert isinstance(failed.value, openai.InternalServerError)
    else:
        assert not isinstance(failed.value, openai.APIStatusError)
    assert len(seen) <= 10


def test_stalls_and_slow_starts_are_felt():
    for faults, least in ((Faults(stall=1.0, stall_seconds=0.6), 0.6), (Faults(slow=1.0, slow_seconds=0.5), 0.5)):
        with BoxProcess(structs.replace(FAST, speed=1.0, faults=faults)) as url, sdk(url) as client:
            begun, first, gap, last = time.monotonic(), 0.0, 0.0, 0.0
            for chunk in client.chat.completions.create(model="box", messages=user("hi"), stream=True, **FORCED):
                if chunk.choices and chunk.choices[0].delta.content:
                    now = time.monotonic()
                    first, gap, last = first or now - begun, max(gap, now - (last or now)), now
        assert max(first, gap) >= least
        assert (gap > 0.4) == (faults.stall > 0)


def test_a_replica_that_dies_breaks_its_connections():
    failing = (Failure(at=1.5, replica=0, after=60.0),)
    with BoxProcess(structs.replace(FAST, speed=1.0, failures=failing)) as url:
        place = url.removeprefix("http://").removesuffix("/v1")
        connection = http.client.HTTPConnection(place)
        asked = json.dumps(
            {"model": "box", "messages": user("hi"), "stream": True, "max_tokens": 9_000, "ignore_eos": True}
        )
        connection.request("POST", "/v1/chat/completions", asked)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            connection.getresponse().read()
        connection.close()
        with sdk(url) as client, pytest.raises(openai.InternalServerError, match="no replica is up"):
            client.chat.completions.create(model="box", messages=user("hi"))
