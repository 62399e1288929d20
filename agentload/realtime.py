"""A run in real time: start every session at its time, record what happens, stop cleanly, write the report."""

import asyncio
import contextlib
import datetime
import gc
import os
import platform
import re
import resource
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct, structs

from agentload.disk import FULL, Disk, finish, kept, open_store
from agentload.errors import BadInput
from agentload.plan import Plan
from agentload.prepare import Prepared, prepare
from agentload.recorded import recorded
from agentload.screen import Watch
from agentload.session import BREATH, Clock, World, run_agent
from agentload.spec import Spec, Traced, encode
from agentload.telemetry.beside import Beside
from agents.own import called
from collectors.records import SCHEMA, Call, Session, Tool
from collectors.store import Store
from loadprofiles import slots


class Share(Struct, frozen=True):
    """Every `of`-th seat or arrival from `index` on, without sessions that were `begun` elsewhere: what one of several
    workers starts."""

    index: int = 0
    of: int = 1
    begun: frozenset[int] = frozenset()


ALL = Share()


async def start_sessions(spec: Spec, plan: Plan, world: World, share: Share) -> None:
    """Start every session at its time; return when the last has ended."""
    duration = spec.duration or np.inf

    async def held(seat: int, seats: int, start: float, stop: float) -> None:
        """A seat of the population: one session after the other."""
        number = seat
        while number in share.begun:
            number += seats
        await world.sleep_until(start)
        due = max(start, world.clock.now()) if share.begun else start
        while (spec.sessions is None or number < spec.sessions) and due < min(stop, duration) and not world.ending:
            world.started += 1
            begun = world.clock.now()
            leaves = spec.leaving == "cancel" and stop < duration
            try:
                async with asyncio.timeout(stop - begun) if leaves else contextlib.nullcontext():
                    outcome = await run_agent(plan.agent(number, seat), number, "", due, world)
            except TimeoutError:
                return  # it has left
            idle = outcome.status == "broken" or world.clock.now() - begun < 1e-4
            await (world.sleep_until(world.clock.now() + BREATH) if idle else asyncio.sleep(0))
            number, due = number + seats, world.clock.now()

    async def arrive() -> None:
        """Open loop: sessions start at their arrivals, whatever became of the others."""
        times = plan.arrivals()
        world.offered = len(range(share.index, len(times), share.of))
        for number in range(share.index, len(times), share.of):
            if number in share.begun:
                continue
            due = float(times[number])
            await world.sleep_until(due)
            world.started += 1
            group.create_task(run_agent(plan.agent(number), number, "", due, world))

    async with asyncio.TaskGroup() as group:
        if spec.profile.closed:
            seats = slots(*spec.profile.population(duration), duration)
            for seat in range(share.index, len(seats), share.of):
                group.create_task(held(seat, len(seats), *seats[seat].tolist()))
        else:
            group.create_task(arrive())


class Stop:
    """Ends the sessions: first gently, then at once. `reason` says why the run ended."""

    def __init__(self, world: World, sessions: asyncio.Task[None], drain: float) -> None:
        self.world, self.sessions, self.drain = world, sessions, drain
        self.reason = "done"

    def gently(self, reason: str) -> None:
        """Sessions end at their next step; what then still runs is cut after `drain` seconds."""
        if self.world.ending:
            return
        self.reason = reason
        self.world.end()
        asyncio.get_running_loop().call_later(self.drain, self.sessions.cancel)

    def at_once(self, reason: str) -> None:
        self.reason = reason
        self.world.ending = True
        self.sessions.cancel()

    def interrupt(self) -> None:
        """What Ctrl-C does: gently the first time, at once the second."""
        if self.reason == "interrupted":
            self.at_once("interrupted")
        else:
            self.gently("interrupted")


async def perform(
    spec: Spec,
    plan: Plan,
    world: World,
    watch: Watch,
    disk: Disk,
    share: Share = ALL,
) -> dict[str, Any]:
    """Run all sessions of a share; return the run's health for its header."""
    sessions = asyncio.create_task(start_sessions(spec, plan, world, share))
    stop = Stop(world, sessions, spec.drain)
    helpers = [
        asyncio.create_task(every(0.5, lambda: asyncio.to_thread(disk.write), world.clock)),
        asyncio.create_task(every(0.25, lambda: check_limits(spec, watch, stop, disk), world.clock)),
        asyncio.create_task(watch.tick(world)),
    ]
    cpu, machine, wall = time.process_time(), machine_seconds(), world.clock.now()
    with signals(stop.interrupt):
        end = None if spec.duration is None else spec.duration + spec.drain - world.clock.now()
        await asyncio.wait({sessions}, timeout=end)
        if not sessions.done():
            stop.at_once("duration")
        await asyncio.wait({sessions})
    cpu, wall = time.process_time() - cpu, world.clock.now() - wall
    busy, total = (now - then for now, then in zip(machine_seconds(), machine, strict=True))
    for helper in helpers:
        helper.cancel()
    await asyncio.wait(helpers)
    if not sessions.cancelled():
        sessions.result()  # a bug in a session is everyone's bug
    for helper in helpers:
        if not helper.cancelled():
            helper.result()
    return watch.health() | {
        "cpu_share": cpu / wall if wall else None,
        "machine_cpu": busy / total if total else None,
        "sessions_offered": None if world.ending else world.offered,
        "sessions_started": world.started,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "interrupted": stop.reason == "interrupted",
        "stop_reason": stop.reason,
    }


