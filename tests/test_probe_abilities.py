"""What `agentload probe --url` says of endpoints whose abilities are known."""

import asyncio
import json
from typing import Any

from agentload.abilities import probe_endpoint, to_text
from agentload.box.options import BoxOptions
from agentload.box.serve import BoxProcess
from agentload.null import null_server
from agents.endpoint import Endpoint
from tests.probe_made import Answer, Body, endpoint, picky


def abilities(url: str) -> dict[str, Any]:
    found = asyncio.run(probe_endpoint(Endpoint(url=url)))
    assert json.loads(json.dumps(found)) == found  # it is JSON
    for line in to_text(found).splitlines():
        assert line.strip()
    return found


def test_the_box_can_do_everything_and_says_that_it_is_simulated() -> None:
    with BoxProcess(BoxOptions(speed=50.0)) as url:
        box = abilities(url)

    assert box["simulated"]
    assert box["streaming"] and box["not_streaming"] and box["responses_api"] and box["completions_api"]
    assert box["tools"] and box["called_tools"]
    assert box["forced_length"] == "obeyed"
    assert box["cached_tokens"] > 0
    assert box["stream_usage"] == "a chunk of its own"
    assert box["metrics"]["dialect"] == "vLLM"
    assert box["context_length"] == 131_072
    assert 0 < box["round_trip"] < 0.1


def test_what_an_endpoint_lacks_is_said() -> None:
    with endpoint(picky(("ignore_eos", "tools"), 422)) as (url, _):
        plain = abilities(url)

    assert plain["tools"] is False and plain["called_tools"] is None
    assert plain["forced_length"] == "refused"
    assert plain["responses_api"] is False and plain["completions_api"] is False
    assert plain["metrics"] is None and plain["cached_tokens"] is None
    assert plain["reasoning"] == {"field": None, "counted": False}
    assert plain["rate_limits"] == {"x-ratelimit-remaining-requests": "99"}
    assert plain["calibration"]["per_word"] == 2.0
    assert plain["model"] == "m" and plain["context_length"] == 4096


def test_parallel_tools_and_reasoning_are_seen() -> None:
    def behave(path: str, body: Body) -> Answer:
        if "tools" not in body and (body.get("stream") or not path.endswith("/chat/completions")):
            return picky()(path, body)
        call = {"type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
        message = {"role": "assistant", "reasoning_content": "hm", "content": "ok"}
        if "tools" in body:
            message |= {"tool_calls": [call | {"id": "a"}, call | {"id": "b"}]}
        usage = {"prompt_tokens": 9, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 3}}
        return 200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}

    with endpoint(behave) as (url, _):
        able = abilities(url)

    assert able["called_tools"] and able["parallel_tools"]
    assert able["reasoning"] == {"field": "reasoning_content", "counted": True}


def test_trouble_is_not_taken_for_an_answer() -> None:
    def behave(path: str, body: Body) -> Answer:
        if path.endswith(("/responses", "/completions")) and not path.endswith("/chat/completions"):
            return 503, {"error": "busy"}
        return picky()(path, body)

    with endpoint(behave) as (url, _):
        busy = abilities(url)

    assert busy["responses_api"] is None and busy["completions_api"] is None


def test_the_null_server_is_probed_like_any_other() -> None:
    with null_server("--ttft", "0.01") as url:
        null = abilities(url)

    assert null["model"] == "null" and null["forced_length"] == "obeyed"
    assert null["calibration"]["counted"]
    assert 0.01 <= null["ttft"] < 0.1
