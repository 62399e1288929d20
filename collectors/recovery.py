"""An interrupted run made whole: what its process, or its workers, had written when they were killed."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collectors.load import TABLES, Columns, read_records, read_table, spools, to_columns
from collectors.records import CALIBRATION, Call, Session, Tool
from collectors.store import hold, schema, to_batch, write_parquet

if TYPE_CHECKING:
    import pyarrow as pa


def recover(folder: Path | str) -> bool:
    """Make an interrupted run whole: streams become Parquet, and sessions cut off get a row with outcome "unfinished".
    What workers on this machine kept and their master did not get is taken in.

    At most the batch that was being written is lost. False when there is nothing to do, or when the run still goes on,
    or one of its workers.
    """
    import pyarrow as pa

    folder = Path(folder)
    if not any((folder / f"{name}.arrows").exists() for name in TABLES):
        return False
    with contextlib.ExitStack() as stack:
        kept = spools(folder)
        for each in (folder, *kept):
            held = hold(each)
            if held is None:
                return False
            stack.callback(os.close, held)
        for name in ("calls", "tools", "server"):
            if (folder / f"{name}.arrows").exists():
                write_parquet(folder, name, _together(folder, kept, name))
        sessions = list(_together(folder, kept, "sessions"))
        rows = pa.Table.from_batches(sessions, schema(Session))
        calls, tools = (to_columns(read_table(folder, name), kind) for name, kind in (("calls", Call), ("tools", Tool)))
        missing = to_batch(list(unfinished(calls, tools, to_columns(rows, Session))), Session)
        write_parquet(folder, "sessions", [*sessions, missing])
    return True


KEYS = {
    "calls": ("session", "agent", "step", "attempt"),
    "tools": ("session", "agent", "step", "name", "start"),
    "sessions": ("session", "agent"),
    "server": ("time", "target", "series", "name"),
}
"""What tells one record from another, across the folders of a run."""


def _together(folder: Path, spools: list[Path], name: str) -> Iterator["pa.RecordBatch"]:
    """The records of a folder, then those of its workers that it lacks."""
    known: set[tuple[Any, ...]] = set()
    for each in (folder, *spools):
        seen: list[tuple[Any, ...]] = []
        for batch in read_records(each, name):
            if spools:
                keys = list(zip(*(batch[key].to_pylist() for key in KEYS[name]), strict=True))
                seen += keys
                batch = batch.filter([key not in known for key in keys])
            yield batch
        known.update(seen)


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
