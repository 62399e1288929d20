"""The master of a run on several processes: deals shares to workers, takes their records."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import structs

from agentload.disk import FULL, Disk, settle
from agentload.errors import BadInput
from agentload.fleet.channel import (
    ACK,
    BATCH,
    BEGIN,
    HELLO,
    JOB,
    MASTER_PATIENCE,
    PING,
    PONG,
    READY,
    STOP,
    TAKE,
    Batch,
    Dealt,
    Inbox,
    Offset,
    State,
    listen,
    offset,
    unpack,
)  # fmt: skip
from agentload.fleet.hub import Mailbox
from agentload.prepare import Prepared
from agentload.realtime import describe
from agentload.screen import Samples, Watch
from agentload.session import Clock
from collectors.load import SPOOLS
from collectors.records import Call, Session, Tool
from collectors.store import Store

if TYPE_CHECKING:
    from locust.rpc import Message
    from locust.runners import MasterRunner

TICK = 0.05
"""Seconds between two looks at how things are."""
TRIPS = 16
"""Round trips that an offset is estimated from."""
LEAD = 0.3
"""Seconds between the announcement of the beginning and the beginning."""
FAREWELL = 15.0
"""Seconds that workers get for their last batches, once their sessions have ended."""
REDEAL = 0.3
"""Seconds between noticing that a worker is lost and dealing its share anew: what it sent last may be on its way."""


class Member:
    """A worker as its master knows it."""

    def __init__(self, name: str, client: str, pid: int) -> None:
        self.name, self.client, self.pid = name, client, pid
        self.ready = False
        self.trips: list[tuple[float, float, float, float]] = []
        self.offsets: list[Offset] = []  # at the beginning, at the end
        self.shares: list[Dealt] = []
        self.begun: dict[int, tuple[str, float]] = {}
        self.ended: set[int] = set()
        self.inbox = Inbox()
        self.state = State()
        self.health: dict[str, Any] = {}
        self.records = self.dropped = 0
        self.heard = time.perf_counter()
        self.shipped: float | None = None  # run clock, when its last batch came
        self.lost: float | None = None  # run clock, when it was noticed
        self.dealt_anew = False

    @property
    def working(self) -> bool:
        return self.lost is None and self.inbox.last is None

    @property
    def idle(self) -> bool:
        """All shares dealt to it are done, and everything of them is here."""
        return self.state.done == len(self.shares)

    def before(self, batch: Batch) -> Batch:
        """A batch without the sessions that were not known to be begun; counts what that drops."""
        kept = structs.replace(
            batch,
            begun=[],
            calls=[row for row in batch.calls if row.session in self.begun],
            tools=[row for row in batch.tools if row.session in self.begun],
            sessions=[row for row in batch.sessions if row.session in self.begun],
        )
        self.dropped += batch.records - kept.records
        return kept

    def missing(self) -> dict[int, tuple[str, float]]:
        """Sessions that it began and that have no row."""
        return {number: how for number, how in self.begun.items() if number not in self.ended}


class Master:
    """One run, done by workers. `died` says which process ids of workers are known to be dead."""

    def __init__(
        self, runner: "MasterRunner", prepared: Prepared, folder: Path, store: Store, watch: Watch,
        died: Callable[[], set[int]], count: int, spool: bool,
    ) -> None:  # fmt: skip
        self.runner, self.prepared, self.folder, self.store, self.watch = runner, prepared, folder, store, watch
        self.died, self.count, self.spool = died, count, spool
        self.disk = Disk(store)
        self.owed: list[tuple[str, int]] = []  # batches to acknowledge: who sent them, their numbers
        self.mailbox = Mailbox()
        self.members: dict[str, Member] = {}
        self.clock = Clock()
        self.reason = ""
        self.latest = 0.0  # run clock, when the last thing ended
        self.begun = False
        self.see: Callable[[str, Call], None] = lambda name, call: None
        listeners = {HELLO: self.hello, READY: self.ready, PONG: self.pong, BATCH: self.batch}
        listen(runner, self.mailbox, listeners)
        events = runner.environment.events
        events.heartbeat_sent.add_listener(self.hear)

    # What comes from workers.

    def hello(self, msg: "Message", at: float) -> None:
        self.invite(msg.node_id, msg.data["host"], msg.data["pid"])

    def invite(self, client: str, host: str, pid: int) -> None:
        """Make a worker a member, and tell it what the run is."""
        index = len(self.members)
        name = f"{host}-{index}"
        self.members[client] = Member(name, client, pid)
        prepared = msgspec.msgpack.encode(self.prepared)
        spool = str(self.folder / SPOOLS / name) if self.spool else ""
        header = msgspec.json.encode(describe(self.prepared))
        self.send(
            JOB, client, prepared=prepared, header=header, name=name, index=index, spool=spool, part=1 / self.count
        )

    def ready(self, msg: "Message", at: float) -> None:
        member = self.members.get(msg.node_id)
        if member is None:
            return
        member.ready, member.heard = True, at
        if self.begun:  # it came late: it stands by, and takes over when another is lost
            self.measure([member])
            self.send(BEGIN, member.client, epoch=self.clock.epoch + member.offsets[0].seconds)

    def hear(self, client_id: str, **_: Any) -> None:
        if member := self.members.get(client_id):
            member.heard = time.perf_counter()

    def pong(self, msg: "Message", at: float) -> None:
        trip = (msg.data["sent"], msg.data["received"], msg.data["answered"], at)
        if member := self.members.get(msg.node_id):
            member.heard = at
            member.trips.append(trip)

    def batch(self, msg: "Message", at: float) -> None:
        """Take a batch, once; it is acknowledged when the disk has it."""
        member = self.members.get(msg.node_id)
        if member is None:
            return  # a worker of an earlier run: nobody has invited it to this one
        member.heard = at
        if member.inbox.take(msg.data["number"]):
            self.record(member, unpack(msg.data["batch"]))
        self.owed.append((member.client, msg.data["number"]))

    def record(self, member: Member, batch: Batch) -> None:
        member.shipped = self.clock.now()
        if batch.state.now >= member.state.now:
            member.state = batch.state
        if batch.last:
            member.inbox.last, member.health = batch.number, batch.health
        if member.dealt_anew:  # it woke up: sessions that it began since are others' by now
            batch = member.before(batch)
        for number, archetype, at in batch.begun:
            member.begun[number] = archetype, at
        member.ended.update(row.session for row in batch.sessions if row.agent == "")
        member.records += batch.records
        rows: list[Call | Tool | Session] = [*batch.calls, *batch.tools, *batch.sessions]
        for row in rows:
            self.store.emit(row)
            self.watch.emit(row)
            self.latest = max(self.latest, row.end)
        for call in batch.calls:
            self.see(member.name, call)

    # What goes to them.

    def send(self, kind: str, client: str, **data: Any) -> None:
        self.runner.send_message(kind, data, client)

    def deal(self, member: Member, dealt: Dealt) -> None:
        member.shares.append(dealt)
        self.send(TAKE, member.client, **msgspec.to_builtins(dealt))

    def working(self) -> list[Member]:
        return [member for member in self.members.values() if member.working]

    def end(self, reason: str, *, at_once: bool = False) -> None:
        """No more sessions; those that run end at their next step, or now, as from Ctrl-C."""
        if not self.reason or at_once:
            self.reason = self.reason or reason
            self.tell(reason, at_once=at_once)

    def tell(self, reason: str, *, at_once: bool = False) -> None:
        for member in self.working():
            self.send(STOP, member.client, reason=reason, at_once=at_once)

    def interrupt(self) -> None:
        """What Ctrl-C does: gently the first time, at once the second."""
        self.end("interrupted", at_once=self.reason == "interrupted")

    # The run.

    def gather(self, patience: float | None) -> None:
        """Wait for the workers to be ready. BadInput where too few come in time, or where one ends at once."""
        began = time.perf_counter()
        while sum(member.ready for member in self.members.values()) < self.count:
            self.mailbox.attend(TICK)
            late = patience is not None and time.perf_counter() - began > patience
            if self.reason or late or self.died():
                here = sum(member.ready for member in self.members.values())
                why = "the run was interrupted" if self.reason else "the others ended or did not come up in time"
                raise BadInput(f"{here} of {self.count} workers are ready, and {why}")

    def measure(self, members: list[Member]) -> None:
        """Estimate how far the clocks of these workers are from ours."""
        for member in members:
            member.trips = []
            for trip in range(TRIPS):
                self.send(PING, member.client, sent=time.perf_counter())
                sent = time.perf_counter()
                while len(member.trips) <= trip and time.perf_counter() - sent < 0.5:
                    self.mailbox.attend(0.001)
            if member.trips:
                member.offsets.append(offset(member.trips))

    def begin(self, *, deal: bool = True) -> None:
        """Deal the shares and announce the beginning, on each worker's own clock."""
        members = [member for member in self.working() if member.ready]
        self.measure(members)
        if any(not member.offsets for member in members):
            raise BadInput("a worker was lost before the run began; start the run again")
        self.clock = Clock(time.perf_counter() + LEAD)
        self.begun = True
        for i, member in enumerate(members):
            if deal:
                self.deal(member, Dealt(i, len(members)))
            self.send(BEGIN, member.client, epoch=self.clock.epoch + member.offsets[0].seconds)

    def drive(self, over: Callable[[], bool] | None = None) -> None:
        """Watch over the run until it is over: by default, when its last session has ended."""

        flushed = 0.0
        over = over or self.over
        while self.working() and not over():
            self.mailbox.attend(TICK)
            now = self.clock.now()
            self.look(now)
            self.check_limits()
            for member in self.members.values():
                self.check(member, now)
            if now - flushed >= 0.5:
                flushed = now
                self.save()
        if not self.working() and not self.reason:
            self.reason = "workers_lost" if any(member.lost for member in self.members.values()) else "done"

    def over(self) -> bool:
        """Every share is done, or its worker lost and its share given to others that are done with it."""
        pending = any(member.lost is not None and not member.dealt_anew for member in self.members.values())
        return not pending and all(member.idle for member in self.working())

    def look(self, now: float) -> None:
        """What the live view shows."""
        states = [member.state for member in self.working()]
        w = self.watch
        w.now, w.alive, w.in_flight = now, sum(s.alive for s in states), sum(s.in_flight for s in states)
        w.loop_lag_p99 = max((s.loop_lag for s in states), default=0.0)
        if not w.history or now - w.history[-1][0] >= 1.0:
            w.history.append((now, w.calls, w.fresh, w.cached, w.output))

    def check_limits(self) -> None:
        if self.disk.given_up:
            self.end(FULL)
        if reached := self.watch.beyond(self.prepared.spec.limits):
            self.end(reached)

    def check(self, member: Member, now: float) -> None:
        """Notice that a worker is lost or has left; a moment later, deal its shares to the others."""
        silent = time.perf_counter() - member.heard > MASTER_PATIENCE
        if member.working and (silent or member.pid in self.died()):
            member.lost = now
        gone = member.lost if member.lost is not None else (now - REDEAL if member.inbox.whole else None)
        if gone is None or member.dealt_anew or now - gone < REDEAL:
            return
        member.dealt_anew = True
        others = [other for other in self.working() if other.ready]
        if self.reason or not others:
            return
        for share in member.shares:
            for other, part in zip(others, share.split(len(others), tuple(member.begun)), strict=True):
                self.deal(other, part)

    def save(self) -> None:
        """Write what has come, and acknowledge it only then: a worker keeps what its master may yet lose."""
        import gevent

        owed, self.owed = self.owed, []
        gevent.get_hub().threadpool.apply(self.disk.write)
        if self.disk.refused is not None:
            self.owed = owed + self.owed
            return
        for client, number in owed:
            self.send(ACK, client, number=number)

    def finish(self) -> None:
        """Send workers home; take their last batches; see how far their clocks have drifted."""
        members = self.working()
        self.measure(members)
        self.tell("done")

        def missing() -> list[Member]:
            return [member for member in self.members.values() if member.lost is None and not member.inbox.whole]

        end = time.perf_counter() + FAREWELL
        while (missing() or self.owed) and time.perf_counter() < end:
            self.mailbox.attend(TICK)
            if self.owed:
                self.save()
            for member in self.working():
                if member.pid in self.died():
                    member.lost = self.clock.now()
        for member in missing():
            member.lost = self.clock.now()

    # What the folder says of it.

    def mend(self) -> None:
        """Give a row to each session that was cut off with its worker."""
        from collectors.load import load_run
        from collectors.recovery import unfinished

        settle(self.store, self.store.flush)
        run = load_run(self.store.folder)
        rows = {(row.session, row.agent): row for row in unfinished(run.calls, run.tools, run.sessions)}
        for member in self.members.values():
            for number, (archetype, at) in member.missing().items():
                rows.setdefault((number, ""), bare(number, archetype, at, member.name))
        lost = {member.name for member in self.members.values() if member.lost is not None}
        for row in rows.values():
            error = f"worker {row.worker} was lost" if row.worker in lost else row.error
            self.store.emit(structs.replace(row, error=error))

    def health(self) -> dict[str, Any]:
        """The run's health for its header: of each figure the worst of all workers, and each worker's own."""
        own = {member.name: of_member(member) for member in self.members.values()}
        figures = {
            key for one in own.values() for key, value in one.items() if isinstance(value, float | int)
        } - {"records", "batches"}  # fmt: skip
        spec, started = self.prepared.spec, len({number for member in self.members.values() for number in member.begun})
        worst = {key: max(one[key] for one in own.values() if one.get(key) is not None) for key in sorted(figures)}
        reasons = [one["stop_reason"] for one in own.values() if one.get("stop_reason")]
        reason = self.reason or ("duration" if "duration" in reasons else "done")
        whole = not spec.profile.closed and reason in ("done", "duration")
        counts = {
            "sessions_offered": len(self.prepared.plan().arrivals()) if whole else None,
            "sessions_started": started,
        }
        return worst | counts | {"interrupted": reason == "interrupted", "stop_reason": reason, "workers": own}

    def itl(self) -> dict[str, float]:
        """Gaps between output pieces, of all workers together, for the header."""
        together = Samples()
        for member in self.members.values():
            member.state.gaps.add_to(together)
        return together.summary()


