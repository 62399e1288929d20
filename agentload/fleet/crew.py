"""The agents of one worker, on its asyncio loop: do the shares that are dealt, write and ship what they gave."""

import asyncio
import resource
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import numpy as np
from msgspec import structs

from agentload.fleet.channel import SHIP, Batch, Dealt, Gaps, State, pack
from agentload.plan import Plan
from agentload.prepare import Prepared
from agentload.realtime import Stop, every, machine_seconds, start_sessions
from agentload.screen import Watch
from agentload.session import Clock, World
from agents.chain import Agent
from collectors.records import Call, Session, Tool
from collectors.store import Store

Work: TypeAlias = Callable[[World], Coroutine[Any, Any, None]]

KEPT = 100_000
"""Most records of a kind that a worker keeps in memory while its own disk takes none."""


class Noted(Plan):
    """A plan that notes which sessions were begun: number, archetype, when."""

    def __init__(self, prepared: Prepared, clock: Clock) -> None:
        super().__init__(prepared.spec, prepared.room(), prepared.salt)
        self.clock = clock
        self.begun: list[tuple[int, str, float]] = []

    def agent(self, number: int, seat: int | None = None) -> Agent:
        agent = super().agent(number, seat)
        self.begun.append((number, agent.archetype, self.clock.now()))
        return agent


