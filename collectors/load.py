"""Where records are read: a run folder becomes columns, whether the run ended well or was cut off.

A column is a numpy array with one item per record. Optional numbers are float64 with NaN for None, strings are object
arrays whose items are shared, and the list column `itl` is `Ragged`.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import msgspec
import numpy as np
from msgspec.structs import fields
from numpy.typing import NDArray

from collectors.records import CALIBRATION, SCHEMA, Call, Sample, Session, Tool
from collectors.sound import MAX_ROWS, Unreadable, header_of, sound

if TYPE_CHECKING:
    import pyarrow as pa

Array: TypeAlias = NDArray[Any]
TABLES: dict[str, type[msgspec.Struct]] = {"calls": Call, "tools": Tool, "sessions": Session, "server": Sample}
"""The files of a run folder and the record each holds."""

HEADER = "run.json"
BEGUN = "calls.begun"
"""How many calls were begun, as text; there while a run goes on, and of one that was killed."""
SPOOLS = "workers"
"""Folder of the folders in which workers on the same machine keep their records until their master has them."""


class Ragged(NamedTuple):
    """A column of lists: row i is `values[ends[i] - sizes[i]:ends[i]]`."""

    values: Array
    sizes: Array

    def where(self, keep: Array) -> "Ragged":
        return Ragged(self.values[np.repeat(keep, self.sizes)], self.sizes[keep])


class Columns:
    """Records as columns: `calls.first - calls.sent` is an array with one item per call.

    Columns are cut when they are first used, since a million calls have thirty and a metric needs two.
    """

    itl: Ragged  # of calls; every other column is an Array

    def __init__(self, column: Callable[[str], Any], size: int) -> None:
        self._column = column
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __getattr__(self, name: str) -> Array:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            column: Array = self._column(name)
        except KeyError:
            raise AttributeError(f"no column {name!r}") from None
        self.__dict__[name] = column
        return column

    def where(self, keep: Array) -> "Columns":
        """The rows for which `keep` (bool, one per row) holds."""

        def cut(name: str) -> Any:
            column = getattr(self, name)
            return column.where(keep) if isinstance(column, Ragged) else column[keep]

        return Columns(cut, int(np.count_nonzero(keep)))


class Run(NamedTuple):
    """One run as it was recorded."""

    header: dict[str, Any]  # run.json; every key may be missing
    calls: Columns
    tools: Columns
    sessions: Columns
    server: Columns  # empty where no server said anything


def load_run(folder: Path | str) -> Run:
    """The run in `folder`, finished, interrupted or still going on, of this version or an older one.

    Raises FileNotFoundError where there is none, Unreadable (a ValueError) where a newer version or nobody wrote it.
    """
    folder = Path(folder)
    found = [folder / HEADER, *(folder / f"{name}{end}" for name in TABLES for end in (".arrows", ".parquet"))]
    if not any(path.exists() for path in found):
        raise FileNotFoundError(f"{folder} is not a run folder: it holds neither run.json nor records")
    header = header_of(found[0])
    known_to(header.get("schema", 1))
    run = Run(header, **{name: to_columns(read_table(folder, name), record) for name, record in TABLES.items()})
    return run._replace(header=header | {"unrecorded_calls": unrecorded(folder, run.calls)})


def unrecorded(folder: Path, calls: Columns) -> int:
    """Calls that were begun and have no record: a process was killed, or goes on."""
    made = calls.worker[calls.session != CALIBRATION]
    counts = {"": folder / BEGUN} | {spool.name: spool / BEGUN for spool in spools(folder)}
    found = 0
    for worker, path in counts.items():
        if path.exists():
            recorded = (made == worker).sum() if worker else len(made)
            found += max(0, begun(path) - int(recorded))
    return found


def begun(path: Path) -> int:
    """The count in that file."""
    with path.open("rb") as file:
        text = file.read(32).strip() or b"0"
    if not text.isdigit():
        raise Unreadable(f"{path} holds {text!r}, which is no count of calls")
    return int(text)


def spools(folder: Path) -> list[Path]:
    """Folders of workers that keep their records on this machine."""
    return sorted(path for path in (folder / SPOOLS).glob("*") if path.is_dir())


def from_records(header: dict[str, Any], records: list[msgspec.Struct]) -> Run:
    """The same from records in memory, without a folder."""
    from collectors.store import to_batch

    parts = {name: [r for r in records if isinstance(r, kind)] for name, kind in TABLES.items()}
    return Run(header, **{name: to_columns(to_batch(rows, TABLES[name]), TABLES[name]) for name, rows in parts.items()})


def read_table(folder: Path, name: str) -> "pa.Table":
    """The records of one file. A stream still there is the truth: it is removed only once its Parquet is complete."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from collectors.store import schema

    stream, parquet = folder / f"{name}.arrows", folder / f"{name}.parquet"
    if stream.exists():
        batches = list(read_batches(stream))
        if batches:
            return conformed(pa.Table.from_batches(batches), TABLES[name])
    elif parquet.exists():
        try:
            with pq.ParquetFile(parquet) as file:
                if file.metadata.num_rows > MAX_ROWS:
                    raise Unreadable(f"{parquet} claims {file.metadata.num_rows:,} rows, more than {MAX_ROWS:,}")
                table = file.read()
        except (pa.ArrowException, OSError) as error:
            raise Unreadable(f"{parquet} cannot be read: {error}") from None
        return conformed(table, TABLES[name])
    return schema(TABLES[name]).empty_table()


