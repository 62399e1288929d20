"""Files of strangers: whatever is in them, one clear line or something that makes sense, never a traceback.

Hypothesis changes sound files: a value of their JSON or TOML, a column, a few bytes. `make fuzz` runs the same tests on
many more inputs and says how many; `FUZZ` is how many for each.
"""

import contextlib
import copy
import gzip
import json
import math
import os
import re
import shutil
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from agentload import forecasting, tracing
from agentload import spec as specs
from agentload.errors import BadInput
from agentload.sweep import read as read_sweep
from agentload.traces.detect import detect, read
from agentload.traces.source import Complaints
from collectors.boards import write_sweep
from collectors.compare import compare
from collectors.economics import load_prices
from collectors.load import load_run
from collectors.report import render
from collectors.sound import MAX_ROWS, Unreadable
from collectors.store import Store, write_header
from collectors.summary import summarise
from tests.collect_made import HEADER, made_run
from tests.fleet_made import HOUSE
from tests.sweep_made import made_point
from tests.trace_files import FILES, put

FUZZ = int(os.environ.get("FUZZ", "0"))
TRIED: Counter[str] = Counter()

fuzzed = settings(
    max_examples=FUZZ or 25, deadline=None, derandomize=not FUZZ, database=None, report_multiple_bugs=False,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
slow = settings(fuzzed, max_examples=FUZZ // 5 or 8)


@pytest.fixture(scope="module", autouse=True)
def said() -> Iterator[None]:
    """How many inputs there were, at the end of a long run."""
    yield
    if FUZZ:
        print(f"\n{sum(TRIED.values()):,} inputs: " + ", ".join(f"{n:,} {what}" for what, n in TRIED.items()))  # noqa: T201


def survived(what: str, do: Callable[[], object], *allowed: type[Exception]) -> None:
    """Either it works or it says why not (`agentload.terminal.warn` makes one line of that)."""
    TRIED[what] += 1
    try:
        do()
    except (BadInput, *allowed) as error:
        assert str(error)


# What is changed, and into what

EXTREME = [
    0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 1e308, -1e308, math.inf, -math.inf, math.nan, 0.5, "", "\x00", "\ud800",
    "../../etc/passwd", "/dev/zero", "a" * 5_000, True, None, [], {}, [[]], {"": {}},
]  # fmt: skip
junk = st.recursive(
    st.sampled_from(EXTREME) | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*path, key))


def changed(draw: Any, plain: Any) -> Any:
    """A copy with one to three values replaced, removed or added."""
    plain = json.loads(json.dumps(plain))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(sorted(places(plain), key=repr)))
        holder = plain
        for key in path[:-1]:
            holder = holder[key]
        how = draw(st.sampled_from(("replace", "replace", "remove", "add")))
        if how == "remove":
            del holder[path[-1]]
        elif how == "add" and isinstance(holder, dict):
            holder[draw(st.text(max_size=8))] = copy.deepcopy(draw(junk))
        else:
            holder[path[-1]] = copy.deepcopy(draw(junk))
        if not list(places(plain)):
            break
    return plain


def torn(draw: Any, content: bytes) -> bytes:
    """A copy with bytes cut off, changed, added or doubled."""
    at = draw(st.integers(0, len(content)))
    length = draw(st.integers(0, 40))
    new = draw(st.binary(max_size=40))
    ways = (content[:at], content[at:], content[:at] + new + content[at:], content[:at] + new + content[at + length :],
            content + content[:at])  # fmt: skip
    return draw(st.sampled_from(ways))


# Specs

