"""Agents that hang up on a call: the server sees it, the ledger counts it, what follows is as the archetype says."""

import asyncio
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest import approx

from agentload.box.options import BoxOptions
from agentload.box.serve import serve
from agents.chain import Chain, Chat, Context, HangUp, Message, Outcome
from agents.endpoint import Endpoint, Features
from agents.text import Encoder
from collectors.habits import habits
from collectors.ledger import ledger
from collectors.load import Run
from collectors.records import Call
from collectors.report import write_report
from tests.client_made import CLIENTS, place
from tests.test_sessions import calls, drive, session
from tests.test_simulate import virtual

GIVEN_UP = [
    (HangUp(first_token=0.02), True, (0, 0)),  # the first token takes 0.05 s and more
    (HangUp(call=0.4), True, (10, 60)),  # a token every 0.012 s
    (HangUp(tokens=8), True, (8, 40)),
    (HangUp(first_token=0.3), False, (10, 60)),  # not streamed: nothing is seen before the end
]


@pytest.mark.parametrize("client", ["wire", "sdk"])
@pytest.mark.parametrize(("hang_up", "stream", "made"), GIVEN_UP)
def test_the_server_sees_that_the_agent_hung_up(
    client: str, hang_up: HangUp, stream: bool, made: tuple[int, int], tmp_path: Path
) -> None:
    log, records = tmp_path / "box.log", list[Call]()

    async def main() -> None:
        stop, url = asyncio.Event(), asyncio.get_running_loop().create_future()
        box = asyncio.create_task(serve(BoxOptions(port=0, sigma=0.0, log=str(log)), url.set_result, stop))
        endpoint = Endpoint(await url, "box", stream=stream)
        door = CLIENTS[client](endpoint, Features(), Encoder(), time.perf_counter, "run", itl=False)
        chat = Chat(Context([Message("user", 300, key=1)]), 200, exact=True, hang_up=hang_up)
        reply = await door.send(chat, place(), records.append)
        assert (reply.status, reply.ending) == ("gave_up", "abandoned")
        await asyncio.sleep(0.3)  # a token every 0.012 s, were the server still at work
        await door.close()
        stop.set()
        await box

    asyncio.run(main())
    (seen,) = [json.loads(line) for line in log.read_text().splitlines()]
    (call,) = records

    assert call.status == "gave_up"
    assert seen["status"] == "abort"
    assert made[0] <= seen["output_tokens"] <= made[1]
    if stream and made[0]:
        assert call.usage == "estimated"
        assert made[0] <= call.output_tokens
        assert call.chunks <= seen["output_tokens"]


def test_an_answer_that_is_complete_is_not_given_up() -> None:
    def chain() -> Chain:
        reply = yield Chat(Context([Message("user", 5)]), 2, hang_up=HangUp(tokens=2))
        return Outcome(reply.status)

    records, _ = drive(chain())

    assert session(records).outcome == "ok"


@pytest.mark.parametrize("again", [0, 2])
def test_an_agent_asks_again_as_often_as_it_likes_and_at_once(again: int) -> None:
    def chain() -> Chain:
        reply = yield Chat(Context([Message("user", 5)]), 2, hang_up=HangUp(call=9.0, again=again))
        return Outcome("done" if reply.ok else reply.ending)

    records, _ = drive(chain(), statuses=("gave_up",) * (again + 1))
    made = calls(records)

    assert [c.attempt for c in made] == list(range(again + 1))
    assert all(b.due - a.end < 0.01 for a, b in itertools.pairwise(made))
    assert (session(records).outcome, session(records).error) == ("abandoned", "gave_up")


def impatient(tmp_path: Path, patience: dict[str, Any], **plain: Any) -> Run:
    kind = {"output_tokens": 100, "steps": 2, "patience": patience}
    return virtual(tmp_path, archetypes={"fixed": kind}, **{"sessions": 1} | plain)


def test_patience_is_the_same_in_virtual_time(tmp_path: Path) -> None:
    first = impatient(tmp_path / "a", {"first_token": 0.01, "again": 1}).calls
    whole = impatient(tmp_path / "b", {"call": 0.5}).calls
    tokens = impatient(tmp_path / "c", {"tokens": 30}).calls
    unseen = impatient(tmp_path / "d", {"first_token": 0.5}, endpoint={"stream": False}).calls
    patient = impatient(tmp_path / "e", {"first_token": 5.0, "call": 60.0, "tokens": 100})

    assert (first.status.tolist(), first.attempt.tolist()) == (["gave_up"] * 2, [0, 1])
    assert (first.end - first.sent).tolist() == approx([0.01] * 2)
    assert np.isnan(first.first).all()
    assert (whole.end - whole.sent)[0] == approx(0.5)
    assert 20 < whole.output_tokens[0] < 60
    assert tokens.output_tokens.tolist() == [30]
    assert (unseen.end - unseen.sent)[0] == approx(0.5)
    assert patient.calls.status.tolist() == ["ok", "ok"]
    assert patient.sessions.outcome.tolist() == ["done"]


def test_what_was_given_up_is_wasted_and_said(tmp_path: Path) -> None:
    patience = {"tokens": {"type": "mixture", "parts": [30, 1_000], "weights": [1, 3]}}
    run = impatient(tmp_path, patience, sessions=40, profile={"type": "held", "agents": 5})
    gone = run.calls.status == "gave_up"
    wasted = ledger(run.calls, run.sessions)["wasted_by"]
    page = write_report(next(tmp_path.iterdir()))
    said = json.loads((page.parent / "summary.json").read_text())["habits"]["patience"]

    assert 0.1 < gone.mean() < 0.5
    assert wasted["failed_calls"] == (run.calls.input_tokens + run.calls.output_tokens)[gone].sum() == said["tokens"]
    assert said["gave_up"] == said["abandoned"] == gone.sum() == (run.sessions.outcome == "abandoned").sum()
    assert "calls that agents gave up on" in page.read_text()
    assert "gave_up" in page.read_text()


@pytest.mark.parametrize(("again", "recovers"), [(0, True), (50, False)])
def test_impatience_can_keep_a_cluster_down_after_what_overloaded_it_has_gone(
    again: int, recovers: bool, tmp_path: Path
) -> None:
    """A metastable failure (Bronson et al., HotOS 2021): three calls a second where five can be served, and sixty at
    once at the start. Each waits four seconds and then hangs up. If it asks again, every call is begun when its agent
    is about to give up, and nothing is ever answered; the cluster works only for the waste."""
    profile = {"type": "sum", "parts": [{"type": "constant", "rate": 3.0}, {"type": "recorded", "times": [0.0] * 60}]}
    kind = {"output_tokens": 128, "task_tokens": 200, "patience": {"call": 4.0, "again": again}}
    run = virtual(tmp_path, duration=90.0, drain=0.0, profile=profile, archetypes={"fixed": kind}, box={"seats": 8})
    late = run.calls.where(run.calls.end >= 60.0)
    answered = (late.status == "ok").sum() / 30.0

    assert answered == approx(3.0, abs=0.1) if recovers else answered == 0.0
    waste = habits(run)
    assert (waste["retries"]["attempts_per_call"] > 5) != recovers
    assert waste["patience"]["gave_up"] > 20
