"""`agentload record`: clients of all kinds go through it and notice nothing; what they did can be replayed."""

import asyncio
import importlib.util
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from aiohttp import web
from msgspec import structs

from agentload import replaying
from agentload.box.options import BoxOptions
from agentload.box.serve import BoxProcess
from agentload.errors import BadInput
from agentload.record.proxy import Exchange, Proxy, served
from agentload.recording import Options, record
from agentload.simulation import simulate
from agentload.traces.analyse import timed
from agentload.traces.detect import read
from agentload.traces.graph import Call, Session, Tools
from agentload.traces.source import Complaints
from collectors.load import load_run

KEY = "sk-a-key-that-nobody-may-see"
SECRET = "Zanzibar"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "The weather.", "parameters": SCHEMA}}


@pytest.fixture(scope="module")
def box() -> Iterator[str]:
    with BoxProcess(BoxOptions(speed=50.0, sigma=0.0)) as url:
        yield url


@contextmanager
def recording(upstream: str, out: Path, *flags: str) -> Iterator[str]:
    """The base URL of a recorder that runs meanwhile, ended as by Ctrl-C."""
    command = [
        sys.executable,
        "-m",
        "agentload",
        "record",
        "--upstream",
        upstream,
        "--port",
        "0",
        "-o",
        str(out),
        *flags,
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        try:
            yield said.split("use ")[1].split()[0]
        finally:
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
        assert process.returncode == 0, errors
        assert errors == ""


def tool_loop(client: openai.OpenAI, task: str, steps: int, stream: bool) -> list[tuple[int, int]]:
    """An agent as people write it: the stock client, and a loop. Its input and output tokens, call by call."""
    messages: list[Any] = [
        {"role": "system", "content": f"You help. {'Be brief. ' * 100}"},
        {"role": "user", "content": task},
    ]
    used = []
    for _ in range(steps):
        common: dict[str, Any] = {"model": "box", "messages": messages, "tools": [TOOL], "max_tokens": 60}
        if stream:
            with client.chat.completions.create(
                **common, stream=True, stream_options={"include_usage": True}
            ) as events:
                calls, text, usage = {}, "", None
                for event in events:
                    usage = event.usage or usage
                    for choice in event.choices:
                        text += choice.delta.content or ""
                        for part in choice.delta.tool_calls or []:
                            call = calls.setdefault(part.index, {"id": part.id, "name": "", "arguments": ""})
                            call["name"] += part.function.name or ""
                            call["arguments"] += part.function.arguments or ""
                asked = [(c["id"], c["name"], c["arguments"]) for c in calls.values()]
        else:
            reply = client.chat.completions.create(**common)
            usage, message = reply.usage, reply.choices[0].message
            text = message.content or ""
            asked = [(c.id, c.function.name, c.function.arguments) for c in message.tool_calls or []]  # type: ignore[union-attr]
        used.append((usage.prompt_tokens, usage.completion_tokens))
        called = [
            {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
            for id, name, arguments in asked
        ]
        messages.append({"role": "assistant", "content": text or None} | ({"tool_calls": called} if called else {}))
        messages += [{"role": "tool", "tool_call_id": id, "content": f"{SECRET}: sunny " * 40} for id, _, _ in asked]
        if not asked:
            messages.append({"role": "user", "content": "Go on."})
    return used


def calls_of(session: Session) -> list[tuple[int, int]]:
    return [(one.call.input, one.call.output) for one in timed(session)]


def replayed(trace: Path, out: Path) -> list[list[tuple[int, int]]]:
    """What a replay of the trace asks for, session by session; in virtual time."""
    spec = structs.replace(replaying.resolve(trace, {}, {}), box=BoxOptions(sigma=0.0))
    folder, _ = simulate(spec, out)
    calls = load_run(folder).calls
    assert set(calls.status) == {"ok"}
    mine = [calls.where(calls.session == number) for number in range(int(calls.session.max()) + 1)]
    return [list(zip(c.input_tokens.tolist(), c.output_tokens.tolist(), strict=True)) for c in mine]


def test_a_tool_loop_of_the_openai_client_is_recorded_and_replays_alike(box: str, tmp_path: Path) -> None:
    out = tmp_path / "t.jsonl"
    with recording(box, out) as url, openai.OpenAI(base_url=url, api_key=KEY) as client:
        assert client.models.list().data[0].id == "box"
        wanted = [
            tool_loop(client, f"{SECRET} {task}", steps, stream)
            for task, steps, stream in (("one", 4, True), ("two", 3, False), ("three", 5, True))
        ]
    sessions = list(read(out, Complaints(fatal=True)))

    assert [calls_of(session) for session in sessions] == wanted
    assert replayed(out, tmp_path / "runs") == wanted
    steps = [step for session in sessions for step in session.root.steps]
    assert {tool.name for step in steps if isinstance(step, Tools) for tool in step.calls} == {"get_weather"}
    kept = [step.keep for step in sessions[0].root.steps if isinstance(step, Call)]
    assert kept == [0, *(size for size, _ in wanted[0][:-1])]
    assert out.stat().st_mode & 0o077 == 0
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["t.jsonl"]
    assert not any(word in out.read_text() for word in (KEY, SECRET, "Be brief"))


def test_text_is_kept_where_it_is_asked_for_and_keys_never(box: str, tmp_path: Path) -> None:
    out = tmp_path / "t.jsonl"
    with recording(box, out, "--text") as url, openai.OpenAI(base_url=url, api_key=KEY) as client:
        tool_loop(client, "one", 2, stream=True)
        client.responses.create(model="box", input=f"Say {SECRET}", max_output_tokens=20)
        client.completions.create(model="box", prompt=f"Say {SECRET}", max_tokens=20)
    lines = (tmp_path / "t.text.jsonl").read_text().splitlines()

    assert [json.loads(line)["api"] for line in lines] == ["chat/completions"] * 2 + ["responses", "completions"]
    assert SECRET in "".join(lines) and KEY not in "".join(lines)
    assert len(list(read(out, Complaints(fatal=True)))) == 3


def test_what_cannot_be_recorded_is_said_before_anything_listens(tmp_path: Path) -> None:
    (tmp_path / "there.jsonl").touch()
    for options, says in (
        (Options("ftp://x/v1"), "--upstream must be a URL like"),
        (Options("http://user:word@x/v1"), "must not hold a password"),
        (Options("http://x/v1", out=str(tmp_path / "there.jsonl")), "exists; name another file with -o"),
    ):
        with pytest.raises(BadInput, match=says):
            record(options, print)


# The proxy itself, on this loop, before an upstream that tells what it saw.


class Upstream:
    """Answers as told, and remembers what came."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.hung_up = asyncio.Event()
        self.url = ""

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.seen.append((request.method, request.raw_path, dict(request.headers), await request.read()))
        if "slow" not in request.path:
            return web.json_response({"data": []}, headers={"X-Own": "1", "Set-Cookie": "a=b"})
        reply = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await reply.prepare(request)
        try:
            while True:
                await reply.write(b": wait\n\n")
                await asyncio.sleep(0.01)
        except (asyncio.CancelledError, ConnectionError):
            self.hung_up.set()
            raise


@asynccontextmanager
async def both(path: str = "/v1", largest: int = 10_000) -> AsyncIterator[tuple[Upstream, str, list[Any]]]:
    upstream = Upstream()
    runner = web.ServerRunner(web.Server(upstream.answer, handler_cancellation=True), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    upstream.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    noted: list[Any] = []
    proxy = Proxy(upstream.url + path, noted.append, noted.append, largest)
    async with served(proxy, "127.0.0.1", 0) as url:
        yield upstream, url, noted
    await runner.cleanup()


async def raw(url: str, head: str, body: bytes = b"") -> bytes:
    """Bytes to the proxy, and what comes back until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.split(":")[2].split("/")[0]))
    writer.write(head.replace("\n", "\r\n").encode() + b"\r\n" + body)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer


