"""Every way in which a server fails, mixed into a load: a fifth of the sessions meet one of the torture cases each.

The load is what a run is made of, `agentload.session` and a real client; the server runs in a process of its own, so
that memory and open files here are the client's: `python -m tests.faults` writes its port, and ends when stdin does.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from agentload.session import Clock, Lane, World, run_agent
from agentload.spec import Retry
from agents.chain import Agent, Chain, Chat, Context, Message, Outcome
from agents.endpoint import Client, Endpoint, Features
from agents.text import Encoder
from collectors.records import Call, Session, Tool
from tests.cases import HELLO_SCRIPT, Case
from tests.cases_apis import API_BROKEN
from tests.cases_broken import BROKEN
from tests.client_made import CLIENTS
from tests.fleet_made import HOUSE
from tests.torture import Torture

SHARE = 5
"""Every so manyth session meets a fault."""
MOST_GROWN = 4_000_000
"""Bytes of memory in the second half of a load."""
STEPS = 4
AGENTS = 32
SLOW = {"limited_seconds", "limited_date"}  # Retry-After asks for seconds: that they are kept is another test's
FAULTS = {name: case for name, case in (BROKEN | API_BROKEN).items() if name not in SLOW}


class Flood(NamedTuple):
    """What came of a load with faults in it."""

    begun: int  # calls
    statuses: Counter[str]
    sessions: int
    outcomes: Counter[str]
    met: int  # faults of different kinds
    tasks: int  # left
    in_flight: int
    files: int  # more than before
    grown_bytes: int  # of memory, in the second half


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The URL of a torture server in a process of its own, without the name of a script."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HOUSE
    )
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.communicate()


def chain() -> Chain:
    """A few calls, whatever becomes of them."""
    context, outcome = Context([Message("user", 7, text="Say hello to the wörld, please.")]), "done"
    for _ in range(STEPS):
        reply = yield Chat(context, 16)
        outcome = "done" if reply.ok else "failed"
    return Outcome(outcome)


async def flood(client: str, url: str, calls: int) -> Flood:
    """That many calls and more, until the last session has ended."""
    clock, encoder, good = Clock(), Encoder(), Case(HELLO_SCRIPT)
    names = np.random.default_rng(0).permutation(list(FAULTS)).tolist()  # so that a short load meets all kinds, too
    clients, statuses, outcomes, begun = dict[str, Client](), Counter[str](), Counter[str](), 0
    half = resident()

    def emit(record: Call | Tool | Session) -> None:
        if isinstance(record, Call):
            statuses[record.status] += 1
        elif isinstance(record, Session):
            outcomes[record.outcome] += 1

    def begin() -> None:
        nonlocal begun, half
        begun += 1
        if begun == calls // 2:
            half = resident()

    def lane_of(_: int, session: int) -> Lane:
        turn, rest = divmod(session, SHARE)
        name = "hello" if rest else names[turn % len(names)]
        if name not in clients:
            case = FAULTS.get(name, good)
            endpoint = Endpoint(
                url=f"{url}/{name}/v1", model="m", api=case.api, stream=case.stream, timeouts=case.limits
            )
            clients[name] = CLIENTS[client](endpoint, Features(), encoder, clock.now, "run", itl=True)
        return Lane(clients[name], Retry(attempts=2, first_seconds=0.01, longest_seconds=0.02))

    world = World(lane_of, clock, emit, seed=0, begin=begin)
    sessions, files = 0, open_files()

    async def seat() -> None:
        nonlocal sessions
        while begun < calls:
            number, sessions = sessions, sessions + 1
            await run_agent(Agent("fixed", chain()), number, "", clock.now(), world)

    async with asyncio.TaskGroup() as seats:
        for _ in range(AGENTS):
            seats.create_task(seat())
    grown = resident() - half
    for each in clients.values():
        await each.close()
    await asyncio.sleep(0.1)
    left = len(asyncio.all_tasks()) - 1, world.in_flight, open_files() - files
    return Flood(begun, statuses, sessions, outcomes, len(clients) - 1, *left, grown)


async def flooded(client: str, url: str, calls: int) -> Flood:
    """The same once a few calls have opened what stays open."""
    await flood(client, url, 8)
    return await flood(client, url, calls)


def wrong(found: Flood) -> str:
    """What does not add up; "" is survival."""
    said = [
        (found.statuses.total() != found.begun, f"{found.begun} calls were begun, {found.statuses.total()} ended"),
        (found.outcomes.total() != found.sessions, f"{found.sessions} sessions, {found.outcomes.total()} ended"),
        (found.tasks > 0, f"{found.tasks} tasks are left"),
        (found.in_flight > 0, f"{found.in_flight} calls are in flight"),
        (found.files > 0, f"{found.files} files are open"),
        (found.grown_bytes > MOST_GROWN, f"memory grew by {found.grown_bytes / 1e6:.1f} MB in the second half"),
    ]
    return "; ".join(text for broken, text in said if broken)


def serve() -> None:
    """The server's process."""
    scripts = {name: case.script for name, case in FAULTS.items()} | {"hello": HELLO_SCRIPT}
    with Torture(scripts) as torture:
        sys.stdout.write(torture.url("").split(":")[2].split("/")[0] + "\n")
        sys.stdout.flush()
        while os.read(0, 64):
            pass


if __name__ == "__main__":
    serve()