def bare(number: int, archetype: str, at: float, worker: str) -> Session:
    """The row of a session of which nothing is known but that it began."""
    zeros = {field.name: 0 for field in structs.fields(Session) if field.type in (int, float)}
    known = {"session": number, "agent": "", "archetype": archetype, "due": at, "start": at, "end": at}
    return msgspec.convert(zeros | known | {"outcome": "unfinished", "worker": worker}, Session)


def of_member(member: Member) -> dict[str, Any]:
    """A worker's own part of the header. Seconds, but for the counts."""
    state = member.state
    seen = {"send_lag_p99": state.send_lag, "loop_lag_p99": state.loop_lag, "cpu_share": state.cpu_share}
    said = seen | member.health | {"records": member.records, "batches": member.inbox.through + 1}
    if member.offsets:
        first, last = member.offsets[0], member.offsets[-1]
        said["clock"] = {
            "offset": first.seconds, "uncertainty": first.uncertainty,
            "drift": last.seconds - first.seconds, "drift_uncertainty": first.uncertainty + last.uncertainty,
        }  # fmt: skip
    if member.lost is not None:
        said["lost"] = {
            "noticed": member.lost,
            "last_batch": member.shipped,
            "sessions": sorted(member.missing()),
            "dropped": member.dropped,  # records that came when others had taken over
        }
    return said
