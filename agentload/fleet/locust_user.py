"""Agents for a plain `locust -f locustfile.py`: Locust decides how many there are, and its users are ours.

    agents = Agents(events, "spec.toml")       # events: from locust

    class Coder(AgentUser):
        agents = agents

Every user holds a slot: one session after the other. Calls appear in Locust's own statistics, and all records in a run
folder, whether Locust runs in one process, with `--processes`, or as master and workers on several machines. The spec
says which agents, and of what endpoint; its profile, duration and number of sessions are Locust's business here.
"""

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import gevent
import numpy as np
from gevent.event import AsyncResult
from locust import LoadTestShape, User, task
from locust.exception import StopUser
from locust.runners import MasterRunner, WorkerRunner
from msgspec import structs

from agentload import spec as specs
from agentload.commands import target
from agentload.disk import finish, open_store
from agentload.fleet.hub import LoopThread, Mailbox
from agentload.fleet.master import Master
from agentload.fleet.token import given, secure
from agentload.fleet.worker import Work, Worker
from agentload.prepare import prepare
from agentload.realtime import describe, make_folder
from agentload.screen import Watch
from agentload.session import BREATH, World, run_agent
from agentload.spec import Spec
from collectors.report import write_report

if TYPE_CHECKING:
    from locust.env import Environment
    from locust.event import Events

STRIDE = 1024
"""Sessions are numbered by worker: its index, then every 1,024th. More workers than that would share numbers."""
FOREVER = 3e7
"""Seconds of a run whose end is Locust's to decide: most of a year, the longest that records may say."""
COME_UP = 60.0
"""Seconds that workers get to be ready."""
CLEAR_UP = 5.0
"""Seconds that a worker gets to remove what its master has."""

logger = logging.getLogger(__name__)


class Agents:
    """The run that all users of a locustfile make together."""

    def __init__(self, events: "Events", spec: Spec | Path | str, out: Path | str = "runs") -> None:
        self.spec = spec if isinstance(spec, Spec) else specs.decode(specs.read(Path(spec)), str(spec))
        self.out = Path(out)
        self.worker: Worker | None = None
        self.conductor: Conductor | None = None
        self.seats = self.sessions = 0
        if token := given():  # Locust opens its channel after this
            secure(token)
        events.init.add_listener(self.init)

    def init(self, environment: "Environment", **_: Any) -> None:
        """Take the part that this process has in Locust."""
        runner: Any = environment.runner
        if not isinstance(runner, WorkerRunner):
            environment.events.test_start.add_listener(self.start)
            environment.events.test_stopping.add_listener(self.stop)
        if not isinstance(runner, MasterRunner):
            environment.events.test_start.add_listener(lambda **_: self.count_anew())
            environment.events.quitting.add_listener(self.leave)
            gevent.spawn(self.serve, runner).link_exception(lambda _: runner.quit())

    def count_anew(self) -> None:
        self.seats = self.sessions = 0

    def serve(self, runner: Any) -> None:
        """Work for one test after the other, as its worker; in one process, too."""
        while True:
            self.worker = Worker(runner, Work(out=str(self.out), wait=FOREVER), greet=False)
            self.worker.serve()

    def leave(self, **_: Any) -> None:
        """Before this process ends: let its worker clear up behind itself."""
        end = time.perf_counter() + CLEAR_UP
        while self.worker is not None and self.worker.crew is not None and time.perf_counter() < end:
            gevent.sleep(0.02)

    def start(self, environment: "Environment", **_: Any) -> None:
        runner: Any = environment.runner
        try:
            self.conductor = Conductor(runner, self.spec, self.out)
        finally:
            if self.conductor is None:  # Locust logs why, and would go on
                environment.process_exit_code = 2
                gevent.spawn(runner.quit)

    def stop(self, environment: "Environment", **_: Any) -> None:
        if self.conductor is not None:
            conductor, self.conductor = self.conductor, None
            conductor.close()

    def now(self) -> float:
        """The run clock; 0 before it runs."""
        return 0.0 if self.conductor is None else max(0.0, self.conductor.master.clock.now())

    def seat(self) -> int:
        """A place in the population for one more user."""
        self.seats += 1
        return self.seats - 1

    def session(self, seat: int) -> None:
        """One session, from its start to its end. StopUser where there are to be no more."""
        worker = self.worker
        if worker is None or worker.crew is None or worker.crew.over:
            raise StopUser
        crew, index = worker.crew, worker.index
        number, self.sessions = index + STRIDE * self.sessions, self.sessions + 1
        ended: AsyncResult[None] = AsyncResult()
        tasks: list[Any] = []

        async def run(world: World) -> None:
            due = max(0.0, world.clock.now())
            try:
                await world.sleep_until(due)
                outcome = await run_agent(crew.plan.agent(number, seat + index), number, "", due, world)
                if outcome.status == "broken":
                    await world.sleep_until(world.clock.now() + BREATH)
            finally:
                worker.thread.post(ended.set, None)

        worker.thread.call(crew.do, run, tasks.append)
        try:
            ended.get()
        finally:  # a user that Locust stops takes its session along
            worker.thread.call(lambda: [task.cancel() for task in tasks])


