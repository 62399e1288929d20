"""Whatever a server does becomes one record with the right status, tokens and times, never a traceback or a hang."""

import asyncio
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import msgspec
import pytest
import uvloop

from agents.chain import Reply
from agents.endpoint import Endpoint
from collectors.records import Call
from tests.cases import WELL_FORMED, Case
from tests.cases_apis import API_BROKEN, API_WELL_FORMED
from tests.cases_broken import BROKEN
from tests.client_made import CLIENTS, call
from tests.torture import Torture

GOOD = WELL_FORMED | API_WELL_FORMED
CASES = GOOD | BROKEN | API_BROKEN
UNLIKE = {"due", "sent", "opened", "first", "last", "end", "connect", "chunks", "resent", "itl"}
"""Fields in which the records of the two clients may differ: their times, and what the SDK cannot see."""


@pytest.fixture(scope="module")
def server() -> Iterator[Torture]:
    with Torture({name: case.script for name, case in CASES.items()}) as torture:
        yield torture


class Made(NamedTuple):
    """One torture case as one client saw it, and when the server first wrote."""

    record: Call
    reply: Reply
    written: float | None


@pytest.fixture(scope="module")
def made(server: Torture) -> dict[tuple[str, str], Made]:
    """Every case as every client saw it."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AGENTLOAD_TEST_KEY", "a-secret-key")
        return {
            (client, name): made for client in CLIENTS for name, made in uvloop.run(make_all(client, server)).items()
        }


async def make_all(client: str, server: Torture) -> dict[str, Made]:
    few = asyncio.Semaphore(4)  # together, since many of them wait; not too many, since times are looked at

    async def make(name: str, case: Case) -> Made:
        endpoint = Endpoint(
            url=server.url(name),
            model="m",
            api=case.api,
            stream=case.stream,
            timeouts=case.limits,
            api_key_env="AGENTLOAD_TEST_KEY",
        )
        async with few:
            records, reply = await call(client, endpoint)
        assert len(records) == 1
        (exchange,) = [e for e in server.log if e.path.split("/")[1] == name and e.client == client]
        return Made(records[0], reply, exchange.writes[0][0] if exchange.writes else None)

    return dict(zip(CASES, await asyncio.gather(*(make(*case) for case in CASES.items())), strict=True))


def wanted(client: str, case: Case) -> dict[str, object]:
    return case.call | (case.sdk or {}) if client == "sdk" else case.call


AllMade: TypeAlias = dict[tuple[str, str], Made]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_torture_case_is_recorded_as_what_it_is(client: str, name: str, made: AllMade) -> None:
    case = CASES[name]

    record, reply, _ = made[client, name]

    got = msgspec.structs.asdict(record)
    assert {field: got[field] for field in wanted(client, case)} == wanted(client, case), record.error
    said = msgspec.structs.asdict(reply) | {"tools": [(t.id, t.name, t.arguments) for t in reply.tool_calls]}
    assert {field: said[field] for field in case.reply} == case.reply
    assert reply.status == record.status


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("client", CLIENTS)
def test_the_times_of_a_torture_case_are_in_order_and_not_before_the_server_wrote(
    client: str, name: str, made: AllMade
) -> None:
    record, _, written = made[client, name]

    times = [record.due, record.sent, record.opened, record.first, record.last, record.end]
    known = [t for t in times if t is not None]
    assert known == sorted(known)
    assert (record.first is None) == (record.last is None) == (record.chunks == 0)
    assert len(record.itl or ()) == max(0, record.chunks - 1)
    if record.opened is not None:
        assert written is not None
        assert written < record.opened
    limits = CASES[name].limits
    if record.status == "timeout_call":
        assert limits.call <= record.end - record.sent < limits.call + 0.2
    if record.status == "timeout_first":
        assert limits.first_token <= record.end - record.sent < limits.first_token + 0.2
    if record.status == "timeout_gap":
        assert record.last is not None
        assert limits.between_tokens <= record.end - record.last < limits.between_tokens + 0.2


@pytest.mark.parametrize("name", GOOD)
def test_both_clients_write_the_same_record_of_a_good_answer(name: str, made: AllMade) -> None:
    wire, wire_reply, _ = made["wire", name]
    sdk, sdk_reply, _ = made["sdk", name]

    alike = [field for field in wire.__struct_fields__ if field not in UNLIKE]
    assert {f: getattr(wire, f) for f in alike} == {f: getattr(sdk, f) for f in alike}
    assert wire_reply == sdk_reply