def alone(test: Callable[[], Any]) -> None:
    asyncio.run(test())


def test_everything_else_goes_through_to_the_upstream_alone() -> None:
    async def main() -> None:
        async with both("/openai/v1?api-version=3") as (upstream, url, noted), aiohttp.ClientSession() as client:
            headers = {"Authorization": f"Bearer {KEY}", "X-Mine": "1", "Connection": "X-Hop", "X-Hop": "1"}
            async with client.get(f"{url}/models?a=%20b", headers=headers) as reply:
                assert (reply.status, reply.headers["X-Own"]) == (200, "1")
            async with client.get(url.removesuffix("/v1") + "/health") as reply:
                assert reply.status == 200
            async with client.post(f"{url}/embeddings", json={"input": "x"}) as reply:
                assert await reply.json() == {"data": []}
        (_, first, sent, _), (_, second, _, _), (method, third, _, body) = upstream.seen
        assert (first, second) == ("/openai/v1/models?api-version=3&a=%20b", "/health?api-version=3")
        assert (method, third, body) == ("POST", "/openai/v1/embeddings?api-version=3", b'{"input": "x"}')
        assert sent["Authorization"] == f"Bearer {KEY}" and sent["X-Mine"] == "1"
        assert "X-Hop" not in sent and sent["Host"] == upstream.url.removeprefix("http://")
        assert noted == []

    alone(main)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET http://example.com/v1/models HTTP/1.1\nHost: example.com\nConnection: close\n", 400),
        ("GET /v1/models HTTP/1.1\nHost: evil.example:80\nConnection: close\n", 421),
        ("GET /v1/models HTTP/1.1\nHost: 10.0.0.7\nConnection: close\n", 421),
        ("GET /v1/../admin HTTP/1.1\nHost: localhost\nConnection: close\n", 400),
        ("GET /v1/%2E%2e/admin HTTP/1.1\nHost: localhost\nConnection: close\n", 400),
        ("CONNECT example.com:443 HTTP/1.1\nHost: localhost\nConnection: close\n", 400),
        ("POST /v1/chat/completions HTTP/1.1\nHost: localhost\nContent-Length: 999999\nConnection: close\n", 413),
    ],
)
def test_it_is_no_proxy_for_others(head: str, status: int) -> None:
    async def main() -> None:
        async with both() as (upstream, url, _):
            answer = await raw(url, head)
            assert answer.startswith(f"HTTP/1.1 {status} ".encode()) or (status == 400 and b" 400 " in answer[:20])
            assert upstream.seen == []

    alone(main)


