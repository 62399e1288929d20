"""Our own trace format: whatever graph there is comes back identical, and so does every format that becomes one."""

import io
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentload.errors import BadInput
from agentload.traces import own
from agentload.traces.detect import read
from agentload.traces.graph import (
    Agent,
    Call,
    Gap,
    Join,
    Run,
    Session,
    Start,
    Tool,
    Tools,
    blocks,
    common,
    fit,
    runs,
    spread,
)
from agentload.traces.source import Complaints, Source
from tests.trace_files import FILES, put

sizes = st.integers(0, 1_000_000)
seconds = st.floats(0, 1e6, allow_nan=False)
printable = st.characters(exclude_categories=["C", "Z"], include_characters=" ")
names = st.text(printable, max_size=20)
pieces = st.lists(
    st.builds(Run, st.integers(-(2**63), 2**63 - 1), st.integers(1, 9_999), st.integers(1, 99)), max_size=4
)
call = st.builds(
    Call, sizes, sizes, sizes, pieces.map(tuple), sizes, st.none() | sizes, st.none() | seconds
)  # fmt: skip
tools = st.builds(Tools, st.lists(st.builds(Tool, names, seconds, sizes, st.booleans()), max_size=3).map(tuple))
simple = call | tools | st.builds(Gap, seconds, st.booleans()) | st.builds(Join, st.lists(sizes, max_size=3).map(tuple))
steps = st.recursive(
    st.lists(simple, max_size=5),
    lambda inner: st.lists(
        simple
        | st.builds(
            Start,
            st.lists(st.builds(Agent, inner.map(tuple), names, seconds), min_size=1, max_size=3).map(tuple),
            st.none() | st.integers(0, 3),
        ),
        max_size=5,
    ),
    max_leaves=12,
)
sessions = st.builds(
    Session, names, st.builds(Agent, steps.map(tuple), names, seconds), st.none() | st.floats(-1e9, 1e9), st.booleans()
)


def back(found: list[Session], path: Path) -> list[Session]:
    own.save(found, path)
    return list(own.read(Source(path, Complaints(fatal=True))))


@given(st.lists(sessions, max_size=4))
@settings(max_examples=60, deadline=None)
def test_any_graph_comes_back_identical(found: list[Session]) -> None:
    file = io.BytesIO()
    assert own.write(found, file) == len(found)

    header, *rows = file.getvalue().splitlines()
    assert b"agentload_trace" in header
    assert [msgspec.json.decode(row, type=Session) for row in rows] == found


@pytest.mark.parametrize("format", FILES)
def test_a_converted_trace_of_any_format_is_the_same_graph(format: str, tmp_path: Path) -> None:
    found = list(read(put(tmp_path, format), Complaints(fatal=True)))

    assert back(found, tmp_path / "converted.jsonl") == found
    assert list(read(tmp_path / "converted.jsonl", Complaints(fatal=True))) == found


def test_a_later_version_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "later.jsonl"
    path.write_bytes(FILES["agentload"][1].replace(b'"agentload_trace": 1', b'"agentload_trace": 9'))

    with pytest.raises(BadInput, match="agentload_trace: is 9; this agentload reads version 1"):
        list(read(path, Complaints(fatal=True)))


def test_a_trace_that_cannot_be_written_whole_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> list[Session]:
        raise BadInput("damaged")

    def stream() -> object:
        yield from broken()

    with pytest.raises(BadInput):
        own.save(stream(), tmp_path / "new.jsonl")  # type: ignore[arg-type]  # it never gets so far as to matter
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.integers(0, 3), max_size=40), st.lists(st.integers(0, 3), max_size=40))
def test_what_two_sequences_share_is_found_by_halves_as_one_by_one(a: list[int], b: list[int]) -> None:
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    assert common(a, b) == n


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 3)), max_size=30), st.integers(0, 60))
def test_runs_spread_into_the_pieces_they_were_made_of(found: list[tuple[int, int]], most: int) -> None:
    assert list(spread(runs(found))) == found
    cut = fit(found, most)
    assert sum(tokens for _, tokens in cut) == min(most, sum(tokens for _, tokens in found))
    assert [key for key, _ in cut] == [key for key, _ in found[: len(cut)]]


def test_blocks_fill_up_and_the_last_may_be_part() -> None:
    assert blocks([5, 6, 7], 16, 40) == [(5, 16), (6, 16), (7, 8)]
    assert blocks([5, 6], 16, 40) == [(5, 16), (6, 16)]
    assert blocks([5, 6, 7, 8], 16, 32) == [(5, 16), (6, 16)]
