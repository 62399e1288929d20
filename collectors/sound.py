"""Whether a run folder holds what a run folder holds. Files of strangers are checked here, and trusted after that.

What is wrong raises `Unreadable`, one line that says where and why. docs/limits.md has the limits.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta, Struct

from collectors.records import Sample

if TYPE_CHECKING:
    import pyarrow as pa

MAX_HEADER = 64 * 2**20
"""Bytes of run.json."""

MAX_ROWS = 100_000_000
"""Rows of a table: a few kilobytes of Parquet can claim any number of equal ones."""

LONGEST = 3.2e7
"""Seconds, a year: no instant of a run lies further from its beginning."""

LARGEST = 10**12
"""Tokens, and numbers of sessions."""

DEEPEST = 10**6
"""Steps of an agent, attempts at a call, sub-agents, tool calls, pieces of a stream."""

SMALL = {"step", "attempt", "chunks", "tool_calls", "resent", "children", "compactions", "intents", "steps", "calls"}


class Unreadable(ValueError):  # noqa: N818  # it is the folder that is
    """What a folder holds is not what a run writes."""


Number = Annotated[float, Meta(ge=-1e15, le=1e15)]
Figure = Number | None
Seconds = Annotated[float, Meta(ge=0, le=LONGEST)]
Text = str | None


class Health(Struct):
    """What the runner saw of itself, as far as anything is made of it."""

    cpu_share: Figure = None
    machine_cpu: Figure = None
    loop_lag_p50: Figure = None
    loop_lag_p99: Figure = None
    loop_lag_max: Figure = None
    send_lag_p99: Figure = None
    agents_asked: Figure = None
    sessions_offered: Figure = None
    sessions_started: Figure = None
    peak_memory_bytes: Figure = None
    calls_unrecorded: Annotated[int, Meta(ge=0, le=LARGEST)] | None = None
    shards: Annotated[int, Meta(ge=1, le=LARGEST)] | None = None
    shard_replicas: Annotated[int, Meta(ge=1, le=LARGEST)] | None = None
    interrupted: bool | None = None
    stop_reason: Text = None
    workers: dict[str, dict[str, Any]] | None = None


class Features(Struct):
    timing: Text = None


class Endpoint(Struct):
    url: Text = None
    model: Text = None
    client: Text = None
    server: Text = None
    context_length: Figure = None
    simulated: bool | None = None
    features: Features | None = None


class Profile(Struct):
    agents: Figure = None
    rate: Figure = None


class Asked(Struct):
    """The spec, as far as figures depend on it."""

    sessions: Figure = None
    slo: dict[str, Any] | None = None


Whole = Annotated[int, Meta(ge=0, le=LARGEST)]


class Replay(Struct):
    """The trace that was replayed, and how."""

    trace: str
    format: str
    digest: str
    sessions: Whole
    calls: Whole
    damaged: Whole
    calls_too_long: Whole
    longest_gap: Number
    longest_tool: Figure
    speed: Number
    scale: Number


class Header(Struct):
    """run.json: every key may be missing, and none may be something else."""

    schema: Annotated[int, Meta(ge=0, le=2**31)] = 1
    agentload: Text = None
    run_id: Text = None
    started: Text = None
    seed: Annotated[int, Meta(ge=0)] | None = None
    spec_toml: Text = None
    spec: Asked | None = None
    endpoint: Endpoint | None = None
    profile: Profile | None = None
    phases: list[tuple[str, Seconds, Seconds | None, bool]] | None = None
    duration: Annotated[float, Meta(ge=-LONGEST, le=LONGEST)] | None = None
    health: Health | None = None
    itl: dict[str, Figure] | None = None
    replay: Replay | None = None
    clock_anchor: dict[str, Number] | None = None
    machine: dict[str, Any] | None = None
    versions: dict[str, Any] | None = None


def header_of(path: Path) -> dict[str, Any]:
    """What run.json says; {} where there is none."""
    from collectors.slo import from_table

    if not path.exists():
        return {}
    with path.open("rb") as file:
        content = file.read(MAX_HEADER + 1)
    if len(content) > MAX_HEADER:
        raise Unreadable(f"{path} has more than {MAX_HEADER >> 20} MiB")
    try:
        plain: dict[str, Any] = msgspec.json.decode(content, type=dict[str, Any])
        form = msgspec.convert(plain, Header)
        if form.spec and form.spec.slo:
            from_table(form.spec.slo)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{path} is not what a run writes: {error}") from None
    return plain


def sound(table: "pa.Table", record: type[Struct], wanted: "pa.Schema") -> "pa.Table":
    """The table with the types of `wanted`, the schema of `record`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    name = record.__name__.lower()
    if table.num_rows > MAX_ROWS:
        raise Unreadable(f"{table.num_rows:,} {name} records are more than {MAX_ROWS:,}")
    columns = []
    for field in wanted:
        try:
            column = table[field.name].cast(field.type)
            if pa.types.is_string(field.type):
                column.validate(full=True)  # UTF-8
        except (pa.ArrowException, KeyError) as error:
            raise Unreadable(f"column {field.name!r} of the {name} records is not {field.type}: {error}") from None
        low, high = bounds(field, record)
        if not field.nullable and column.null_count:
            raise Unreadable(f"column {field.name!r} of the {name} records has rows without a value")
        if (pa.types.is_integer(field.type) or pa.types.is_floating(field.type)) and len(column):
            seen = pc.min_max(column).as_py()
            if seen["min"] is not None and not low <= seen["min"] <= seen["max"] <= high:
                raise Unreadable(f"column {field.name!r} of the {name} records goes beyond {low:g} to {high:g}")
            if record is not Sample and pa.types.is_floating(field.type) and pc.any(pc.is_nan(column)).as_py():
                raise Unreadable(f"column {field.name!r} of the {name} records has numbers that are none")
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=wanted)


def bounds(field: "pa.Field", record: type[Struct]) -> tuple[float, float]:
    """The least and the largest that a number in that column can be."""
    import pyarrow as pa

    if record is Sample:
        return -math.inf, math.inf  # a server's own figures, whatever they are
    if pa.types.is_floating(field.type):
        return -LONGEST, LONGEST
    return (-1 if field.name == "session" else 0), (DEEPEST if field.name in SMALL else LARGEST)
