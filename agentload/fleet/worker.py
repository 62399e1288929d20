"""A worker of a run on several processes: joins a master, does its shares, ships its records, keeps what it cannot.

`python -m agentload.fleet.worker OPTIONS` (JSON, a `Work`) is the process that `--workers` starts.
"""

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from agentload.disk import settle
from agentload.errors import BadInput, Failed
from agentload.fleet.channel import (
    ACK,
    BATCH,
    BEGIN,
    HELLO,
    JOB,
    PING,
    PONG,
    READY,
    STOP,
    TAKE,
    WORKER_PATIENCE,
    Batch,
    Dealt,
    Outbox,
    listen,
)  # fmt: skip
from agentload.fleet.crew import Crew
from agentload.fleet.token import TOKEN_ENV, given, secure
from agentload.prepare import Prepared
from agentload.terminal import warn
from collectors.records import Call
from collectors.store import Store

if TYPE_CHECKING:
    from locust.env import Environment
    from locust.rpc import Message
    from locust.runners import WorkerRunner

TICK = 0.05
"""Seconds between two looks of the hub at how things are."""


class Work(Struct, frozen=True, forbid_unknown_fields=True):
    """How a worker joins."""

    master_host: str = "127.0.0.1"
    master_port: int = 5557
    wait: float = 60.0  # seconds for a master to answer
    patience: float = WORKER_PATIENCE
    out: str = "runs"  # where its records are kept until its master has them
    watch_stdin: bool = False  # its parent is the master: when stdin closes, that is gone


def unpatched_locust() -> Any:
    """Locust as a library, without the patches of the interpreter that it makes for its own users' code."""
    os.environ["LOCUST_SKIP_MONKEY_PATCH"] = "1"
    try:
        import locust.env
    finally:
        del os.environ["LOCUST_SKIP_MONKEY_PATCH"]
    return locust


def fire(environment: "Environment", call: Call) -> None:
    """Tell Locust's own statistics of a call, unless we gave up on it. Milliseconds; sizes are output tokens."""
    if call.status == "cancelled":
        return
    environment.events.request.fire(
        request_type="chat",
        name=call.archetype,
        response_time=1000 * (call.end - call.sent),
        response_length=call.output_tokens,
        exception=None if call.status == "ok" else RuntimeError(call.status),
        context={},
    )


class Worker:
    """The hub's side of a worker: talks to the master, watches it, decides when to go."""

    def __init__(self, runner: "WorkerRunner", options: Work, *, greet: bool = True) -> None:
        from agentload.fleet.hub import LoopThread, Mailbox

        self.runner, self.options = runner, options
        self.mailbox = Mailbox()
        self.thread = LoopThread(self.mailbox)
        self.outbox = Outbox(lambda number, blob: runner.send_message(BATCH, {"number": number, "batch": blob}))
        self.crew: Crew | None = None
        self.heard = time.perf_counter()
        self.cut = ""  # why there is no master any more
        self.leaving = False
        listeners = {JOB: self.job, PING: self.ping, BEGIN: self.begin, TAKE: self.take, ACK: self.ack, STOP: self.stop}
        listen(runner, self.mailbox, listeners)
        events = runner.environment.events
        events.heartbeat_received.add_listener(self.hear)
        self.index = 0
        if greet:
            events.report_to_master.add_listener(self.report)
            runner.send_message(HELLO, {"host": socket.gethostname(), "pid": os.getpid()})

    def hear(self, **_: Any) -> None:
        self.heard = time.perf_counter()

    def report(self, client_id: str, data: dict[str, Any]) -> None:
        """Locust's users are our agents, for its charts."""
        alive = 0 if self.crew is None or self.crew.over else int(self.crew.watch.alive)
        data["user_count"], data["user_classes_count"] = alive, {"Agents": alive}

    def job(self, msg: "Message", at: float) -> None:
        """What to do, from the master."""
        prepared = msgspec.msgpack.decode(msg.data["prepared"], type=Prepared)
        name, self.index = msg.data["name"], msg.data["index"]
        folder = Path(msg.data["spool"] or Path(self.options.out) / f"{prepared.run_id}-{name}")
        post = self.thread.post
        self.crew = Crew(
            prepared,
            name,
            msg.data["part"],
            msgspec.json.decode(msg.data["header"]),
            Store(folder),
            lambda: post(self.runner.send_message, READY, {}),
            lambda batch, blob: post(self.shipped, batch, blob),
        )
        self.thread.start(self.crew.run)

    def shipped(self, batch: Batch, blob: bytes) -> None:
        self.outbox.put(batch.number, blob)
        for call in batch.calls:
            fire(self.runner.environment, call)

    def ping(self, msg: "Message", at: float) -> None:
        answer = {"sent": msg.data["sent"], "received": at, "answered": time.perf_counter()}
        self.runner.send_message(PONG, answer)

    def begin(self, msg: "Message", at: float) -> None:
        assert self.crew is not None
        self.runner.worker_state = "running"
        self.thread.call(self.crew.begin, msg.data["epoch"])

    def take(self, msg: "Message", at: float) -> None:
        assert self.crew is not None
        self.thread.call(self.crew.take, msgspec.convert(msg.data, Dealt))

    def ack(self, msg: "Message", at: float) -> None:
        self.hear()
        self.outbox.acknowledged(msg.data["number"])

    def stop(self, msg: "Message", at: float) -> None:
        self.end(msg.data["reason"], msg.data["at_once"])

    def end(self, reason: str, at_once: bool = False) -> None:
        if self.crew is None:
            self.leaving = True
        else:
            self.thread.call(self.crew.end, reason, at_once)

    def interrupt(self) -> None:
        """Ctrl-C in this worker's own terminal: the others take over what it leaves."""
        self.end("interrupted", at_once=self.leaving)
        self.leaving = True

    def lose(self, why: str) -> None:
        """There is no master any more: end, and keep the records."""
        if not self.cut:
            self.cut = why
            self.end("cut off")

    def serve(self) -> int:
        """Work until there is nothing more to do; return the exit code."""
        while self.crew is None or not (self.thread.ended.ready() and (self.cut or not self.outbox.waiting)):
            self.mailbox.attend(TICK)
            if self.crew is None and (self.leaving or self.cut):
                break
            self.outbox.resend()
            patience = self.options.wait if self.crew is None else self.options.patience
            if time.perf_counter() - self.heard > patience:
                self.lose(f"no word from it for {patience:g} s")
        if self.thread.ended.ready():
            self.thread.ended.get()  # a bug on the loop is raised here
        return self.leave()

    def leave(self) -> int:
        """Keep the records, or remove what the master has."""
        if self.crew is None:
            return 1 if self.cut else 0
        store = self.crew.store
        if not self.cut:
            store.drop()
            return 0
        settle(store, store.close)
        kept = f"{len(self.outbox.waiting)} of its last batches did not get through"
        warn(
            f"worker {self.crew.name} was cut off from its master ({self.cut}); {kept}; "
            f"all its records are in {store.folder.resolve()}"
        )
        return 1


