"""Records survive: what was flushed is readable whatever happens next."""

import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from collect_made import HEADER, made_run

from collectors.load import from_records, load_run
from collectors.records import Call, Session, Tool
from collectors.recovery import recover
from collectors.store import Store, to_array, write_header


def a_call(session: int = 0, **changes: object) -> Call:
    call = Call(session, "", "coder", 0, 0, 1.0, 1.0, 1.1, 1.5, 2.0, 2.0, input_tokens=100, output_tokens=11)
    return msgspec.structs.replace(call, **changes)


def filled(folder: Path, records: list[msgspec.Struct]) -> Store:
    store = Store(folder)
    for record in records:
        store.emit(record)
    return store


def test_every_field_of_every_record_comes_back_from_a_finished_run(tmp_path: Path) -> None:
    records = made_run(agents=8, seconds=20)
    filled(tmp_path / "run", records).close()

    run = load_run(tmp_path / "run")
    for columns, kind in ((run.calls, Call), (run.tools, Tool), (run.sessions, Session)):
        rows = [record for record in records if isinstance(record, kind)]
        assert len(columns) == len(rows) > 0
        for name in set(kind.__struct_fields__) - {"itl"}:
            wanted = [getattr(row, name) for row in rows]
            read = [None if value != value else value for value in getattr(columns, name).tolist()]
            assert read == wanted, name
    assert [len(c.itl or ()) for c in records if isinstance(c, Call)] == run.calls.itl.sizes.tolist()


def test_a_finished_run_is_four_parquet_files_that_name_their_schema(tmp_path: Path) -> None:
    filled(tmp_path / "run", [a_call()]).close()

    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["calls.parquet", "server.parquet", "sessions.parquet", "tools.parquet"]
    assert pq.read_schema(tmp_path / "run" / "calls.parquet").metadata[b"agentload_schema"] == b"1"


def test_none_becomes_nan_and_gaps_follow_their_rows() -> None:
    run = from_records({}, [a_call(itl=(0.25, 0.5)), a_call(1, first=None), a_call(2, itl=(0.125,))])

    assert np.isnan(run.calls.first).tolist() == [False, True, False]
    assert run.calls.itl.values.tolist() == [0.25, 0.5, 0.125]
    assert run.calls.where(run.calls.session > 0).itl.values.tolist() == [0.125]


def test_columns_without_rows_are_empty_and_unknown_ones_are_an_error() -> None:
    run = from_records({}, [])

    assert len(run.calls) == 0 and run.calls.first.tolist() == [] and run.calls.itl.values.tolist() == []
    with pytest.raises(AttributeError, match="no column 'frist'"):
        run.calls.frist  # noqa: B018


