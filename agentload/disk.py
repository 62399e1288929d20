"""What a run does about its folder: opens it, has records written, and goes on when the disk refuses them.

A full disk, or a folder deleted under us, costs no record: they stay in memory while writing is tried again, and go to
a folder elsewhere when the run has to end before there is room.
"""

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from msgspec import structs

from agentload.errors import BadInput, Failed
from agentload.terminal import warn
from collectors.records import Call
from collectors.store import Store

PATIENCE = 10.0
"""Seconds of refusal after which a run ends: load whose records find no place is load for nothing, and memory ends."""

FULL = "disk"
"""Why such a run ended, in its header."""


def open_store(folder: Path, header: dict[str, Any], asked: Iterable[Call] = ()) -> Store:
    """A folder with a header, and what calibration asked. BadInput where the disk takes none."""
    try:
        store = Store(folder)
        store.head(header)
        for call in asked:
            store.emit(structs.replace(call, itl=None))
        store.flush()  # pyarrow is imported here, before the clock starts
    except OSError as error:
        raise BadInput(f"--out {str(folder.parent)!r} cannot hold run folders: {error.strerror or error}") from None
    return store


class Disk:
    """Has the records of a store written, and says so, once, when they cannot be, and when they can be again."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.refused: float | None = None  # when it began to refuse

    def write(self) -> None:
        """Write what has gathered; to be called twice a second, perhaps in a thread."""
        mended, folder = self.store.mended, self.store.folder
        try:
            self.store.flush()
        except OSError as error:
            if self.refused is None:
                self.refused = time.perf_counter()
                why = error.strerror or error
                warn(f"{folder} takes no records ({why}): they stay in memory for {PATIENCE:g} s, then the run ends")
            return
        if self.refused is not None:
            self.refused = None
            warn(f"{folder} takes records again; none was lost")
        if self.store.mended > mended:
            warn(f"{folder} was deleted or moved away: it was made again, with every record")

    @property
    def given_up(self) -> bool:
        return self.refused is not None and time.perf_counter() - self.refused > PATIENCE


def settle(store: Store, write: Callable[[], None]) -> None:
    """Have something written to a store's folder; where it refuses, to a folder elsewhere that everything moves to.

    Raises Failed where that refuses too.
    """
    try:
        write()
    except OSError as error:
        folder, why = store.folder, error.strerror or error
        elsewhere = Path(tempfile.mkdtemp(prefix=f"{folder.name}-"))
        try:
            store.move(elsewhere)
            write()
        except OSError as second:
            raise Failed(
                f"{store.waiting} records are lost: neither {folder} ({why}) nor {elsewhere} ({second.strerror}) takes "
                f"them; those written before can still be reported: agentload report {folder}"
            ) from None
        warn(f"{folder} takes no more ({why}): the whole run is in {elsewhere}")


@contextlib.contextmanager
def kept(store: Store) -> Iterator[None]:
    """Whatever breaks the block off, what has been recorded is kept."""
    try:
        yield
    except BaseException:
        store.close()
        raise


def finish(store: Store, header: dict[str, Any]) -> None:
    """Close a store and write the header of a run that has ended."""

    def write() -> None:
        store.close()
        store.head(header)

    settle(store, write)


def report(folder: Path) -> tuple[Path | None, dict[str, Any]]:
    """Write a run's summary and report; gives the report's path (None where the disk takes none) and the summary."""
    from collectors.load import load_run
    from collectors.report import write_report
    from collectors.summary import summarise

    try:
        page = write_report(folder)
    except OSError as error:
        warn(f"{folder} takes no report ({error.strerror or error}); make room, then: agentload report {folder}")
        return None, summarise(load_run(folder))
    return page, json.loads((folder / "summary.json").read_text())
