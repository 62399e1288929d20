"""The channel between master and workers: nothing lost, nothing doubled, one clock."""

import random
import subprocess
import sys

import numpy as np
import pytest

from agentload.fleet.channel import Batch, Dealt, Gaps, Inbox, Outbox, State, offset, pack, unpack
from agentload.fleet.master import Member
from agentload.screen import Samples
from collectors.records import Call, Session, Tool
from tests.collect_made import made_run


def test_an_inbox_takes_every_number_once_whatever_comes_twice_or_out_of_order() -> None:
    numbers = [*range(200), *range(0, 200, 3)]
    random.Random(1).shuffle(numbers)
    inbox = Inbox()
    taken = [number for number in numbers if inbox.take(number)]

    assert sorted(taken) == list(range(200))
    assert (inbox.through, inbox.ahead) == (199, set())


def test_an_inbox_is_whole_when_the_farewell_and_all_before_it_have_come() -> None:
    inbox = Inbox()
    inbox.take(0)
    inbox.take(2)
    inbox.last = 2
    assert not inbox.whole
    inbox.take(1)
    assert inbox.whole


def test_an_outbox_keeps_and_sends_again_what_is_not_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentload.fleet.channel.RESEND", 0.0)
    sent: list[int] = []
    outbox = Outbox(lambda number, blob: sent.append(number))
    outbox.put(0, b"a")
    outbox.put(1, b"b")
    outbox.acknowledged(0)
    outbox.resend()

    assert sent == [0, 1, 1]
    assert list(outbox.waiting) == [1]


def test_a_share_that_is_split_is_dealt_out_exactly_once() -> None:
    dealt = Dealt(1, 3)
    parts = [part for half in dealt.split(2, (1,)) for part in half.split(5, (7, 13))]
    numbers = [number for part in parts for number in range(part.index, 3000, part.of)]

    assert sorted(numbers) == list(range(1, 3000, 3))
    assert all(part.begun == (1, 7, 13) for part in parts)


def test_a_batch_comes_out_as_it_went_in_and_much_smaller() -> None:
    records = made_run()
    calls, tools, sessions = ([row for row in records if isinstance(row, kind)] for kind in (Call, Tool, Session))
    batch = Batch(3, State(now=1.5, taken=1), [(5, "coder", 0.25)], calls, tools, sessions, True, {"cpu_share": 0.5})
    blob = pack(batch)

    assert unpack(blob) == batch
    assert len(blob) < 100 * len(records)


def test_gaps_of_several_workers_add_up_to_those_of_one() -> None:
    rng = np.random.default_rng(0)
    halves, whole, together = [Samples(), Samples()], Samples(), Samples()
    for half in halves:
        values = rng.lognormal(-4, 1, 5000)
        half.extend(values)
        whole.extend(values)
        Gaps.of(half).add_to(together)

    assert together.summary() == pytest.approx(whole.summary())


def test_the_offset_is_that_of_the_quickest_round_trip_and_never_further_off_than_it_says() -> None:
    rng, true = np.random.default_rng(3), 12.5
    for _ in range(200):
        trips = []
        for there, back, at in rng.exponential(0.002, (8, 3)):
            trips.append((at, at + there + true, at + there + true + 0.0001, at + there + back + 0.0001))
        found = offset(trips)
        assert abs(found.seconds - true) <= found.uncertainty + 1e-9
        assert found.uncertainty == pytest.approx(min(t[3] - t[0] - (t[2] - t[1]) for t in trips) / 2)


@pytest.mark.parametrize("patched", [False, True])
def test_a_loop_beside_the_hub_runs_in_a_thread_of_the_system_and_hands_back(patched: bool) -> None:
    """Also under Locust's patches, where threads of the standard library are greenlets."""
    code = f"""
import os
if {patched}:
    import locust
import asyncio, time, gevent
from gevent.monkey import get_original
from agentload.fleet.hub import LoopThread, Mailbox
ident = get_original("_thread", "get_ident")
mailbox, got, ticks = Mailbox(), [], []
thread = LoopThread(mailbox)
async def main():
    for i in range(20):
        await asyncio.sleep(0.01)
        thread.post(got.append, i)
    assert await asyncio.to_thread(lambda: 7) == 7
    return ident()
thread.start(main)
gevent.spawn(lambda: [ticks.append(gevent.sleep(0.01)) for _ in range(15)])
while not thread.ended.ready():
    mailbox.attend(0.05)
assert thread.ended.get() != ident()
assert got == list(range(20)), got
assert len(ticks) >= 10, "the hub stood still"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=20)


def test_a_worker_that_wakes_after_others_took_over_adds_only_what_it_had_begun_before() -> None:
    records = made_run()
    calls, tools, sessions = ([row for row in records if isinstance(row, kind)] for kind in (Call, Tool, Session))
    member = Member("here-0", "client", 1)
    member.begun = {3: ("coder", 0.0), 5: ("chat", 0.0)}
    batch = Batch(9, State(), [(7, "coder", 1.0)], calls, tools, sessions)
    kept = member.before(batch)

    assert {row.session for row in [*kept.calls, *kept.tools, *kept.sessions]} == {3, 5}
    assert kept.begun == []
    assert member.dropped == batch.records - kept.records > 0
