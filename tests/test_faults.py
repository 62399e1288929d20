"""Load on endpoints that fail: every call ends in a record, agents back off and go on, and nothing is left behind."""

import asyncio
import contextlib
import os
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from threading import Thread

import pytest
import uvloop

from agentload.box.options import BoxOptions
from agentload.box.serve import BoxProcess
from agentload.session import Clock, Lane, World, run_agent
from agentload.spec import Retry
from agents.chain import Agent
from agents.endpoint import Endpoint, Features
from agents.text import Encoder
from collectors.records import Call, Session, Tool
from tests.cases import HELLO_SCRIPT
from tests.client_made import CLIENTS, call
from tests.faults import FAULTS, chain, flooded, server, wrong
from tests.fleet_made import HOUSE
from tests.test_client_tls import certificate, serving
from tests.torture import Torture

both = pytest.mark.parametrize("client", CLIENTS)


@pytest.fixture(scope="module")
def faults() -> Iterator[str]:
    with server() as url:
        yield url


@pytest.mark.parametrize(("client", "calls"), [("wire", 800), ("sdk", 200)])
def test_a_load_in_which_a_fifth_meets_faults_adds_up_and_leaves_nothing(client: str, calls: int, faults: str) -> None:
    """`make crash` has ten thousand calls of each client."""
    found = uvloop.run(flooded(client, faults, calls))

    assert not wrong(found), found
    assert found.begun >= calls
    assert found.met == min(len(FAULTS), -(-found.sessions // 5))
    assert found.statuses["ok"] > 0.7 * found.begun
    assert len(found.statuses) > 5


@both
def test_an_endpoint_that_flaps_is_called_again_when_it_is_back(client: str) -> None:
    """Up, down, and up on the same port, under six agents."""
    records: list[Call | Tool | Session] = []

    async def main() -> int:
        clock, begun, over, more = Clock(), 0, False, asyncio.Event()

        def begin() -> None:
            nonlocal begun
            begun += 1

        def emit(record: Call | Tool | Session) -> None:
            records.append(record)
            more.set()

        async def until_called(*, answered: bool) -> None:
            """Until five more calls have been answered, or have not."""
            before = len(calls(records, answered=answered))
            while len(calls(records, answered=answered)) < before + 5:
                more.clear()
                await more.wait()

        with Torture({"hello": HELLO_SCRIPT}) as torture:  # takes a port and gives it back
            url = torture.url("hello")
        door = CLIENTS[client](Endpoint(url=url, model="m"), Features(), Encoder(), clock.now, "run", itl=True)
        lane = Lane(door, Retry(attempts=3, first_seconds=0.05, jitter=False))
        world = World(lambda tenant, session: lane, clock, emit, seed=0, begin=begin)

        async def seat(number: int) -> None:
            while not over:
                await run_agent(Agent("fixed", chain()), number, "", clock.now(), world)
                number += 6

        async with asyncio.TaskGroup() as seats:
            for number in range(6):
                seats.create_task(seat(number))
            for _ in range(2):
                await until_called(answered=False)
                with Torture({"hello": HELLO_SCRIPT}, port=int(url.split(":")[2].split("/")[0])):
                    await until_called(answered=True)
            over = True
        await door.close()
        assert world.alive == world.in_flight == 0
        return begun

    begun = uvloop.run(main())

    assert len(calls(records)) == begun
    assert {record.status for record in calls(records)} <= {"ok", "connect_failed", "reset", "truncated"}
    assert {record.outcome for record in records if isinstance(record, Session)} <= {"done", "failed"}


def calls(records: list[Call | Tool | Session], *, answered: bool | None = None) -> list[Call]:
    """The calls among records: all, the answered ones or the others."""
    found = [record for record in records if isinstance(record, Call)]
    return [record for record in found if answered in (None, record.status == "ok")]


@both
def test_a_name_that_nobody_knows_is_a_status(client: str) -> None:
    records, _ = uvloop.run(call(client, Endpoint(url="http://no.such.host.invalid/v1", model="m")))

    assert [record.status for record in records] == ["connect_failed"]
    assert records[0].error


def agentload(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "agentload", *words], capture_output=True, text=True, cwd=HOUSE, check=False,
        env=os.environ | environment,
    )  # fmt: skip


def test_a_name_that_nobody_knows_is_bad_input_at_the_start(tmp_path: Path) -> None:
    ended = agentload("run", "--url", "http://no.such.host.invalid/v1", "--yes", "--out", str(tmp_path))

    assert ended.returncode == 2
    assert "cannot reach http://no.such.host.invalid/v1: " in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


TURNED_OFF = {
    "PYTHONHTTPSVERIFY": "0",
    "CURL_CA_BUNDLE": "",
    "REQUESTS_CA_BUNDLE": "",
    "NODE_TLS_REJECT_UNAUTHORIZED": "0",
}


def test_nothing_in_the_environment_turns_verification_off(tmp_path: Path) -> None:
    made = certificate(tmp_path, "own")
    code = (
        "import sys, uvloop; from tests.client_made import CLIENTS, call; from agents.endpoint import Endpoint\n"
        "for client in CLIENTS:\n"
        "    records, _ = uvloop.run(call(client, Endpoint(url=sys.argv[1], model='m')))\n"
        "    print(records[0].status)"
    )
    with serving(made) as torture:
        url = torture.url("hello")
        ended = agentload("run", "--url", url, "--out", str(tmp_path), **TURNED_OFF)
        said = subprocess.check_output(
            [sys.executable, "-c", code, url], env=os.environ | TURNED_OFF, text=True, cwd=HOUSE
        )

    assert ended.returncode == 2
    assert "self-signed certificate" in ended.stderr
    assert said.split() == ["connect_failed"] * 2
    assert not torture.log


@contextlib.contextmanager
def behind_tls(url: str, file: Path) -> Iterator[str]:
    """The same server behind a door with that certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    host, inside = url.split("/")[2].split(":")
    ready = Queue[tuple[int, Callable[[], object]]]()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, int(inside))
        await asyncio.gather(pipe(reader, back), pipe(there, writer))

    async def serve() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        front = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
        ready.put((front.sockets[0].getsockname()[1], lambda: loop.call_soon_threadsafe(stop.set)))
        await stop.wait()
        front.close()

    thread = Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    port, stop = ready.get()
    yield f"https://127.0.0.1:{port}/v1"
    stop()
    thread.join()


def test_a_run_trusts_the_authority_it_is_given(tmp_path: Path) -> None:
    good = certificate(tmp_path, "good")
    common = ("run", "--sessions", "2", "--agents", "2", "--archetype", "fixed", "--out", str(tmp_path))
    with BoxProcess(BoxOptions(speed=20.0)) as url, behind_tls(url, good) as https:
        for client in CLIENTS:
            trusted = agentload(*common, "--url", https, "--client", client, "--ca-file", str(good))
            assert trusted.returncode == 0, trusted.stderr
