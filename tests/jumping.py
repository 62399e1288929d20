"""A clock that jumps: an event loop that does not wait for what is due next, but says that it is time for it."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from agentload.session import Clock

T = TypeVar("T")


class Skipping(selectors.DefaultSelector):  # type: ignore[misc,valid-type]  # which one it is depends on the system
    """Where a loop would wait, time has passed at once."""

    passed = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is not None:
            self.passed += max(0.0, timeout)
        return super().select(None if timeout is None else 0.0)


class Loop(asyncio.SelectorEventLoop):
    """A loop of that time, for what waits for nothing but it: other threads and processes have theirs."""

    def __init__(self) -> None:
        self.skipping = Skipping()
        super().__init__(self.skipping)

    def time(self) -> float:
        return self.skipping.passed


class Jumping(Clock):
    """The run clock of such a loop."""

    def __init__(self) -> None:
        super().__init__(0.0)

    def now(self) -> float:
        return asyncio.get_running_loop().time()


def run(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(main)
