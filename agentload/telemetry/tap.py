"""Records on their way to something slower than the load: an append on the hot path, the rest in a thread."""

import threading
from collections.abc import Callable

from collectors.records import Call, Session, Tool

Record = Call | Tool | Session

PERIOD = 0.5
"""Seconds between two batches."""
MOST = 200_000
"""Records held for whoever takes them; what comes while so many wait is dropped, and counted."""
PATIENCE = 5.0
"""Seconds that the last batch gets."""


class Tap:
    """Hands records to `take` in batches, in one thread of its own."""

    def __init__(self, take: Callable[[list[Record]], None], name: str) -> None:
        self.dropped = 0
        self._take = take
        self._rows: list[Record] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def __call__(self, record: Record) -> None:
        """Take one record, on the hot path."""
        if len(self._rows) < MOST:
            self._rows.append(record)
        else:
            self.dropped += 1

    def close(self) -> None:
        """Hand on the rest, within `PATIENCE` seconds."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(PATIENCE)

    def _run(self) -> None:
        while not self._over.wait(PERIOD):
            self._hand_on()
        self._hand_on()

    def _hand_on(self) -> None:
        rows = self._rows[:]
        if rows:
            self._take(rows)
        del self._rows[: len(rows)]  # from the front, while the hot path appends to the back