class Crew:
    """One worker's part of a run. `ready` is called when all is in place, `ship` with every batch, both on the loop's
    side; `end` and `take` and `begin` are to be called there too."""

    def __init__(
        self,
        prepared: Prepared,
        name: str,
        part: float,  # of every quota
        header: dict[str, Any],  # the run's, as its master wrote it
        store: Store,
        ready: Callable[[], None],
        ship: Callable[[Batch, bytes], None],
    ) -> None:
        self.prepared, self.name, self.store, self.ready, self.ship = prepared, name, store, ready, ship
        self.part, self.header = part, header
        self.clock = Clock()
        self.watch = Watch()
        self.plan: Noted
        self.gathered: list[Call | Tool | Session] = []
        self.batches = self.taken = self.done = 0
        self.cpu_before, self.machine_before = 0.0, (0.0, 0.0)
        self.writing: asyncio.Task[None] | None = None
        self.over = False  # nothing more will be started
        self.work: asyncio.Queue[tuple[Work, Callable[[asyncio.Task[None]], object]] | None] = asyncio.Queue()
        self.begun = asyncio.Event()
        self.stop: Stop | None = None

    def emit(self, record: Call | Tool | Session) -> None:
        self.watch.emit(record)
        if isinstance(record, Call):
            keep = record.itl if self.prepared.spec.itl else None  # else its sketch is enough
            record = structs.replace(record, worker=self.name, itl=keep)
        elif isinstance(record, Session):
            record = structs.replace(record, worker=self.name)
        self.store.emit(record)
        self.gathered.append(record)

    def begin(self, epoch: float) -> None:
        """Time 0 of the run clock, on this machine's monotonic clock."""
        self.clock.epoch = epoch
        self.begun.set()

    def take(self, dealt: Dealt) -> None:
        """Another share to do."""
        self.taken += 1
        self.do(lambda world: self.do_share(world, dealt))

    def do(self, work: "Work", started: Callable[[asyncio.Task[None]], object] = id) -> None:
        """Something else to do beside the rest, until it ends or the run does."""
        self.work.put_nowait((work, started))

    def end(self, reason: str, at_once: bool) -> None:
        """No more shares. Sessions that still run end at their next step, or now; with "done" they simply go on."""
        self.work.put_nowait(None)
        self.begun.set()
        if self.stop is not None and reason != "done":
            (self.stop.at_once if at_once else self.stop.gently)(reason)

    async def run(self) -> None:
        """Wait for the beginning, do the shares, ship what they gave."""
        self.plan = Noted(self.prepared, self.clock)  # here, and not on the hub: it may have a trace to read
        lanes = self.prepared.lanes(self.clock, self.part)
        await asyncio.to_thread(self.store.flush)  # pyarrow is imported here, before the clock starts
        lanes.of(0, 0)  # likewise the client
        self.ready()
        await self.begun.wait()
        try:
            spec = self.prepared.spec
            await self.perform(
                World(lanes.of, self.clock, self.emit, spec.seed, spec.max_agents_per_session, self.store.begin)
            )
        finally:
            await lanes.close()

    async def perform(self, world: World) -> None:
        """What `run.perform` does for one process, but for signals and limits, which are the master's."""
        spec = self.prepared.spec
        anchor = {"clock_anchor": self.clock.anchor(), "worker": self.name}
        self.store.head(self.header | anchor)
        sessions = asyncio.create_task(self.do_work(world))
        self.stop = stop = Stop(world, sessions, spec.drain)
        helpers = [
            asyncio.create_task(every(SHIP, lambda: self.dispatch(world), self.clock)),
            asyncio.create_task(self.watch.tick(world)),
        ]
        self.cpu_before, self.machine_before = time.process_time(), machine_seconds()
        left = None if spec.duration is None else spec.duration + spec.drain - self.clock.now()
        await asyncio.wait({sessions}, timeout=left)
        if not sessions.done():
            stop.at_once("duration")
        await asyncio.wait({sessions})
        self.over = True
        for helper in helpers:
            helper.cancel()
        await asyncio.wait(helpers)
        if self.writing is not None:
            await self.writing
        await self.dispatch(world, stop.reason)
        for task in (sessions, *helpers):
            if not task.cancelled():
                task.result()  # a bug in a session is everyone's bug

    async def do_work(self, world: World) -> None:
        """Do what comes, side by side, until there is no more."""
        async with asyncio.TaskGroup() as group:
            while (item := await self.work.get()) is not None:
                work, started = item
                started(group.create_task(work(world)))

    async def do_share(self, world: World, dealt: Dealt) -> None:
        await start_sessions(self.prepared.spec, self.plan, world, dealt.share)
        self.done += 1

    async def dispatch(self, world: World, reason: str = "") -> None:
        """Write what has gathered to the disk, then ship it; with a reason, for the last time."""
        state = self.state(world)
        health = self.health(state) | {"stop_reason": reason} if reason else {}
        rows, self.gathered = self.gathered, []
        begun, self.plan.begun = self.plan.begun, []
        batch = Batch(
            number=self.batches,
            state=state,
            begun=begun,
            calls=[row for row in rows if isinstance(row, Call)],
            tools=[row for row in rows if isinstance(row, Tool)],
            sessions=[row for row in rows if isinstance(row, Session)],
            last=bool(reason),
            health=health,
        )
        self.batches += 1

        def write() -> None:
            try:
                self.store.flush()
            except OSError:  # a full disk: the master gets these anyway, and the next time may do
                self.store.shed(KEPT)
            self.ship(batch, pack(batch))

        # Not to be cut short: a batch that is numbered must be shipped. The end waits for it.
        self.writing = asyncio.create_task(asyncio.to_thread(write))
        await asyncio.shield(self.writing)

    def state(self, world: World) -> State:
        now, cpu = self.clock.now(), time.process_time() - self.cpu_before
        lags = (samples.quantile(0.99) for samples in (self.watch.send_lag, self.watch.loop_lag))
        send_lag, loop_lag = (0.0 if np.isnan(lag) else float(lag) for lag in lags)
        share, gaps = cpu / now if now > 0 else 0.0, Gaps.of(self.watch.itl)
        return State(now, world.alive, world.in_flight, send_lag, loop_lag, share, self.taken, self.done, gaps)

    def health(self, state: State) -> dict[str, Any]:
        """What the header says of this worker."""
        busy, total = (now - then for now, then in zip(machine_seconds(), self.machine_before, strict=True))
        return self.watch.health() | {
            "send_lag_p99": state.send_lag,
            "cpu_share": state.cpu_share,
            "machine_cpu": busy / total if total else None,
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