SPECS = [
    tomllib.loads((HOUSE / "agentload" / "default.toml").read_text()),
    *(tomllib.loads(path.read_text()) for path in sorted((HOUSE / "examples").glob("*.toml"))),
    {
        "duration": 60, "population": [{"archetype": "ours"}], "mode": "live", "itl": True, "slo": {"ttft_p95": 2.0},
        "profile": {"type": "sum", "parts": [{"type": "poisson", "rate": 1.0}, {"type": "constant", "rate": 2.0}]},
        "archetypes": {"ours": {"base": "coder", "steps": {"type": "lognormal", "median": 3.0, "sigma": 1.0},
                                "tools": [{"name": "look", "seconds": 1.0, "tokens": 20}]}},
        "tenants": [{"name": "a", "tokens_per_minute": 5, "headers": {"X": "y"}, "retry": {"attempts": 2}}],
        "endpoint": {"url": "http://127.0.0.1:9/v1", "headers": {"X": "y"}, "sampling": {"temperature": 0.5}},
        "limits": {"cost": 1.0, "prices": {"input": 1.0, "cached": 0.1, "output": 2.0}}, "box": {"replicas": 2},
        "telemetry": {"metrics_port": 0},
    },
]  # fmt: skip


@fuzzed
@given(st.data())
def test_specs(data: st.DataObject) -> None:
    plain = changed(data.draw, data.draw(st.sampled_from(SPECS)))
    plain = json.loads(re.sub(r"\\ud[89a-f]..", "", json.dumps(plain)))  # TOML has no halves of surrogate pairs

    survived("specs", lambda: specs.encode(specs.decode(plain)))


@fuzzed
@given(st.data())
def test_texts_that_should_be_toml(tmp_path: Path, data: st.DataObject) -> None:
    text = (HOUSE / "examples" / "first-light.toml").read_bytes()
    file = tmp_path / "spec.toml"
    file.write_bytes(torn(data.draw, text))

    survived("TOML files", lambda: specs.decode(specs.read(file)))
    survived("TOML files", lambda: load_prices(file), ValueError, OSError)
    survived("TOML files", lambda: forecasting.read(file))


def test_toml_that_is_deep_or_large_is_one_line(tmp_path: Path) -> None:
    deep, large = tmp_path / "deep.toml", tmp_path / "large.toml"
    deep.write_text("a = " + "[" * 100_000)
    with large.open("wb") as file:
        file.truncate(65 << 20)

    for path, why in ((deep, "is not TOML"), (large, "more than 64 MiB")):
        with pytest.raises(BadInput, match=why):
            specs.read(path)
        with pytest.raises(BadInput):
            forecasting.read(path)


# Traces


@fuzzed
@given(st.data())
def test_traces(tmp_path: Path, data: st.DataObject) -> None:
    format = data.draw(st.sampled_from(sorted(FILES)))
    content = torn(data.draw, FILES[format][1])
    packed = data.draw(st.sampled_from(("plain", "packed", "packed and torn")))
    if packed != "plain":
        content = gzip.compress(content)
    if packed == "packed and torn":
        content = torn(data.draw, content)
    path = put(tmp_path, format, content)

    survived(
        "traces", lambda: [detect(path), list(read(path, Complaints(), data.draw(st.sampled_from((None, format)))))]
    )


# Run folders


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "run"
    store = Store(folder)
    for record in made_run(agents=3, seconds=8.0):
        store.emit(record)
    store.close()
    write_header(folder, header())
    return folder


def header() -> dict[str, Any]:
    more = {
        "spec": {"name": "x", "slo": {"ttft_p95": 2.0}, "sessions": 5}, "spec_toml": "x = 1",
        "phases": [["m", 0.0, 8.0, True]],
        "itl": {"p50": 0.1, "p99": 0.2, "count": 5}, "run_id": "1", "clock_anchor": {"monotonic": 0.0, "unix": 1.0},
        "profile": {"agents": 3, "rate": None},
        "replay": {"trace": "x", "format": "own", "digest": "d", "sessions": 3, "calls": 9, "damaged": 1,
                   "calls_too_long": 1, "longest_gap": 5.0, "longest_tool": None, "speed": 2.0, "scale": 0.5},
    }  # fmt: skip
    return json.loads(json.dumps(HEADER)) | more


def looked_at(folder: Path) -> None:
    """All that is done with a run folder but for writing into it."""
    run = load_run(folder)
    render(run, summarise(run))
    compare(folder, folder)
    with contextlib.suppress(BadInput):  # no session that can be fitted, say
        tracing.stats(folder, None, False)


