"""An alarm at an instant. Timers of event loops have a grain of a millisecond, a tenth of a step; Linux has better."""

import asyncio
import ctypes
import os
import struct
import sys
import time
from collections.abc import Callable

_MONOTONIC, _NONBLOCK, _CLOEXEC, _ABSOLUTE = 1, 0o4000, 0o2000000, 1  # <time.h>, <sys/timerfd.h>


class Alarm:
    """Calls `act` on the running event loop at the instant last `set`, never before it; one instant at a time.

    On Linux a timerfd wakes the loop, about 0.1 ms late when the machine is quiet; elsewhere the loop's own timer does.
    """

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act
        self._loop = asyncio.get_running_loop()
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._file = -1
        if sys.platform == "linux" and struct.calcsize("l") == 8:  # where a timespec is two 64-bit numbers
            self._libc = ctypes.CDLL(None)
            self._setting = ctypes.create_string_buffer(32)
            self._file = self._libc.timerfd_create(_MONOTONIC, _NONBLOCK | _CLOEXEC)
        if self._file >= 0:
            self._loop.add_reader(self._file, self._ring)

    def set(self, instant: float) -> None:
        """Ring at `instant` (time.monotonic()), or at once if that is past."""
        self._due = instant
        if self._file >= 0:
            struct.pack_into("qqqq", self._setting, 0, 0, 0, *divmod(max(1, int(instant * 1e9)), 1_000_000_000))
            self._libc.timerfd_settime(self._file, _ABSOLUTE, self._setting, None)
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._loop.time() + instant - time.monotonic(), self._try)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._file >= 0:
            self._loop.remove_reader(self._file)
            os.close(self._file)
            self._file = -1

    def _ring(self) -> None:
        try:
            os.read(self._file, 8)
        except BlockingIOError:  # set anew since it rang
            return
        self._try()

    def _try(self) -> None:
        if time.monotonic() < self._due:
            self._loop.call_soon(self._try)
        else:
            self._act()
