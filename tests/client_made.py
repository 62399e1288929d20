"""What the tests of the clients share: one call, with either client."""

import asyncio
import time
from collections.abc import Callable

from agents.chain import Chat, Context, Message, Reply
from agents.endpoint import Client, Endpoint, Features, Place
from agents.sdk import Sdk
from agents.text import Encoder
from agents.wire import Wire
from collectors.records import Call

CLIENTS: dict[str, Callable[..., Client]] = {"wire": Wire, "sdk": Sdk}


def chat(max_tokens: int = 16) -> Chat:
    return Chat(Context([Message("user", 7, text="Say hello to the wörld, please.")]), max_tokens)


def place(step: int = 0) -> Place:
    return Place(session=3, agent="0.1", archetype="fixed", step=step, attempt=0, due=time.perf_counter())


async def call(client: str, endpoint: Endpoint, times: int = 1, pause: float = 0.0) -> tuple[list[Call], Reply]:
    """Make calls one after the other on a client of their own; return their records and the last reply."""
    records: list[Call] = []
    door = CLIENTS[client](endpoint, Features(), Encoder(), time.perf_counter, "run", itl=True)
    try:
        for step in range(times):
            reply = await door.send(chat(), place(step), records.append)
            await asyncio.sleep(pause)
    finally:
        await door.close()
    return records, reply