async def every(seconds: float, do: Callable[[], Awaitable[None]], clock: Clock) -> None:
    """Do something at fixed instants, forever."""
    due = clock.now()
    while True:
        due = max(due + seconds, clock.now())
        await clock.until(due)
        await do()


async def check_limits(spec: Spec, watch: Watch, stop: Stop, disk: Disk) -> None:
    if disk.given_up:
        stop.gently(FULL)
    if reached := watch.beyond(spec.limits):
        stop.gently(reached)


@contextlib.contextmanager
def signals(interrupt: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM call `interrupt` while inside."""
    loop = asyncio.get_running_loop()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        loop.add_signal_handler(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)  # which leaves the system's own
            signal.signal(number, handler)


@contextlib.contextmanager
def collected_rarely() -> Iterator[None]:
    """Keep the garbage collector away from what is there already, and from the loop for longer than usual.

    A full collection of everything that is imported takes about 17 ms, which every stream would feel; with this, p99 of
    the loop's lag at 500 agents fell from 5.2 to 1.2 ms. To be entered before the clock starts: the collection made
    here took 222 ms in a process that had much loaded, and every first call would be that late.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


HEAD_START = 0.05
"""Seconds between the last preparation and time 0, so that what is still to be set up makes nobody late."""


async def run(spec: Spec, out: Path, watch: Watch) -> tuple[Path, str]:
    """Everything a run does against an endpoint that exists; returns its folder, all but the report in it, and why
    the run ended."""
    with Beside(spec, watch) as beside:
        prepared, asked = await prepare(spec, out)
        header, plan = describe(prepared), prepared.plan()
        store = open_store(make_folder(prepared.spec, out), header, asked)
        with collected_rarely():
            stopped = await timed(prepared, plan, store, header, watch, beside)
        return store.folder, stopped


async def timed(
    prepared: Prepared, plan: Plan, store: Store, header: dict[str, Any], watch: Watch, beside: Beside
) -> str:
    """The part of a run that has a clock, from its head start to the closed records; returns why it ended."""
    spec, clock = prepared.spec, Clock(time.perf_counter() + HEAD_START)
    header |= {"clock_anchor": clock.anchor()}
    store.head(header)
    beside.begin(prepared, store, clock)

    def emit(record: Call | Tool | Session) -> None:
        watch.emit(record)
        if isinstance(record, Call) and record.itl and not spec.itl:
            record = structs.replace(record, itl=None)  # its sketch is enough
        store.emit(record)

    lanes = prepared.lanes(clock)
    world = World(lanes.of, clock, emit, spec.seed, spec.max_agents_per_session, store.begin)
    try:
        with kept(store):
            health = await perform(spec, plan, world, watch, Disk(store))
        duration = clock.now()
    finally:
        await lanes.close()
        await asyncio.to_thread(beside.end)
    header |= {"clock_anchor": clock.anchor(), "duration": duration, "health": health, "itl": watch.itl.summary()}
    finish(store, header | beside.describe())
    return str(health["stop_reason"])


def machine_seconds() -> tuple[float, float]:
    """Busy and total ticks of all cores since boot; zeros where /proc does not say."""
    try:
        ticks = [int(tick) for tick in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except (OSError, ValueError, IndexError):
        return 0.0, 0.0
    return float(sum(ticks) - ticks[3] - ticks[4]), float(sum(ticks))  # idle and waiting for disks are not busy


UNFIT = re.compile(r"[^\w.,=+-]+")
"""What a name in a spec may have and a folder's may not: slashes first of all."""


def make_folder(spec: Spec, out: Path) -> Path:
    """A new folder for the records, named by its start."""
    started = datetime.datetime.now().strftime("%Y-%m-%dT%H-%M-%S")
    name = spec.name or "-".join(dict.fromkeys(called(group.archetype) for group in spec.population))
    plain = UNFIT.sub("-", name)[:60]
    for suffix in ("", *(f"-{n}" for n in range(2, 100))):
        folder = out / f"{started}-{plain}{suffix}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise BadInput(f"--out {str(out)!r} holds a hundred runs of this second; wait a moment")


def describe(prepared: Prepared) -> dict[str, Any]:
    """The run's header (run.json) as far as it is known at the start. No secret is in a spec, so none is here."""
    spec, features = prepared.spec, prepared.features
    closed = spec.profile.closed
    return {
        "schema": SCHEMA,
        "agentload": metadata.version("agentload"),
        "run_id": prepared.run_id,
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "seed": spec.seed,
        "salt": prepared.salt,
        "spec": msgspec.to_builtins(spec),
        "spec_toml": encode(spec),
        "endpoint": {
            "url": spec.endpoint.url,
            "model": spec.endpoint.model,
            "client": spec.endpoint.client,
            "simulated": features.simulated,
            "server": prepared.server,
            "context_length": features.context_length,
            "features": msgspec.to_builtins(features),
            "calibration": msgspec.to_builtins(prepared.calibration),
        },
        "machine": {
            "system": platform.platform(),
            "python": platform.python_version(),
            "cores": os.cpu_count(),
        },
        "versions": {name: metadata.version(name) for name in ("openai", "numpy", "pyarrow", "uvloop", "httptools")},
        "phases": spec.windows(),
        "replay": recorded(spec).about(features.context_length) if spec.replay else None,
        "profile": {
            "agents": int(spec.profile.population(spec.duration or np.inf)[1].max()) if closed else None,
            "rate": None if closed or isinstance(spec.profile, Traced) else spec.profile.mean(spec.duration or 1.0),
        },
    }
