"""Where records are written: the one file that touches the disk while a run goes on.

While it runs, records are appended to Arrow IPC streams, readable up to the last whole batch after `kill -9`. At the
end they become Parquet. `collectors.load` reads both.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from threading import Lock
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args, get_origin

import msgspec
from msgspec.structs import astuple, fields

from collectors.load import TABLES, Columns, conformed, read_batches, read_table, to_columns
from collectors.records import CALIBRATION, SCHEMA, Call, Sample, Session, Tool

if TYPE_CHECKING:
    import pyarrow as pa

PIECE = 1_000
"""Rows encoded at a time. Arrow holds the interpreter while it encodes, and the event loop beside it has calls to send:
1,000 calls are held for under a millisecond per column set."""

ROW_GROUP = 200_000
"""Rows of a Parquet row group: few enough to hold in memory, enough to compress well."""


class Store:
    """A run folder that takes records. `emit` is for the hot path; `flush`, once a second, may run in a thread."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._gathered: dict[type[msgspec.Struct], list[msgspec.Struct]] = {kind: [] for kind in TABLES.values()}
        self._writers: dict[type[msgspec.Struct], tuple[pa.OSFile, pa.RecordBatchStreamWriter]] = {}
        self._flushing = Lock()
        if any((self.folder / f"{name}{end}").exists() for name in TABLES for end in (".arrows", ".parquet")):
            raise FileExistsError(f"{self.folder} already holds the records of a run; name another folder")
        self._held = _hold(self.folder)
        if self._held is None:
            raise BlockingIOError(f"{self.folder} is being written by another run; name another folder")

    def emit(self, record: Call | Tool | Session | Sample) -> None:
        """Take one record, from any thread; it is on disk after the next `flush`."""
        self._gathered[type(record)].append(record)

    def flush(self) -> None:
        """Hand what has gathered to the operating system.

        Rows leave their list only after they were written, and from its front, while `emit` appends to its back: no
        record is lost to a concurrent `emit` or to a full disk.
        """
        with self._flushing:
            if not self._writers:
                self._open()
            for kind, rows in self._gathered.items():
                for _ in range(0, len(rows), PIECE):
                    piece = rows[:PIECE]
                    self._writers[kind][1].write_batch(to_batch(piece, kind))
                    del rows[: len(piece)]

    def close(self) -> None:
        """Write the rest, then Parquet, then remove the streams."""
        self.flush()
        for file, writer in self._writers.values():
            writer.close()
            file.close()
        for name in TABLES:
            _write_parquet(self.folder, name, read_batches(self.folder / f"{name}.arrows"))
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def _open(self) -> None:
        import pyarrow as pa

        for name, kind in TABLES.items():
            file = pa.OSFile(
                str(self.folder / f"{name}.arrows"), "wb"
            )  # unbuffered: a write is with the system at once
            self._writers[kind] = file, pa.ipc.new_stream(file, schema(kind))


def write_header(folder: Path | str, header: dict[str, Any]) -> None:
    """run.json: what was asked for, of what, by what. Secrets must not be in it."""
    text = msgspec.json.format(msgspec.json.encode(header, order="deterministic"), indent=2)
    write_file(Path(folder) / "run.json", text)


