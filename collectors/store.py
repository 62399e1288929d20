"""Where records are written: the one file that touches the disk while a run goes on.

While it runs, records are appended to Arrow IPC streams, readable up to the last whole batch after `kill -9`. At the
end they become Parquet. `collectors.load` reads both, `collectors.recovery` mends what was cut off.
"""

import contextlib
import fcntl
import functools
import os
import shutil
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from threading import Lock
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args, get_origin

import msgspec
from msgspec.structs import astuple, fields

from collectors.load import BEGUN, HEADER, TABLES, conformed, read_batches, read_records
from collectors.records import SCHEMA, Call, Sample, Session, Tool

if TYPE_CHECKING:
    import pyarrow as pa

PIECE = 1_000
"""Rows encoded at a time. Arrow holds the interpreter while it encodes, and the event loop beside it has calls to send:
1,000 calls are held for under a millisecond per column set."""

ROW_GROUP = 200_000
"""Rows of a Parquet row group: few enough to hold in memory, enough to compress well."""


class Stream:
    """A file that grows by whole pieces: of one that the disk does not take, nothing stays."""

    def __init__(self, path: Path) -> None:
        self.path, self.size = path, 0
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o666)

    def append(self, piece: "bytes | pa.Buffer") -> None:
        """Hand a piece to the operating system. Raises OSError."""
        left = memoryview(piece)
        try:
            while left:
                left = left[os.write(self._file, left) :]
        except OSError:
            os.ftruncate(self._file, self.size)
            raise
        self.size += len(piece)

    def in_place(self) -> bool:
        """Whether its path still leads to it: not when it was deleted or moved."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._file))
        except (FileNotFoundError, NotADirectoryError):
            return False

    def move(self, path: Path) -> None:
        """Go on at another path with all that was written, which the system still has even where it was deleted."""
        other, at = Stream(path), 0
        try:
            while piece := os.pread(self._file, 1 << 20, at):
                other.append(piece)
                at += len(piece)
        except OSError:
            other.remove()
            raise
        os.close(self._file)
        self.path, self.size, self._file = other.path, other.size, other._file

    def close(self) -> None:
        os.close(self._file)

    def remove(self) -> None:
        os.close(self._file)
        self.path.unlink(missing_ok=True)


class Store:
    """A run folder that takes records. `emit` is for the hot path; `flush`, twice a second, may run in a thread."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.mended = 0  # times that the folder was deleted or moved away under us, and made again
        self.gathered: dict[type[msgspec.Struct], list[msgspec.Struct]] = {kind: [] for kind in TABLES.values()}
        """Records not on disk yet, by kind; to append to a list is to `emit`."""
        self._streams: dict[type[msgspec.Struct], Stream] = {}
        self._begun, self._count = -1, 0  # file and value of the count of calls that were begun
        self._header = b""
        self._closed = False
        self._flushing = Lock()
        if any((self.folder / f"{name}{end}").exists() for name in TABLES for end in (".arrows", ".parquet")):
            raise FileExistsError(f"{self.folder} already holds the records of a run; name another folder")
        self._held = hold(self.folder)
        if self._held is None:
            raise BlockingIOError(f"{self.folder} is being written by another run; name another folder")

    @property
    def waiting(self) -> int:
        """Records that are not on disk yet."""
        return sum(map(len, self.gathered.values()))

    def begin(self) -> None:
        """Count a call that is about to be made. Every one ends in a record, so that after `kill -9` the difference is
        how many are missing: the system has the count at once (2 µs)."""
        self._count += 1
        with contextlib.suppress(OSError):  # a full disk: the count stays behind, and the run ends soon
            if self._begun < 0:
                self._count_in(self.folder)
            os.pwrite(self._begun, b"%-20d" % self._count, 0)

    def emit(self, record: Call | Tool | Session | Sample) -> None:
        """Take one record, from any thread; it is on disk after the next `flush`."""
        self.gathered[type(record)].append(record)

    def head(self, header: dict[str, Any]) -> None:
        """Write the header, and remember it for a folder that has to be made again. Raises OSError."""
        self._header = header_text(header)
        write_file(self.folder / HEADER, self._header)

    def flush(self) -> None:
        """Hand what has gathered to the operating system. Raises OSError where it takes no more.

        Rows leave their list only after they were written, and from its front, while `emit` appends to its back: no
        record is lost to a concurrent `emit` or to a full disk.
        """
        with self._flushing:
            self._open()
            if not all(stream.in_place() for stream in self._streams.values()):
                self._mend()
            for kind, rows in self.gathered.items():
                for _ in range(0, len(rows), PIECE):
                    piece = rows[:PIECE]
                    self._streams[kind].append(to_batch(piece, kind).serialize())
                    del rows[: len(piece)]

    def close(self) -> None:
        """Write the rest, then Parquet, then remove the streams; one whose Parquet finds no room stays, and is as good.

        Raises OSError where the rest cannot be written; then nothing is lost yet, and `move` may help.
        """
        if self._closed:
            return
        self.flush()
        for name, kind in TABLES.items():
            try:
                write_parquet(self.folder, name, read_batches(self.folder / f"{name}.arrows"))
            except OSError:
                (self.folder / f".{name}.parquet.part").unlink(missing_ok=True)
            self._streams.pop(kind).close()
        self._let_go()
        if self._begun >= 0:
            os.close(self._begun)
            (self.folder / BEGUN).unlink(missing_ok=True)
        self._closed = True

    def leave(self) -> None:
        """Write the rest and let go of the folder as it is, for another store to `join`. Raises OSError."""
        try:
            self.flush()
        finally:
            for stream in self._streams.values():
                stream.close()
            self._let_go()

    def join(self, folder: Path) -> None:
        """Take in the records that another store left in its folder, and remove that. Raises OSError."""
        self.flush()
        for name, kind in TABLES.items():
            for batch in read_records(folder, name):
                self._streams[kind].append(batch.serialize())
        shutil.rmtree(folder)

    def move(self, folder: Path) -> None:
        """Go on in another folder, with everything that this one has. Raises OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        for stream in self._streams.values():
            stream.move(folder / stream.path.name)
        for name in TABLES if self._closed else ():
            for done in self.folder.glob(f"{name}.*"):
                shutil.copy(done, folder)
        if self._header:
            write_file(folder / HEADER, self._header)
        if self._begun >= 0 and not self._closed:
            self._count_in(folder)
        self._let_go()
        self.folder, self._held = folder, hold(folder)

    def shed(self, most: int) -> None:
        """Keep no more than so many records of each kind waiting: the disk refuses them, and somebody else has them."""
        with self._flushing:
            for rows in self.gathered.values():
                del rows[:-most]

    def drop(self) -> None:
        """Remove the folder: somebody else has its records."""
        for stream in self._streams.values():
            stream.close()
        self._let_go()
        if self._begun >= 0:
            os.close(self._begun)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _open(self) -> None:
        for name, kind in TABLES.items():
            if kind not in self._streams:
                stream = Stream(self.folder / f"{name}.arrows")
                try:
                    stream.append(schema(kind).serialize())
                except OSError:
                    stream.remove()
                    raise
                self._streams[kind] = stream

    def _mend(self) -> None:
        """Make again what was deleted or moved away, from what the system still has of it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for stream in self._streams.values():
            if not stream.in_place():
                stream.move(stream.path)
        if self._header:
            write_file(self.folder / HEADER, self._header)
        if self._begun >= 0:
            self._count_in(self.folder)
        self._let_go()
        self._held = hold(self.folder)
        self.mended += 1

    def _count_in(self, folder: Path) -> None:
        """Count in that folder from now on. The number of the open file stays, for `begin` may be using it."""
        fresh = os.open(folder / BEGUN, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        if self._begun < 0:
            self._begun = fresh
        else:
            os.dup2(fresh, self._begun, inheritable=False)
            os.close(fresh)

    def _let_go(self) -> None:
        """Close the lock."""
        if self._held is not None:
            os.close(self._held)
            self._held = None


def write_header(folder: Path | str, header: dict[str, Any]) -> None:
    """run.json: what was asked for, of what, by what. Secrets must not be in it."""
    write_file(Path(folder) / HEADER, header_text(header))


def header_text(header: dict[str, Any]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(header, order="deterministic"), indent=2)


def write_file(path: Path, content: bytes) -> None:
    """Write `path` whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.part")
    half.unlink(missing_ok=True)  # in a stranger's folder it may be a link that leads elsewhere
    half.write_bytes(content)
    half.replace(path)


@functools.cache
def schema(record: type[msgspec.Struct]) -> "pa.Schema":
    """The Arrow schema of a record, from its annotations; kept, since to make one takes as long as to write 10 rows."""
    import pyarrow as pa

    types = {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_(), tuple: pa.list_(pa.float32())}

    def field(info: msgspec.structs.FieldInfo) -> pa.Field:
        choices = (
            [t for t in get_args(info.type) if t is not NoneType] if NoneType in get_args(info.type) else [info.type]
        )
        return pa.field(
            info.name, types[get_origin(choices[0]) or choices[0]], nullable=NoneType in get_args(info.type)
        )

    return pa.schema([field(info) for info in fields(record)], metadata={"agentload_schema": str(SCHEMA)})


def to_batch(rows: Sequence[msgspec.Struct], record: type[msgspec.Struct]) -> "pa.RecordBatch":
    """Records of one kind as an Arrow batch."""
    import pyarrow as pa

    wanted = schema(record)
    columns: Iterable[Sequence[Any]] = zip(*map(astuple, rows), strict=True) if rows else [()] * len(wanted)
    arrays = [to_array(column, field.type) for column, field in zip(columns, wanted, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=wanted)


def to_array(values: Sequence[Any], kind: "pa.DataType") -> "pa.Array":
    """Values as Arrow has them. Half of a run's columns hold one value in all their rows: that is converted once.
    Numbers are packed by `struct`, in a quarter of the time that Arrow takes to look at them one by one."""
    import pyarrow as pa

    count = len(values)
    if values and values[0] is values[-1] and values.count(values[0]) == count:
        return pa.repeat(pa.scalar(values[0], kind), count)
    letter = {pa.int64(): "q", pa.float64(): "d"}.get(kind)
    if letter is not None:
        with contextlib.suppress(struct.error):  # None among them
            packed = struct.Struct(f"{count}{letter}").pack(*values)
            return pa.Array.from_buffers(kind, count, [None, pa.py_buffer(packed)])
    return pa.array(values, kind)


def write_parquet(folder: Path, name: str, batches: Iterable["pa.RecordBatch"]) -> None:
    """Records as Parquet, whole or not at all; their stream is removed once that is there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    half, wanted = folder / f".{name}.parquet.part", schema(TABLES[name])
    half.unlink(missing_ok=True)
    with pq.ParquetWriter(half, wanted, compression="zstd") as writer:
        group: list[pa.RecordBatch] = []
        for batch in batches:
            group += conformed(pa.Table.from_batches([batch]), TABLES[name]).to_batches()
            if sum(b.num_rows for b in group) >= ROW_GROUP:
                writer.write_table(pa.Table.from_batches(group, wanted))
                group = []
        writer.write_table(pa.Table.from_batches(group, wanted))
    half.replace(folder / f"{name}.parquet")
    (folder / f"{name}.arrows").unlink(missing_ok=True)


def hold(folder: Path) -> int | None:
    """A lock on the folder, which the system lets go when the process dies; None when another process has it."""
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        return None
    return held