def test_a_body_in_chunks_is_limited_too() -> None:
    async def main() -> None:
        async def endless() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield b"x" * 1_000

        async with both() as (upstream, url, _), aiohttp.ClientSession() as client:
            async with client.post(f"{url}/chat/completions", data=endless()) as reply:
                assert reply.status == 413
            assert upstream.seen == []

    alone(main)


def test_a_client_that_hangs_up_is_seen_by_the_upstream() -> None:
    async def main() -> None:
        async with both() as (upstream, url, noted), aiohttp.ClientSession() as client:
            reply = await client.post(f"{url}/slow/chat/completions", json={"messages": []})
            assert await reply.content.readexactly(8) == b": wait\n\n"
            reply.close()
            await asyncio.wait_for(upstream.hung_up.wait(), 5)
            assert noted == []

    alone(main)


def test_an_upstream_that_is_not_there_is_a_502() -> None:
    async def main() -> None:
        noted: list[Any] = []
        async with (
            served(Proxy("http://127.0.0.1:9/v1", noted.append, noted.append, 10), "127.0.0.1", 0) as url,
            aiohttp.ClientSession() as client,
            client.get(f"{url}/models") as reply,
        ):
            assert reply.status == 502
            assert "cannot be reached" in (await reply.json())["error"]["message"]
        assert noted == [502]

    alone(main)


def test_what_was_heard_has_the_session_that_a_header_names() -> None:
    async def main() -> None:
        async with both() as (_, url, noted), aiohttp.ClientSession() as client:
            for headers in ({"X-Session-Id": "mine"}, {}):
                async with client.post(f"{url}/chat/completions", json={"messages": []}, headers=headers) as reply:
                    await reply.read()
        assert [type(each) for each in noted] == [Exchange, Exchange]
        assert [each.session for each in noted] == ["mine", ""]

    alone(main)


@pytest.mark.skipif(
    not importlib.util.find_spec("pydantic_ai"), reason="pydantic-ai (a public agent framework) is not installed"
)
def test_agents_of_a_public_framework_are_recorded_and_replay_alike(box: str, tmp_path: Path) -> None:
    """Two agents of pydantic-ai with a tool, which call until the model answers without one."""
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    def get_weather(city: str = "") -> str:
        """The weather in a city."""
        return f"{SECRET}: sunny " * 40

    async def work(url: str) -> list[list[tuple[int, int]]]:
        used = []
        async with openai.AsyncOpenAI(base_url=url, api_key=KEY) as client:
            model = OpenAIChatModel("box", provider=OpenAIProvider(openai_client=client))
            for task in ("one", "two"):
                agent = Agent(model, system_prompt=f"You help. {'Be brief. ' * 50}", retries=20, tools=[get_weather])
                messages = (await agent.run(f"{SECRET} {task}")).all_messages()
                used.append([(m.usage.input_tokens, m.usage.output_tokens) for m in messages if m.kind == "response"])
        return used

    out = tmp_path / "t.jsonl"
    with recording(box, out) as url:
        wanted = asyncio.run(work(url))
    sessions = list(read(out, Complaints(fatal=True)))

    assert sum(map(len, wanted)) > 2
    assert [calls_of(session) for session in sessions] == wanted
    assert replayed(out, tmp_path / "runs") == wanted
