"""The box as something to start: on a running event loop, or as a process of its own.

    with BoxProcess(BoxOptions()) as url:
        ...  # http://127.0.0.1:PORT/v1

`python -m agentload.box.serve OPTIONS` (JSON) is that process. It writes its URL on stdout when it takes requests,
and ends with SIGTERM or SIGINT, or when its stdin closes, as it does when the parent dies.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import msgspec

from agentload.box.options import BoxOptions
from agentload.box.replica import BEHIND, Lag
from agentload.errors import Failed

LOOK = 5.0
"""Seconds between two looks at whether the machine keeps up."""


def silent(line: str) -> None:
    """Say nothing."""


async def serve(
    options: BoxOptions, ready: Callable[[str], None], stop: asyncio.Event, say: Callable[[str], None] = silent
) -> None:
    """Serve until `stop` is set; `ready` is called with the URL (ending in /v1) when requests are taken.

    `say` is called with a line whenever tokens were written too late for the model's times to be believed.

    Raises OSError where the address or the log file cannot be had.
    """
    from aiohttp import web

    from agentload.box.cluster import Cluster
    from agentload.box.face import Face

    with ExitStack() as stack:
        log = None
        if options.log:
            log = stack.enter_context(Path(options.log).open("ab", buffering=0))  # noqa: ASYNC230  # before anything runs
        face = Face(Cluster(options), options, log)
        # A client that hangs up cancels its handler, and through it the request in the engine.
        runner = web.AppRunner(face.application(), access_log=None, handler_cancellation=True, shutdown_timeout=0.2)
        await runner.setup()
        try:
            site = web.TCPSite(runner, options.host, options.port, backlog=4_096)
            await site.start()
            host, port = runner.addresses[0][:2]
            ready(f"http://{f'[{host}]' if ':' in host else host}:{port}/v1")
            await watch(face.driver.lag, stop, say)
        finally:
            await runner.cleanup()
            face.driver.close()


async def watch(lag: Lag, stop: asyncio.Event, say: Callable[[str], None], every: float = LOOK) -> None:
    """Wait for `stop`, and say so whenever more than a step in a hundred was written late since the last look."""
    steps = behind = 0
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), every)
        steps, behind, old_steps, old_behind = lag.steps, lag.behind, steps, behind
        late, of = behind - old_behind, steps - old_steps
        if late > 0.01 * max(100, of):
            say(f"falling behind: {late:,} of the last {of:,} steps were written more than {1e3 * BEHIND:g} ms after "
                "their time; what is measured now is this machine, not the model")  # fmt: skip


def serve_until_signal(
    options: BoxOptions, ready: Callable[[str], None], say: Callable[[str], None] = silent, *, watch_stdin: bool = False
) -> None:
    """Serve on a loop of its own until SIGTERM or SIGINT, or, if asked, until stdin closes."""
    import uvloop

    async def main() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        if watch_stdin:

            def read() -> None:
                if not os.read(0, 64):
                    loop.remove_reader(0)
                    stop.set()

            loop.add_reader(0, read)
        await serve(options, ready, stop, say)

    uvloop.run(main())


class BoxProcess:
    """A box in its own process, for as long as a `with` block lasts; entering gives its URL.

    Raises Failed, with what the process said, when it does not come up.
    """

    def __init__(self, options: BoxOptions | None = None) -> None:
        self.options = options or BoxOptions()
        self._process: subprocess.Popen[bytes] | None = None
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # closed when the process has ended

    def __enter__(self) -> str:
        command = [sys.executable, "-m", "agentload.box.serve", msgspec.json.encode(self.options).decode()]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,  # a file: nobody would empty a pipe
            start_new_session=True,  # Ctrl-C in a terminal is for the run, which ends its sessions first
        )
        assert self._process.stdout is not None
        url = self._process.stdout.readline().decode().strip()
        if not url:
            self._process.communicate()
            self._said.seek(0)
            said = self._said.read().decode(errors="replace").strip()
            self._said.close()
            raise Failed(f"the box did not start: {said.splitlines()[-1] if said else 'it said nothing'}")
        return url

    @property
    def ended(self) -> bool:
        """Whether it is there no more, though nobody ended it."""
        return self._process is not None and self._process.poll() is not None

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return None if self._process is None else self._process.pid

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._said.close()


if __name__ == "__main__":
    serve_until_signal(
        msgspec.json.decode(sys.argv[1], type=BoxOptions),
        lambda url: (sys.stdout.write(url + "\n"), sys.stdout.flush())[1],
        watch_stdin=True,
    )