class AgentUser(User):
    """A Locust user that holds a slot of the population: always one session, the next when it has ended."""

    abstract = True
    agents: ClassVar[Agents]

    def on_start(self) -> None:
        self.seat = self.agents.seat()

    @task
    def session(self) -> None:
        self.agents.session(self.seat)


class ProfileShape(LoadTestShape):
    """Users as a population profile wants them; ends with the spec's duration."""

    abstract = True
    agents: ClassVar[Agents]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Locust's
        spec = self.agents.spec
        if not spec.profile.closed or spec.duration is None:
            raise ValueError("a shape needs a spec with a population as its profile (held, ramp, …) and a duration")
        self.duration = spec.duration
        self.times, self.counts = spec.profile.population(spec.duration)

    def tick(self) -> tuple[int, float] | None:
        now = self.agents.now()
        if now >= self.duration:
            return None
        count = int(self.counts[np.searchsorted(self.times, now, side="right") - 1])
        there: int = self.get_current_user_count()  # type: ignore[no-untyped-call]  # Locust's
        return count, max(1.0, float(abs(count - there)))


class Conductor:
    """The master's side of a test: prepares it, takes the records, writes the folder."""

    def __init__(self, runner: Any, spec: Spec, out: Path) -> None:
        self.stack = ExitStack()
        spec = self.stack.enter_context(target(structs.replace(spec, duration=FOREVER, sessions=None)))
        self.prepared, asked = beside(partial(prepare, spec, out))
        self.folder = make_folder(self.prepared.spec, out)
        store = open_store(self.folder, describe(self.prepared), asked)
        self.stopping = False
        clients = list(runner.clients) if isinstance(runner, MasterRunner) else ["local"]
        self.master = Master(runner, self.prepared, self.folder, store, Watch(), set, len(clients), spool=False)
        runner.environment.events.worker_connect.add_listener(self.invite)
        for client in clients:
            self.master.invite(client, client, 0)
        self.master.gather(COME_UP)
        self.master.begin(deal=False)
        store.head(self.header())
        self.driving = gevent.spawn(self.master.drive, lambda: self.stopping)

    def header(self) -> dict[str, Any]:
        profile = {"agents": None, "rate": None}  # Locust's to say
        return describe(self.prepared) | {"clock_anchor": self.master.clock.anchor(), "profile": profile}

    def invite(self, client_id: str) -> None:
        """A worker that comes late."""
        if not self.stopping and client_id not in self.master.members:
            self.master.invite(client_id, client_id, 0)

    def close(self) -> None:
        """End what runs, take the last batches, write the report."""
        self.stopping = True
        self.driving.join()
        self.driving.get()
        self.master.runner.environment.events.worker_connect.remove_listener(self.invite)
        self.master.tell("stopped", at_once=True)
        self.master.finish()
        self.master.mend()
        health = self.master.health() | {"interrupted": False}
        ended = {"duration": self.master.latest, "health": health, "itl": self.master.itl()}
        finish(self.master.store, self.header() | ended)
        self.stack.close()
        logger.info("agentload: the run's report is %s", write_report(self.master.store.folder))


def beside(main: Callable[[], Any]) -> Any:
    """What a coroutine returns, run on a loop of its own while this greenlet waits."""
    mailbox = Mailbox()
    thread = LoopThread(mailbox)
    thread.start(main)
    while not thread.ended.ready():
        mailbox.attend(0.05)
    return thread.ended.get()
