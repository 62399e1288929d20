"""An asyncio loop beside gevent's hub.

Locust lives on gevent's hub, in the main thread; agents live on a uvloop of their own, in a thread of the operating
system. That thread is started with the interpreter's original call, so that it is a real one even where Locust has
patched `threading`. Both sides hand functions to each other and share nothing else.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

import gevent
import gevent.monkey
import uvloop
from gevent.event import AsyncResult
from gevent.queue import Empty, Queue

P = ParamSpec("P")
T = TypeVar("T")


def start_thread(run: Callable[..., object], *arguments: Any) -> None:
    """Start a thread of the operating system, whatever has been patched."""
    gevent.monkey.get_original("_thread", "start_new_thread")(run, arguments)


class RealThreads(ThreadPoolExecutor):
    """A thread for each call: `asyncio.to_thread` where patched threads would wait for a hub that never runs."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()

        def run() -> None:
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001  # whoever awaits the future gets it
                future.set_exception(error)
            else:
                future.set_result(result)

        start_thread(run)
        return future


class Mailbox:
    """Functions to be called by one greenlet, in the order in which they came.

    Locust swallows what its listeners raise; what is called from here is raised where it is waited for.
    """

    def __init__(self) -> None:
        self._waiting: Queue[tuple[Callable[..., object], tuple[Any, ...]]] = Queue()

    def put(self, function: Callable[..., object], *arguments: Any) -> None:
        self._waiting.put((function, arguments))

    def attend(self, seconds: float) -> None:
        """Call what comes within that time."""
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            try:
                function, arguments = self._waiting.get(timeout=left)
            except Empty:
                return
            function(*arguments)


class LoopThread:
    """Runs one coroutine on a uvloop in a thread of its own. Made by the hub; `ended` then has its result."""

    def __init__(self, mailbox: Mailbox) -> None:
        self.mailbox = mailbox
        self.loop = uvloop.new_event_loop()
        if gevent.monkey.is_module_patched("threading"):
            self.loop.set_default_executor(RealThreads())
        self.ended: AsyncResult[Any] = AsyncResult()
        self._posted: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._bell = gevent.get_hub().loop.async_()  # its send() is the one thing of the hub that any thread may call
        self._bell.start(self._answer)

    def start(self, main: Callable[[], Coroutine[Any, Any, object]]) -> None:
        start_thread(self._run, main)

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """From the hub: run a function on the loop. Nothing happens where the loop has ended."""
        if not self.ended.ready() and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(function, *arguments)

    def post(self, function: Callable[..., object], *arguments: Any) -> None:
        """From any thread: a letter for the mailbox."""
        self._posted.append((function, arguments))
        self._bell.send()

    def _run(self, main: Callable[[], Coroutine[Any, Any, object]]) -> None:
        asyncio.set_event_loop(self.loop)
        task = self.loop.create_task(main())
        self.loop.run_until_complete(asyncio.wait({task}))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        if not task.cancelled() and (error := task.exception()) is not None:
            self.post(self.ended.set_exception, error)
        else:
            self.post(self.ended.set, None if task.cancelled() else task.result())

    def _answer(self) -> None:
        while self._posted:
            function, arguments = self._posted.popleft()
            self.mailbox.put(function, *arguments)
