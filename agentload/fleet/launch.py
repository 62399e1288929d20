"""A run on several processes, on this machine or on many: what `--workers`, `--master`, `worker` and `--ui` do."""

import asyncio
import contextlib
import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import uvloop
from msgspec import Struct

from agentload.disk import FULL, finish, kept, open_store
from agentload.doors import loopback, open_door
from agentload.errors import BadInput
from agentload.fleet.master import Master
from agentload.fleet.token import TOKEN_ENV, given, made_up, secure
from agentload.fleet.worker import Work, unpatched_locust, work
from agentload.prepare import prepare
from agentload.realtime import describe, make_folder
from agentload.screen import Watch, shown
from agentload.spec import Spec
from agentload.telemetry.beside import Beside
from agentload.terminal import warn
from collectors.load import SPOOLS

if TYPE_CHECKING:
    from locust.env import Environment
    from locust.runners import MasterRunner
    from rich.console import Console

__all__ = ["Fleet", "Work", "run_fleet", "work"]

COME_UP = 60.0
"""Seconds that workers on this machine get to come up."""


class Fleet(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who works on a run, and where its master can be found."""

    workers: int = 0  # processes to start on this machine
    expect_workers: int = 0  # workers on other machines to wait for
    bind_host: str = "127.0.0.1"
    bind_port: int = 5557  # 0 takes a free one
    ui: bool = False  # Locust's web page, with our tab
    web_host: str = "127.0.0.1"
    web_port: int = 8089
    web_login: bool = False
    token: str = ""  # that workers must know; "": the environment's, or one made up for this run

    def __post_init__(self) -> None:
        if self.workers < 0 or self.expect_workers < 0:
            raise ValueError(f"workers must be >= 0, got {min(self.workers, self.expect_workers)}")
        if self.workers + self.expect_workers < 1:
            raise ValueError("a master needs workers: give --workers N, or --expect-workers N with --master")

    @property
    def login(self) -> bool:
        """Whether the page asks for a password: wherever others reach it, and where it is asked for."""
        return self.web_login or not loopback(self.web_host)


def run_fleet(spec: Spec, out: Path, options: Fleet, console: "Console | None" = None) -> tuple[Path, int]:
    """The run; returns its folder, all but the report in it, and the exit code."""
    logging.getLogger("locust").setLevel(logging.ERROR)
    known = options.token or given()
    token = known or made_up()
    environment, runner = bind(options, token)
    if options.expect_workers and not known:
        warn(f"workers join with {TOKEN_ENV}={token} in their environment")
    watch = Watch()
    with local_workers(options, runner.server.port, token) as processes, Beside(spec, watch) as beside:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
            prepared, asked = loop.run(prepare(spec, out))
        folder = make_folder(prepared.spec, out)
        store = open_store(folder, describe(prepared), asked)

        def died() -> set[int]:
            return {process.pid for process in processes if process.poll() is not None}

        count = options.workers + options.expect_workers
        master = Master(runner, prepared, folder, store, watch, died, count, spool=not options.expect_workers)
        try:
            with kept(store):
                health = drive(master, environment, options, beside, console)
        finally:
            runner.quit()
    header = describe(prepared) | {"clock_anchor": master.clock.anchor(), "duration": master.latest}
    finish(store, header | {"health": health, "itl": master.itl()} | beside.describe())
    with contextlib.suppress(OSError):  # not there, or not empty: a lost worker's records stay
        (folder / SPOOLS).rmdir()
    return store.folder, {"interrupted": 130, "max_error_rate": 1, "workers_lost": 1, FULL: 1}.get(
        health["stop_reason"], 0
    )


def drive(
    master: Master, environment: "Environment", options: Fleet, beside: Beside, console: "Console | None"
) -> dict[str, Any]:
    """The run from its workers' arrival to their farewell; returns its health."""
    import gevent

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers = [gevent.signal_handler(number, master.interrupt) for number in before]
    spec = master.prepared.spec
    environment.host = spec.endpoint.url
    try:
        with page(master, environment, options):
            if options.expect_workers:
                open_door("the master", options.bind_host, "who does not know the token gets nothing")
                where = f"{options.bind_host}:{master.runner.server.port}"
                warn(f"waiting at {where} for {options.expect_workers} workers")
            master.gather(None if options.expect_workers else COME_UP)
            master.begin()
            beside.begin(master.prepared, master.store, master.clock)
            environment.events.test_stopping.add_listener(lambda **_: master.end("workers_lost"))  # Locust sees none
            master.runner.update_state("running")
            header = describe(master.prepared) | {"clock_anchor": master.clock.anchor()}
            master.store.head(header)
            with shown(master.watch, f"{master.count} workers against {spec.endpoint.url}", spec.duration, console):
                master.drive()
            master.finish()
        beside.end()
        master.mend()
    finally:
        for handler in handlers:
            handler.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
    return master.health()


def bind(options: Fleet, token: str) -> "tuple[Environment, MasterRunner]":
    """Locust's master, listening to those who know the token."""
    locust = unpatched_locust()
    secure(token)
    environment = locust.env.Environment()
    port = options.bind_port if options.expect_workers else 0
    try:
        runner = environment.create_master_runner(options.bind_host, port)
    except (OSError, SystemExit, locust.exception.RPCError) as error:
        why = "it is taken" if isinstance(error, SystemExit) else error
        raise BadInput(f"the master cannot listen at {options.bind_host}:{port}: {why}; name another --master-bind-port"
                       ) from None  # fmt: skip
    return environment, runner


@contextlib.contextmanager
def local_workers(fleet: Fleet, port: int, token: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Worker processes on this machine, for as long as a `with` block lasts. They read the token from their stdin."""
    host = "127.0.0.1" if fleet.bind_host in ("*", "0.0.0.0") else fleet.bind_host  # noqa: S104  # asked, not bound
    options = msgspec.json.encode(Work(master_host=host, master_port=port, watch_stdin=True)).decode()
    command = [sys.executable, "-m", "agentload.fleet.worker", options]
    # Sessions of their own: Ctrl-C in a terminal is for the master, which ends their agents first.
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) for _ in range(fleet.workers)]
    try:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(f"{token}\n".encode())
            process.stdin.flush()
        yield processes
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5)
    finally:
        for process in processes:
            process.kill()
            process.wait()
            assert process.stdin is not None
            process.stdin.close()


@contextlib.contextmanager
def page(master: Master, environment: "Environment", options: Fleet) -> Iterator[None]:
    """Locust's web page with our tab, if it is wanted, for as long as a `with` block lasts."""
    if not options.ui:
        yield
        return
    from agentload.fleet.webui import served

    with served(master, environment, options.web_host, options.web_port, login=options.login) as url:
        warn(f"the run can be watched at {url}")
        yield