def test_what_was_flushed_survives_kill_9(tmp_path: Path) -> None:
    program = """
        import sys
        from collectors.records import Call
        from collectors.store import Store
        store = Store(sys.argv[1])
        for flush in range(3):
            for i in range(700):
                store.emit(Call(i, "", "coder", 0, 0, 0.0, 0.0, None, 0.5, 0.9, 1.0, input_tokens=10, output_tokens=2))
            store.flush()
        store.emit(Call(-5, "", "coder", 0, 0, 0.0, 0.0, None, None, None, 1.0))
        print("flushed", flush=True)
        sys.stdin.read()
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), tmp_path / "run"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with child:
        assert child.stdout is not None and child.stdout.readline() == b"flushed\n"
        assert len(load_run(tmp_path / "run").calls) == 2_100  # readable while it runs
        assert recover(tmp_path / "run") is False  # and left alone
        os.kill(child.pid, signal.SIGKILL)

    assert recover(tmp_path / "run") is True
    run = load_run(tmp_path / "run")
    assert len(run.calls) == 2_100
    assert set(run.sessions.outcome.tolist()) == {"unfinished"} and len(run.sessions) == 700
    assert not list((tmp_path / "run").glob("*.arrows"))
    assert recover(tmp_path / "run") is False


def interrupted(folder: Path, records: list[msgspec.Struct]) -> None:
    """A run that was flushed and then died."""
    store = filled(folder, records)
    store.flush()
    os.close(store._held)  # what the system does when a process dies


@pytest.mark.parametrize("torn", [1, 100, 5_000])
def test_a_torn_tail_loses_only_the_batch_that_was_being_written(tmp_path: Path, torn: int) -> None:
    interrupted(tmp_path / "run", [a_call(i) for i in range(2_500)])  # batches of 1,000, 1,000 and 500
    stream = tmp_path / "run" / "calls.arrows"
    stream.write_bytes(stream.read_bytes()[:-torn])

    recover(tmp_path / "run")

    assert len(load_run(tmp_path / "run").calls) == 2_000


def test_a_session_that_was_cut_off_is_rebuilt_from_its_calls_and_tools(tmp_path: Path) -> None:
    done = Session(0, "", "chat", 0, 0, 9, "done", 1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1.0, 1.0, 1.0, 1.0)
    parent = [a_call(7, step=s, due=s + 1.0, sent=s + 1.0, end=s + 1.75, cached_tokens=40) for s in range(2)]
    retry = a_call(7, step=1, attempt=1, due=3.0, sent=3.0, end=3.5)
    tools = [Tool(7, "", "coder", 0, "grep", 1.75, end, True, 5) for end in (1.9, 2.0)]
    child = a_call(7, agent="0", archetype="explorer", due=3.5, sent=3.5, end=5.0)
    interrupted(tmp_path / "run", [a_call(0), done, *parent, retry, *tools, child])

    recover(tmp_path / "run")

    rows = load_run(tmp_path / "run").sessions
    assert list(zip(rows.session.tolist(), rows.agent.tolist(), rows.outcome.tolist(), strict=True)) == [
        (0, "", "done"), (7, "", "unfinished"), (7, "0", "unfinished"),
    ]  # fmt: skip
    at = 1
    assert (rows.archetype[at], rows.archetype[2]) == ("coder", "explorer")
    assert (rows.start[at], rows.end[at]) == (1.0, 3.5)
    assert (rows.steps[at], rows.calls[at], rows.tool_calls[at], rows.children[at]) == (2, 3, 2, 1)
    assert (rows.input_tokens[at], rows.cached_tokens[at], rows.output_tokens[at]) == (300, 80, 33)
    assert rows.model_seconds[at] == pytest.approx(0.75 + 0.75 + 0.5)
    assert rows.tool_seconds[at] == pytest.approx(0.25)  # both ran at once
    assert rows.wait_seconds[at] == pytest.approx(2.5 - 2.0 - 0.25)


def test_a_run_killed_before_its_first_flush_is_an_empty_run(tmp_path: Path) -> None:
    write_header(tmp_path / "run", HEADER)

    assert recover(tmp_path / "run") is False
    run = load_run(tmp_path / "run")
    assert len(run.calls) == len(run.sessions) == 0 and run.header["seed"] == 7


def test_records_emitted_during_a_flush_are_neither_lost_nor_doubled(tmp_path: Path) -> None:
    store = Store(tmp_path / "run")
    ended = threading.Event()

    def keep_flushing() -> None:
        while not ended.is_set():
            store.flush()

    flusher = threading.Thread(target=keep_flushing)
    flusher.start()
    for i in range(20_000):
        store.emit(a_call(i))
    ended.set()
    flusher.join()
    store.close()

    assert load_run(tmp_path / "run").calls.session.tolist() == list(range(20_000))


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    store = Store(tmp_path / "run")
    with pytest.raises(BlockingIOError, match="another run"):
        Store(tmp_path / "run")
    store.close()
    with pytest.raises(FileExistsError, match="already holds"):
        Store(tmp_path / "run")


def test_a_folder_without_a_run_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="not a run folder"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.int64(), [2**63 - 1, -1, 0]),
        (pa.float64(), [0.1, 3, -math.inf]),
        (pa.string(), ["a", "", "ü"]),
        (pa.bool_(), [True, False, True]),
    ],
    ids=str,
)
def test_columns_are_what_arrow_makes_of_them(kind: pa.DataType, values: list[Any]) -> None:
    for column in ([], values, [*values, None], [None, *values], values[:1] * 3, [None, None]):
        assert to_array(column, kind).equals(pa.array(column, kind))
    with pytest.raises((pa.ArrowException, OverflowError)):
        to_array([*values, object()], kind)
