"""What the wire client records is when it happened: held against the log of a server in another process."""

import asyncio
import json
import time
import urllib.request

import numpy as np
import uvloop

from agentload.null import null_server
from agents.chain import Chat, Context, Message
from agents.endpoint import Endpoint, Features, Place
from agents.text import Encoder
from agents.wire import Wire
from benchmarks.accuracy import measure
from collectors.records import Call


def test_first_and_last_tokens_are_recorded_when_the_server_wrote_them() -> None:
    found = measure(streams=50, seconds=1.5, prompt=100)

    assert found["answered"] == found["calls"] > 50
    for error in (found["first_error_ms"], found["last_error_ms"]):
        assert error["p0"] >= 0  # nothing is seen before it was written: the clocks are one
        assert error["p50"] < 2
    assert abs(found["ttft_ms"]["p50"] - 200) < 5


def test_a_very_long_context_is_sent_whole_while_others_go_on() -> None:
    records: list[Call] = []

    async def load(url: str) -> None:
        wire = Wire(Endpoint(url=url, model="null"), Features(), Encoder(), time.perf_counter, "run")

        async def talk(session: int, context: Context, steps: int) -> None:
            for step in range(steps):
                place = Place(session, "", "fixed", step, 0, time.perf_counter())
                await wire.send(Chat(context, 4), place, records.append)
                context.append(Message("user", 5, text="go on"))

        await talk(0, Context([Message("user", 9, key=1)]), 1)
        long = Context([Message("user", 5_000, key=key) for key in range(100)])
        await asyncio.gather(
            talk(1, long, 3), *(talk(i, Context([Message("user", 9, key=i)]), 40) for i in range(2, 6))
        )
        assert sum(map(len, long.encoded)) > 2_000_000
        await wire.close()

    with null_server("--tokens", "4", "--itl", "0.005") as url:
        uvloop.run(load(url))
        with urllib.request.urlopen(url.replace("/v1", "/log")) as answer:
            log = json.load(answer)

    assert {r.status for r in records} == {"ok"}
    assert len(log) == len(records) == 1 + 3 + 4 * 40
    short = np.array([r.sent - r.due - r.connect for r in records if r.session > 1])
    assert np.percentile(short, 90) < 0.01