@slow
@given(st.data())
def test_headers_of_runs(tmp_path: Path, made: Path, data: st.DataObject) -> None:
    folder = tmp_path / "run"
    shutil.copytree(made, folder, dirs_exist_ok=True)
    content = json.dumps(changed(data.draw, header())).encode()
    if data.draw(st.integers(0, 4)) == 0:
        content = torn(data.draw, content)
    (folder / "run.json").write_bytes(content)

    survived("headers of runs", lambda: looked_at(folder), Unreadable)


COLUMN = [
    pa.array([], pa.int64()), pa.array([0, -1, 2**62], pa.int64()), pa.array([10**5, 7, 0], pa.int64()),
    pa.array([math.inf, math.nan, -1e300]), pa.array([1e7, -1e7, 0]), pa.array([[1.0], [], [math.nan]]),
    pa.array(["", "x" * 2_000, "\x00<b>"]), pa.array([None, None, None], pa.string()), pa.array([b"\xff", b"", b"a"]),
    pa.array([True, False, None]), pa.array([{"a": 1}] * 3),
]  # fmt: skip


@slow
@given(st.data())
def test_tables_of_runs(tmp_path: Path, made: Path, data: st.DataObject) -> None:
    folder = tmp_path / "run"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(made, folder)
    name = data.draw(st.sampled_from(("calls", "tools", "sessions")))
    path = folder / f"{name}.parquet"
    if data.draw(st.booleans()):
        path.write_bytes(torn(data.draw, path.read_bytes()))
    else:
        table = pq.read_table(path)
        for _ in range(data.draw(st.integers(1, 3))):
            i = data.draw(st.integers(0, table.num_columns - 1))
            values = data.draw(st.sampled_from(COLUMN))
            rows = pa.array(np.arange(table.num_rows) % max(1, len(values)))
            column = values.take(rows) if len(values) else pa.nulls(table.num_rows, values.type)
            table = table.set_column(i, table.schema.names[i], column)
        if data.draw(st.booleans()):
            table = table.slice(0, data.draw(st.integers(0, 5)))
        pq.write_table(table, path)
        if data.draw(st.booleans()):
            with (
                pa.OSFile(str(folder / f"{name}.arrows"), "wb") as file,
                pa.ipc.new_stream(file, table.schema) as stream,
            ):
                stream.write_table(table)

    survived("tables of runs", lambda: looked_at(folder), Unreadable)


def test_a_table_that_claims_too_many_rows_is_refused_before_it_is_unpacked(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(made, folder)
    many = pa.table({"session": np.zeros(2_000_000, np.int8)})
    with pq.ParquetWriter(folder / "calls.parquet", many.schema, compression="zstd") as writer:
        for _ in range(MAX_ROWS // 2_000_000 + 1):
            writer.write_table(many)
    assert (folder / "calls.parquet").stat().st_size < 1e6

    with pytest.raises(Unreadable, match="more than 100,000,000"):
        load_run(folder)


# Sweeps


@slow
@given(st.data())
def test_sweeps(tmp_path: Path, made: Path, data: st.DataObject) -> None:
    import msgspec

    folder = tmp_path / "sweep"
    shutil.copytree(made, folder / "run", dirs_exist_ok=True)
    points = [msgspec.to_builtins(made_point(value)) for value in (1.0, 2.0, 4.0)]
    plain = {
        "axis": "agents", "unit": "agents", "spec_toml": "x = 1", "options": {"values": [1, 2]},
        "cluster": {"gpus": 8.0}, "points": points, "ended": {}, "census": {"coder": "run"}, "wall_seconds": 1.0,
    }  # fmt: skip
    (folder / "sweep.json").write_text(json.dumps(changed(data.draw, plain)))

    survived("sweeps", lambda: write_sweep(folder), FileNotFoundError, ValueError)
    survived("sweeps", lambda: read_sweep(folder))
