"""What an endpoint can do, asked one question after the other: the answer to `agentload probe --url`.

Nothing here is needed for a run (`agentload.probe` is), and no question that fails stops the others: its answer is then
None, "not known". Each costs the endpoint a call of a few tokens.
"""

import asyncio
import socket
import statistics
import time
import urllib.parse
from typing import Any

import msgspec

from agentload.fetch import Page, fetch
from agentload.prepare import connect
from agentload.probe import MANY, choose, models, probe
from agents.endpoint import Client, Endpoint, Features
from agents.request import join
from agents.text import Encoder, filler
from collectors.records import Call

DIALECTS = {"vllm:": "vLLM", "sglang:": "SGLang", "trtllm_": "TensorRT-LLM", "tgi_": "TGI", "llamacpp:": "llama.cpp",
            "litellm_": "LiteLLM", "dynamo_": "Dynamo"}  # fmt: skip
"""Whose metrics they are, by how their names begin."""

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
ASK_TOOLS = "What is the weather in Paris, and what is it in Rome? Call get_weather once for each city, in one step."
ASK_TOOL = "What is the weather in Paris?"
FORCED = 24
"""Tokens asked for to see whether the length of a reply can be forced."""


async def probe_endpoint(endpoint: Endpoint) -> dict[str, Any]:
    """What the endpoint can do, as plain values; times in seconds. Raises BadInput where no run could be made."""
    endpoint, model = choose(endpoint, listed := await asyncio.to_thread(models, endpoint))
    made: list[Call] = []

    def client(endpoint: Endpoint, features: Features, encoder: Encoder) -> Client:
        return connect(endpoint, features, encoder, time.perf_counter, "probe")

    salt = time.time_ns() & 0x7FFFFFFF
    features, calibration = await probe(endpoint, model, client, made.append, time.perf_counter, salt)
    ask = Ask(endpoint, features)
    trip = await asyncio.to_thread(round_trip, endpoint)
    streamed, whole = await ask.chat(stream=True), await ask.chat(stream=False)
    answered = [call for call in made if call.status == "ok" and call.first is not None]
    first_tokens = [call.first - call.sent for call in answered if call.first is not None]
    return {
        "url": endpoint.url,
        "model": endpoint.model,
        "models": [row.name for row in listed],
        "server": server_name(model.server, streamed, whole),
        "simulated": features.simulated,
        "context_length": features.context_length,
        "round_trip": trip,
        "ttft": statistics.median(first_tokens) if first_tokens else None,
        "streaming": answers(streamed, bool(streamed.events)),
        "not_streaming": answers(whole, "choices" in whole.plain),
        "stream_usage": stream_usage(features, streamed),
        "usage": features.usage and any(call.usage == "server" for call in made),
        "cached_tokens": await cached_tokens(ask, salt),
        "reasoning": reasoning(streamed, whole),
        **await tools(ask),
        "forced_length": await forced_length(ask),
        "max_tokens_field": features.max_tokens_field,
        "responses_api": await responses_api(ask),
        "completions_api": await completions_api(ask),
        "metrics": await metrics(ask),
        "rate_limits": {name: value for name, value in streamed.headers.items() if is_limit(name)},
        "calibration": msgspec.to_builtins(calibration),
    }


class Ask:
    """Asks the endpoint one question at a time."""

    def __init__(self, endpoint: Endpoint, features: Features) -> None:
        self.endpoint, self.features = endpoint, features

    async def get(self, url: str) -> Page:
        return await self._answer(url, None)

    async def post(self, path: str, body: dict[str, Any]) -> Page:
        endpoint = self.endpoint
        whole = {"model": endpoint.model} | body | endpoint.sampling | endpoint.extra_body
        return await self._answer(str(join(endpoint.url, path, endpoint.model)), whole)

    async def chat(self, said: str = "Say hello.", tokens: int = 64, **more: Any) -> Page:
        body = {"messages": [{"role": "user", "content": said}], self.features.max_tokens_field: tokens, **more}
        if body.get("stream") and self.features.stream_usage:
            body["stream_options"] = {"include_usage": True}
        return await self.post("chat/completions", body)

    async def _answer(self, url: str, body: dict[str, Any] | None) -> Page:
        try:
            return await asyncio.to_thread(fetch, self.endpoint, url, body)
        except OSError:
            return Page(0, {}, b"")


