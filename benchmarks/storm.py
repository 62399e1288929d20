"""Asks a real vLLM with a tiny cache for more than it holds, and counts what it preempts: `benchmarks.silicon` has the
box do the same.

    python -m benchmarks.storm http://127.0.0.1:8861/v1 MODEL --shared 4

The server must have blocks of 128 tokens, few of them, and 32 seats: vLLM on a CPU with `--num-gpu-blocks-override 66
--max-num-seqs 32 --max-num-batched-tokens 2048`. Nobody else may ask it meanwhile.
"""

import argparse
import asyncio
import time
import urllib.request
from collections.abc import Iterable

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

BLOCK, PROMPT, OUTPUT, STREAMS = 128, 607, 600, 96
COUNTED = ("num_preemptions", "request_success", "prefix_cache_hits", "prefix_cache_queries")


def prompt(stream: int, shared: int, salt: int) -> list[int]:
    """Tokens of a prompt whose first `shared` blocks are those of all the others; another salt shares none of them."""
    common = [100 + (7 * i + salt) % 800 for i in range(BLOCK * shared)]
    own = [100 + (131 * stream + 17 * i + i * stream % 97 + 13 * salt) % 800 for i in range(PROMPT - len(common))]
    return [*common, 100 + stream, 100 + salt, *own[2:]]


def counters(root: str) -> dict[str, float]:
    """What the server has counted so far."""
    page = urllib.request.urlopen(f"{root}/metrics", timeout=10).read().decode()  # noqa: S310  # the URL that was given
    totals: dict[str, float] = {}
    for family in text_string_to_metric_families(page):
        values: Iterable[float] = (sample.value for sample in family.samples if sample.name.endswith("_total"))
        totals[family.name.removeprefix("vllm:")] = sum(values)
    return {name: totals[name] for name in COUNTED}


async def ask(url: str, model: str, shared: int, salt: int) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one(stream: int) -> None:
            body = {"model": model, "prompt": prompt(stream, shared, salt), "max_tokens": OUTPUT, "ignore_eos": True}
            async with session.post(f"{url}/completions", json=body) as answer:
                answer.raise_for_status()
                await answer.read()

        await asyncio.gather(*(one(stream) for stream in range(STREAMS)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="base URL, with /v1")
    parser.add_argument("model")
    parser.add_argument("--shared", type=int, default=0, help="blocks that all prompts begin with")
    given = parser.parse_args()
    root = given.url.removesuffix("/v1")
    before = counters(root)
    asyncio.run(ask(given.url, given.model, given.shared, int(time.time()) % 600))
    time.sleep(3)  # preemptions are counted up to two seconds late
    for name, value in counters(root).items():
        print(f"{name}: {value - before[name]:,.0f}")


if __name__ == "__main__":
    main()