def read_records(folder: Path, name: str) -> Iterator["pa.RecordBatch"]:
    """The same, a batch at a time."""
    import pyarrow as pa

    stream = folder / f"{name}.arrows"
    if not stream.exists():
        yield from read_table(folder, name).to_batches()
        return
    for batch in read_batches(stream):
        yield from conformed(pa.Table.from_batches([batch]), TABLES[name]).to_batches()


def conformed(table: "pa.Table", record: type[msgspec.Struct]) -> "pa.Table":
    """The table with today's columns of `record`.

    A column that an older file lacks has the record's default, and one that is not known is left out. Raises
    ValueError, one line, where a newer agentload wrote the table, or it is none of ours.
    """
    import pyarrow as pa

    from collectors.store import schema

    wanted, names = schema(record), set(table.schema.names)
    if names >= set(wanted.names) and len(names) == len(wanted.names):
        return sound(table, record, wanted)
    known_to((table.schema.metadata or {}).get(b"agentload_schema", b"1"))
    columns = []
    for info, field in zip(fields(record), wanted, strict=True):
        if field.name in names:
            columns.append(table[field.name])
        elif info.default is msgspec.NODEFAULT:
            raise Unreadable(f"records without {field.name!r} are not agentload's {record.__name__.lower()} records")
        elif info.default is None:
            columns.append(pa.nulls(table.num_rows, field.type))
        else:
            columns.append(pa.repeat(pa.scalar(info.default, field.type), table.num_rows))
    made = pa.Table.from_arrays(columns, names=wanted.names)
    return sound(made, record, wanted)


def known_to(version: int | bytes) -> None:
    """Raise ValueError, one line, for a schema newer than ours."""
    try:
        number = int(version)
    except ValueError:
        raise Unreadable(f"the records' schema is {version!r}, which is no number") from None
    if number > SCHEMA:
        raise Unreadable(f"a newer agentload wrote this run (schema {number}, this one knows {SCHEMA}); update")


def read_batches(stream: Path) -> Iterator["pa.RecordBatch"]:
    """The whole batches of an Arrow stream, up to where it was torn."""
    import pyarrow as pa

    with pa.OSFile(str(stream)) as file:
        try:
            reader = pa.ipc.open_stream(file)
            while True:
                yield reader.read_next_batch()
        except (pa.ArrowInvalid, OSError, StopIteration):
            return  # the end, or a batch that was being written when the process died


def to_columns(table: "pa.Table | pa.RecordBatch", record: type[msgspec.Struct]) -> Columns:
    """The columns of `record`."""
    columns = {field.name: _column(table[field.name]) for field in fields(record)}
    return Columns(columns.__getitem__, table.num_rows)


def _column(column: "pa.Array | pa.ChunkedArray") -> Any:
    import pyarrow as pa

    data = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_string(data.type):
        coded = data.dictionary_encode()
        words = np.array(coded.dictionary.to_pylist(), dtype=object)
        return words[coded.indices.to_numpy(zero_copy_only=False)] if len(words) else np.empty(0, dtype=object)
    if pa.types.is_list(data.type):
        sizes = pa.compute.fill_null(pa.compute.list_value_length(data), 0)
        return Ragged(data.flatten().to_numpy(zero_copy_only=False), sizes.to_numpy(zero_copy_only=False))
    values = data.to_numpy(zero_copy_only=False)
    return values.astype(float) if data.null_count == len(data) else values