def answers(page: Page, sensible: bool) -> bool | None:
    """Whether that kind of request is served; None where the endpoint had another trouble (429, 5xx, silence)."""
    if page.ok:
        return sensible
    return False if 400 <= page.code < 500 and page.code not in (408, 409, 429) else None


def round_trip(endpoint: Endpoint) -> float | None:
    """The median time that a TCP connection takes to open: once there and back."""
    url, taken = join(endpoint.url, ""), []
    for _ in range(5):
        start = time.perf_counter()
        try:
            with socket.create_connection((url.host, url.port), endpoint.timeouts.connect):
                taken.append(time.perf_counter() - start)
        except OSError:
            return None
    return statistics.median(taken)


def server_name(owner: str, *pages: Page) -> str:
    """What the endpoint says it is: who owns the model, its version, and its HTTP server."""
    prints = [str(each.get("system_fingerprint") or "") for page in pages for each in (page.plain, *page.events)]
    names = [owner, next((each for each in prints if each), ""), pages[0].headers.get("server", "")]
    return ", ".join(name for name in dict.fromkeys(names) if name)


def usage_of(page: Page) -> dict[str, Any]:
    """The last usage in an answer, streamed or not."""
    found = [each["usage"] for each in (page.plain, *page.events) if isinstance(each.get("usage"), dict)]
    return found[-1] if found else {}


def stream_usage(features: Features, streamed: Page) -> str | None:
    """Where a stream's usage is: in a chunk of its own, with the last choice, on every chunk, or nowhere."""
    if not streamed.events:
        return None
    holders = [event for event in streamed.events if isinstance(event.get("usage"), dict)]
    asked = "" if features.stream_usage else ", unasked"
    if not holders:
        return "none"
    if len(holders) > 2:
        return f"every chunk{asked}"
    return f"{'with the last choice' if holders[-1].get('choices') else 'a chunk of its own'}{asked}"


async def cached_tokens(ask: Ask, salt: int) -> int | None:
    """Tokens of a prompt sent twice that came from the cache the second time; None where usage does not say."""
    said = filler(salt + 99, MANY)
    await ask.chat(said, 2)
    usage = usage_of(await ask.chat(said, 2))
    details = usage.get("prompt_tokens_details")
    value = details.get("cached_tokens") if isinstance(details, dict) else usage.get("cached_tokens")
    return value if isinstance(value, int) else None


def messages_in(*pages: Page) -> list[dict[str, Any]]:
    """Every message, or piece of one, in those answers."""
    choices = [
        choice
        for page in pages
        for each in (page.plain, *page.events)
        for choice in each.get("choices") or ()
        if isinstance(choice, dict)
    ]
    return [part for choice in choices for part in (choice.get("message"), choice.get("delta")) if part]


def reasoning(*pages: Page) -> dict[str, Any]:
    """The field that reasoning comes in ("<think>" where it is in the text), None where none was seen; and whether
    usage counts it."""
    parts = messages_in(*pages)
    field = next((name for name in ("reasoning", "reasoning_content") for part in parts if part.get(name)), None)
    if field is None and any("<think>" in str(part.get("content")) for part in parts):
        field = "<think>"
    usages = [usage_of(page) for page in pages]
    nested = [usage.get("completion_tokens_details") or {} for usage in usages]
    return {"field": field, "counted": any("reasoning_tokens" in each for each in (*usages, *nested))}


async def tools(ask: Ask) -> dict[str, Any]:
    """Whether tool schemas are taken, whether the model called one, and whether it called several at once.

    A model that is free to call and does not is asked again, and then told to.
    """
    most, taken = 0, None
    ways: list[tuple[str, dict[str, Any]]] = [(ASK_TOOLS, {}), (ASK_TOOL, {}), (ASK_TOOLS, {"tool_choice": "required"})]
    for said, choice in ways:
        page = await ask.chat(said, 512, tools=[WEATHER], **choice)
        taken = taken if choice else answers(page, True)
        calls = [part.get("tool_calls") for part in messages_in(page)]
        most = max([most, *(len(each) for each in calls if isinstance(each, list))])
        if most or not taken:
            break
    return {"tools": taken, "called_tools": most > 0 if taken else None, "parallel_tools": most > 1 if most else None}


