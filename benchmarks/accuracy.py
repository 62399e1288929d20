"""How far the recorded first and last token lie from when the null server says it wrote them, by number of streams."""

import argparse
import asyncio
import gc
import json
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from agents.chain import Chat, Context, Message
from agents.endpoint import Endpoint, Features, Place
from agents.text import Encoder
from agents.wire import Wire
from benchmarks.sender import null_server
from collectors.records import Call

TTFT, ITL, TOKENS = 0.2, 0.02, 64


async def load(url: str, streams: int, seconds: float, prompt: int) -> list[Call]:
    """The records of that many streams that call again at once, their starts spread over the first answer's length."""
    records: list[Call] = []
    wire = Wire(Endpoint(url=url, model="null"), Features(), Encoder(), time.perf_counter, "run")
    answer = TTFT + TOKENS * ITL
    end = time.perf_counter() + seconds + answer

    async def agent(session: int) -> None:
        context = Context([Message("user", prompt, key=session)])
        await asyncio.sleep(answer * session / streams)
        step = 0
        while time.perf_counter() < end:
            place = Place(session, "", "fixed", step, 0, time.perf_counter())
            await wire.send(Chat(context, TOKENS), place, records.append)
            step += 1

    await asyncio.gather(*(agent(i) for i in range(streams)))
    await wire.close()
    return records


def measure(streams: int, seconds: float, prompt: int) -> dict[str, Any]:
    """Errors in seconds of the first and last token of every call, and what the run cost."""
    with null_server("--tokens", str(TOKENS), "--ttft", str(TTFT), "--itl", str(ITL)) as url:
        gc.collect()
        gc.freeze()
        start, cpu = time.perf_counter(), time.process_time()
        records = uvloop.run(load(url, streams, seconds, prompt))
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        gc.unfreeze()
        with urllib.request.urlopen(url.replace("/v1", "/log")) as answer:
            log: dict[str, list[float]] = json.load(answer)
    written = [log[f"run-{r.session}-{r.step}-0"] for r in records]
    first = np.array([r.first - t[0] for r, t in zip(records, written, strict=True) if r.first is not None])
    last = np.array([r.last - t[1] for r, t in zip(records, written, strict=True) if r.last is not None])
    ttft = np.array([r.first - r.sent for r in records if r.first is not None])
    return {
        "streams": streams,
        "prompt_tokens": prompt,
        "calls": len(records),
        "answered": sum(r.status == "ok" for r in records),
        "first_error_ms": {f"p{q}": float(np.percentile(first, q)) * 1e3 for q in (0, 50, 99)},
        "last_error_ms": {f"p{q}": float(np.percentile(last, q)) * 1e3 for q in (0, 50, 99)},
        "ttft_ms": {f"p{q}": float(np.percentile(ttft, q)) * 1e3 for q in (50, 99)},
        "cpu_share": cpu / wall,
        "us_per_token": cpu / len(records) / TOKENS * 1e6,
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--streams", type=int, nargs="+", default=[100, 500, 2000])
    options.add_argument("--seconds", type=float, default=10.0)
    options.add_argument("--prompt", type=int, default=100, help="tokens of the prompt")
    options.add_argument("--json", type=Path, help="write the figures there")
    given = options.parse_args()
    results = []
    print(f"{TOKENS} tokens, TTFT {TTFT * 1e3:.0f} ms, ITL {ITL * 1e3:.0f} ms; errors against the server's own log")
    for streams in given.streams:
        found = measure(streams, given.seconds, given.prompt)
        results.append(found)
        print(
            f"{streams:6} streams {found['calls']:7} calls, {found['calls'] - found['answered']} failed; "
            f"first p50 {found['first_error_ms']['p50']:.2f} p99 {found['first_error_ms']['p99']:.2f} ms, "
            f"last p50 {found['last_error_ms']['p50']:.2f} p99 {found['last_error_ms']['p99']:.2f} ms, "
            f"{found['us_per_token']:.1f} µs of CPU a token, {found['cpu_share']:.0%} of a core"
        )
    if given.json:
        given.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
