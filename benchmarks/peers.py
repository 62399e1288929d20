"""The same load by others: the stock `openai` client in a plain asyncio loop, and Locust's own `contrib.oai` user.

Each runs in a process of its own. Locust's user cannot stream, so our call without streaming is put beside it.
"""

import importlib.util
import os
import subprocess
import sys

from agentload.null import null_server
from benchmarks.command import fixed, run
from benchmarks.rows import Row

TOKENS = 64
SDK = """
import asyncio, json, sys, time
from openai import AsyncOpenAI
url, agents, calls, tokens = sys.argv[1], *map(int, sys.argv[2:5])

async def agent(client, calls):
    for _ in range(calls):
        stream = await client.chat.completions.create(model="null", max_tokens=tokens, stream=True,
            stream_options={"include_usage": True}, messages=[{"role": "user", "content": "word " * 100}])
        async for chunk in stream:
            pass

async def main():
    client = AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
    await asyncio.gather(*(agent(client, 1) for _ in range(agents)))
    start = time.process_time()
    await asyncio.gather(*(agent(client, calls) for _ in range(agents)))
    print((time.process_time() - start) / (agents * calls))

asyncio.run(main())
"""
LOCUST = """
import os, sys, time
import gevent
from locust import task
from locust.contrib.oai import OpenAIUser
from locust.env import Environment
url, agents, calls, tokens = sys.argv[1], *map(int, sys.argv[2:5])
made = 0

class Agent(OpenAIUser):
    def __init__(self, environment):
        super().__init__(environment)
        self.client.base_url = url

    @task
    def ask(self):
        global made
        self.client.chat.completions.create(model="null", max_tokens=tokens,
            messages=[{"role": "user", "content": "word " * 100}])
        made += 1

environment = Environment(user_classes=[Agent])
environment.create_local_runner().start(agents, spawn_rate=agents)
while made < agents:
    gevent.sleep(0.01)
before, start = made, time.process_time()
while made < agents * calls:
    gevent.sleep(0.01)
print((time.process_time() - start) / (made - before), flush=True)
os._exit(0)  # its users would go on
"""


def cost(script: str, *options: str, agents: int, calls: int) -> float:
    """Seconds of CPU for a call, by a script that prints them."""
    with null_server(*options) as url:
        command = [sys.executable, "-c", script, url, str(agents), str(calls), str(TOKENS)]
        environment = os.environ | {"OPENAI_API_KEY": "none"}
        said = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=60)
    return float(said.stdout)


def section() -> list[Row]:
    sdk = cost(SDK, "--itl", "0.01", agents=20, calls=3) / TOKENS
    rows = [Row("peers", "stock openai SDK alone, CPU per token, 20 streams", sdk * 1e6, "µs")]
    missing = [name for name in ("locust", "httpx") if importlib.util.find_spec(name) is None]
    if missing:
        what = "Locust contrib.oai, CPU per call, not streamed"
        return [*rows, Row("peers", what, None, "ms", note=f"not installed: {', '.join(missing)}")]
    locust = cost(LOCUST, "--ttft", "0.05", agents=20, calls=20)
    with null_server("--ttft", "0.05") as url:
        spec = f'[endpoint]\nurl = "{url}"\nstream = false\n[profile]\ntype = "held"\nagents = 20\n'
        spec = 'duration = 1\n[[population]]\narchetype = "fixed"\n' + spec
        short, long = (run(url, *fixed(20, length, TOKENS), spec=spec) for length in (1, 5))
    own = (long.cpu - short.cpu) / (len(long.answered) - len(short.answered))
    return [
        *rows,
        Row("peers", "Locust contrib.oai, CPU per call, not streamed", locust * 1e3, "ms"),
        Row("peers", "agentload run, CPU per call, not streamed", own * 1e3, "ms"),
    ]