def join(options: Work, token: str) -> "WorkerRunner":
    """Connect to the master. BadInput where none answers in time."""
    locust = unpatched_locust()
    secure(token)
    import gevent

    where = f"{options.master_host}:{options.master_port}"
    try:
        socket.getaddrinfo(options.master_host, options.master_port)
    except (OSError, OverflowError) as error:
        raise BadInput(f"--master-host {options.master_host!r} cannot be resolved: {error}") from None
    environment = locust.env.Environment()
    with gevent.Timeout(options.wait, False):
        runner: WorkerRunner = environment.create_worker_runner(options.master_host, options.master_port)
        return runner
    raise BadInput(
        f"no master answers at {where}; start one there with `agentload run --master`, or name its host and its token"
    )


def work(options: Work, token: str) -> int:
    """Join a master, work for it, return the exit code: 0 done, 1 cut off from the master."""
    if not token:
        raise BadInput(
            f"a worker needs its master's token: set {TOKEN_ENV} to what the master says, or --token-file FILE"
        )
    if not options.watch_stdin:
        warn(f"joining the master at {options.master_host}:{options.master_port}")
    early = at_end_of_stdin(lambda: os._exit(1)) if options.watch_stdin else None  # nothing is recorded yet
    worker = Worker(join(options, token), options)
    if early is not None:
        early.stop()
    watch(worker)
    code = worker.serve()
    worker.runner.client.close(linger=0 if worker.cut else 1000)
    return code


def watch(worker: Worker) -> None:
    """Ctrl-C, SIGTERM and, for a child of its master, the end of stdin."""
    import gevent

    for number in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(number, worker.interrupt)
    if worker.options.watch_stdin:
        at_end_of_stdin(lambda: worker.lose("it died"))


def at_end_of_stdin(act: Callable[[], object]) -> Any:
    """Do something once, when stdin closes, as it does when the parent dies. Gives what watches, to be stopped."""
    import gevent

    stdin = gevent.get_hub().loop.io(0, 1)

    def read() -> None:
        if not os.read(0, 64):
            stdin.stop()
            act()

    stdin.start(read)
    return stdin


def main() -> None:
    logging.getLogger("locust").setLevel(logging.ERROR)
    try:
        options = msgspec.json.decode(sys.argv[1], type=Work)
        sys.exit(work(options, os.read(0, 4096).decode().strip() if options.watch_stdin else given()))
    except BadInput as error:
        warn(error)
        sys.exit(2)
    except Failed as error:
        warn(error)
        sys.exit(1)


if __name__ == "__main__":
    main()