def write_file(path: Path, content: bytes) -> None:
    """Write `path` whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.part")
    half.write_bytes(content)
    half.replace(path)


def recover(folder: Path | str) -> bool:
    """Make an interrupted run whole: streams become Parquet, and sessions cut off get a row with outcome "unfinished".

    At most the batch that was being written is lost. False when there is nothing to do, or when the run still goes on.
    """
    folder = Path(folder)
    if not any((folder / f"{name}.arrows").exists() for name in TABLES):
        return False
    held = _hold(folder)
    if held is None:
        return False
    for name in ("calls", "tools", "server"):
        if (stream := folder / f"{name}.arrows").exists():
            _write_parquet(folder, name, read_batches(stream))
    kinds: dict[str, type[msgspec.Struct]] = {"calls": Call, "tools": Tool, "sessions": Session}
    calls, tools, sessions = (to_columns(read_table(folder, name), kind) for name, kind in kinds.items())
    missing = to_batch(list(unfinished(calls, tools, sessions)), Session)
    _write_parquet(folder, "sessions", [*read_table(folder, "sessions").to_batches(), missing])
    os.close(held)
    return True


def schema(record: type[msgspec.Struct]) -> "pa.Schema":
    """The Arrow schema of a record, from its annotations."""
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
    arrays = [pa.array(column, field.type) for column, field in zip(columns, wanted, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=wanted)


def _write_parquet(folder: Path, name: str, batches: Iterable["pa.RecordBatch"]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    half, wanted = folder / f".{name}.parquet.part", schema(TABLES[name])
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


def _hold(folder: Path) -> int | None:
    """A lock on the folder, which the system lets go when the process dies; None when another process has it."""
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        return None
    return held


def unfinished(calls: Columns, tools: Columns, sessions: Columns) -> Iterator[Session]:
    """A row for every agent that made calls and has none, and for the root of each."""
    known = set(zip(sessions.session.tolist(), sessions.agent.tolist(), strict=True))
    seen = {key for key in zip(calls.session.tolist(), calls.agent.tolist(), strict=True) if key[0] != CALIBRATION}
    lost = sorted((seen | {(session, "") for session, _ in seen}) - known)
    if not lost:
        return
    rows = _rows_of(calls, set(lost)), _rows_of(tools, set(lost))
    for key in lost:
        yield _rebuild(key, calls, rows[0].get(key, []), tools, rows[1].get(key, []), seen)


def _rows_of(columns: Columns, keys: set[tuple[int, str]]) -> dict[tuple[int, str], list[int]]:
    rows: dict[tuple[int, str], list[int]] = {}
    for i, key in enumerate(zip(columns.session.tolist(), columns.agent.tolist(), strict=True)):
        if key in keys:
            rows.setdefault(key, []).append(i)
    return rows


def _rebuild(
    key: tuple[int, str], calls: Columns, c: list[int], tools: Columns, t: list[int], seen: set[tuple[int, str]]
) -> Session:
    """The row of an agent that was cut off, from its calls (rows `c`) and its tools (rows `t`)."""
    session, agent = key
    spans = [*zip(calls.due[c], calls.end[c], strict=True), *zip(tools.start[t], tools.end[t], strict=True)]
    start, end = min((s for s, _ in spans), default=0.0), max((e for _, e in spans), default=0.0)
    step_ends: dict[int, float] = {}  # tools of one step ran in parallel: the longest counts
    for step, seconds in zip(tools.step[t].tolist(), (tools.end - tools.start)[t].tolist(), strict=True):
        step_ends[step] = max(step_ends.get(step, 0.0), seconds)
    model, tool = float((calls.end - calls.sent)[c].sum()), sum(step_ends.values())
    return Session(
        session=session,
        agent=agent,
        archetype=calls.archetype[c[0]] if c else "",
        due=float(start),
        start=float(start),
        end=float(end),
        outcome="unfinished",
        intents=0,
        steps=len(set(calls.step[c].tolist())),
        calls=len(c),
        tool_calls=len(t),
        children=sum(s == session and a != "" and a.rpartition(".")[0] == agent for s, a in seen),
        compactions=0,
        input_tokens=int(calls.input_tokens[c].sum()),
        cached_tokens=int(calls.cached_tokens[c].sum()),
        output_tokens=int(calls.output_tokens[c].sum()),
        reasoning_tokens=int(calls.reasoning_tokens[c].sum()),
        argument_tokens=int(calls.argument_tokens[c].sum()),
        model_seconds=model,
        tool_seconds=tool,
        wait_seconds=max(0.0, float(end - start) - model - tool),
        join_seconds=0.0,
        tenant=calls.tenant[c[0]] if c else "",
        worker=calls.worker[c[0]] if c else "",
        error="the run was interrupted",
    )