async def forced_length(ask: Ask) -> str:
    """Whether `ignore_eos` and `min_tokens` are "obeyed", only "taken", or "refused"."""
    if not ask.features.force_length:
        return "refused"
    page = await ask.chat("Say yes.", FORCED, ignore_eos=True, min_tokens=FORCED)
    return "obeyed" if usage_of(page).get("completion_tokens") == FORCED else "taken"


async def responses_api(ask: Ask) -> bool | None:
    page = await ask.post("responses", {"input": "Say hello.", "max_output_tokens": 16})
    return answers(page, "output" in page.plain)


async def completions_api(ask: Ask) -> bool | None:
    page = await ask.post("completions", {"prompt": "Hello", "max_tokens": 4})
    return answers(page, "choices" in page.plain)


async def metrics(ask: Ask) -> dict[str, Any] | None:
    """The server's Prometheus page; None where there is none."""
    base = urllib.parse.urlsplit(ask.endpoint.url)
    for path in ("/metrics", "/prometheus/metrics"):
        url = f"{base.scheme}://{base.netloc}{path}"
        page = await ask.get(url)
        text = page.body.decode("utf-8", "replace")
        families = [line.split(" ")[2] for line in text.splitlines() if line.startswith("# TYPE ") and page.ok]
        if families:
            whose = [name for prefix, name in DIALECTS.items() if any(each.startswith(prefix) for each in families)]
            return {"url": url, "families": len(families), "dialect": ", ".join(whose) or "unknown"}
    return None


def is_limit(name: str) -> bool:
    """Whether a header (lower case) says how much may be asked for."""
    return "ratelimit" in name or name.startswith("retry-after")


def to_text(found: dict[str, Any]) -> str:
    """What `probe_endpoint` found, as lines for people."""
    counted, seen = found["calibration"], found["metrics"]
    names = {True: "yes", False: "no", None: "not known"}
    thought = found["reasoning"]
    rows = {
        "endpoint": found["url"] + (" (simulated)" if found["simulated"] else ""),
        "server": found["server"] or "not known",
        "model": found["model"] + several(found["models"], found["model"]),
        "context length": f"{found['context_length']:,} tokens" if found["context_length"] else "not known",
        "network round trip": in_ms(found["round_trip"]),
        "time to first token": f"{in_ms(found['ttft'])} (median of the calibration calls)",
        "streaming": names[found["streaming"]],
        "usage in a stream": found["stream_usage"] or "not known",
        "without streaming": names[found["not_streaming"]],
        "cached tokens": "not reported" if found["cached_tokens"] is None else
        f"reported; {found['cached_tokens']} of a prompt sent twice",
        "reasoning": f"{thought['field'] or 'none seen'}{', counted by usage' if thought['counted'] else ''}",
        "tools": names[found["tools"]] + (", called" if found["called_tools"] else ""),
        "parallel tools": names[found["parallel_tools"]],
        "ignore_eos, min_tokens": found["forced_length"],
        "limit of the reply": found["max_tokens_field"],
        "Responses API": names[found["responses_api"]],
        "completions API": names[found["completions_api"]],
        "metrics": f"{seen['dialect']}, {seen['families']} families at {seen['url']}" if seen else "none",
        "rate limits": ", ".join(f"{k}: {v}" for k, v in found["rate_limits"].items()) or "none stated",
        "tokens per word": f"{counted['per_word']:.3f}, message {counted['per_message']:.1f}, "
        f"request {counted['per_request']:.1f}" if counted["counted"] else "not counted",
    }  # fmt: skip
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def several(models: list[str], chosen: str) -> str:
    others = [name for name in models if name != chosen]
    return f" (and {len(others)} more: {', '.join(others[:4])}{', …' if len(others) > 4 else ''})" if others else ""


def in_ms(seconds: float | None) -> str:
    return "not known" if seconds is None else f"{seconds * 1e3:.3g} ms"
