"""Damaged traces: whatever is wrong with a file is one clear line, or does not matter; it is never a traceback."""

import io
import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentload.errors import BadInput
from agentload.traces import own
from agentload.traces.detect import FORMATS, detect, read
from agentload.traces.graph import Session
from agentload.traces.source import Complaints, Source
from tests.trace_files import FILES, put

KINDS = 200
WRONG: list[Any] = [None, -1, 1e30, 1.5, "", "x", [], [[]], {}, {"a": 1}, True, 2**70, -(2**63), "\ud800", "9" * 40, 0]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def with_value_changed(text: bytes, rng: random.Random) -> bytes:
    """One value of one JSON line (or of the whole file) removed, or replaced by something it should not be."""
    rows = text.splitlines(keepends=True)
    which = rng.randrange(len(rows))
    try:
        value, whole = json.loads(rows[which]), False
    except ValueError:
        value = None
    if not isinstance(value, dict):
        value, whole = json.loads(text), True
    path = rng.choice(list(places(value)))
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    if rng.random() < 0.3:
        del holder[path[-1]]
    else:
        holder[path[-1]] = rng.choice(WRONG)
    new = json.dumps(value).encode() + b"\n"
    return new if whole else b"".join([*rows[:which], new, *rows[which + 1 :]])


def with_cell_changed(text: bytes, rng: random.Random) -> bytes:
    rows = text.splitlines()
    which = rng.randrange(len(rows))
    cells = rows[which].split(b",")
    wrong = [b"", b"x", b"-5", b"1e400", b"nan", b"inf", b"1,2", b'"', b"9" * 50, b"\xff", b"2023-99-99 00:00:00"]
    cells[rng.randrange(len(cells))] = rng.choice(wrong)
    rows[which] = b",".join(cells)
    return b"\n".join(rows) + b"\n"


def with_bytes_changed(text: bytes, rng: random.Random) -> bytes:
    at, length = rng.randrange(len(text)), rng.randrange(1, 30)
    junk = bytes(rng.randrange(256) for _ in range(length))
    return rng.choice(
        [
            text[:at],
            text[:at] + junk + text[at:],
            text[:at] + text[at + length :],
            text[:at] + junk + text[at + length :],
            text + text[:at],
            text[at:],
            b"\xef\xbb\xbf" + text[:at] + b"\x00" + text[at:],
            text[:at] + rng.choice([b'"', b"{", b"}", b"[", b"]", b",", b"\\", b"\n", b"\r\n"]) + text[at:],
        ]
    )


def damaged(format: str, seed: int) -> bytes:
    rng = random.Random(f"{format} {seed}")
    text = FILES[format][1]
    if rng.random() < 0.5:
        return with_bytes_changed(text, rng)
    return with_cell_changed(text, rng) if text[:1] not in (b"{", b"[") else with_value_changed(text, rng)


def sound(session: Session) -> bool:
    """What was read can be written, and comes back."""
    file = io.BytesIO()
    own.write([session], file)
    return file.getvalue().count(b"\n") == 2


@pytest.mark.parametrize("format", FILES)
def test_damage_is_named_in_one_line_and_the_rest_is_read(format: str, tmp_path: Path) -> None:
    named = 0
    for seed in range(KINDS):
        content = damaged(format, seed)
        path = put(tmp_path, format, content)
        complaints = Complaints()
        read_back = tmp_path / "back.jsonl"
        found = list(FORMATS[format](Source(path, complaints)))
        own.save(found, read_back)
        assert list(own.read(Source(read_back, Complaints(fatal=True)))) == found, seed
        for complaint in complaints.found:
            line = str(complaint)
            assert line.startswith(str(tmp_path)) and "\n" not in line and len(line) < 600, (seed, line)
            assert complaint.reason
        named += bool(complaints.found)
        try:
            list(read(path, Complaints(fatal=True), format))
        except BadInput as error:
            assert complaints.found and str(error) == str(complaints.found[0])
        else:
            assert not complaints.found
    assert named > KINDS / 10  # the rest is harmless: an unread field, a changed number, a lost last line


@pytest.mark.parametrize("format", FILES)
def test_damage_never_breaks_detection(format: str, tmp_path: Path) -> None:
    for seed in range(KINDS):
        known = detect(put(tmp_path, format, damaged(format, seed)))
        assert known is None or known in FORMATS


def complain(tmp_path: Path, format: str, content: bytes) -> list[str]:
    complaints = Complaints()
    list(FORMATS[format](Source(put(tmp_path, format, content), complaints)))
    return [str(complaint).removeprefix(f"{tmp_path}/") for complaint in complaints.found]


def test_a_complaint_names_file_line_field_and_reason(tmp_path: Path) -> None:
    text = FILES["mooncake"][1]

    assert complain(tmp_path, "mooncake", text.replace(b"1100", b'"many"')) == [
        "conversation.jsonl:2: input_length: must be int | null, got str"
    ]
    assert complain(tmp_path, "mooncake", text.replace(b'"output_length": 30, ', b"")) == [
        "conversation.jsonl:3: output_length: is missing"
    ]
    assert complain(tmp_path, "azure", FILES["azure"][1].replace(b"3180", b"-1")) == [
        "azure.csv:3: ContextTokens: must be a whole number from 0 to 1,000,000,000, got '-1'"
    ]
    assert complain(tmp_path, "trt", FILES["trt"][1].replace(b'"completion_tokens": 30', b'"x": 1')) == [
        "job.json:1: events[12].completion_tokens: is missing"
    ]
    assert complain(tmp_path, "dag", FILES["dag"][1].replace(b'"b"]', b'"z"]')) == [
        "dag.jsonl:1: spawns: session 'z' is not in the file"
    ]


def test_sessions_that_start_each_other_in_a_circle_are_refused(tmp_path: Path) -> None:
    turn = {"messages": [{"role": "user", "content": "x"}]}
    rows = [{"session_id": "r", "turns": [turn | {"spawns": ["a", "a"]}]}] + [
        {"session_id": name, "turns": [turn | {"spawns": [other, other]}]} for name, other in ("ab", "ba")
    ]
    text = b"".join(json.dumps(row).encode() + b"\n" for row in rows)

    assert complain(tmp_path, "dag", text) == [
        "dag.jsonl:1: spawns: sessions start each other in a circle, or deeper than 50, or 10000 times"
    ]


def test_an_item_of_an_array_that_is_broken_is_named_with_its_line(tmp_path: Path) -> None:
    text = FILES["sharegpt"][1]
    line = text[: text.index(b'"two"')].count(b"\n")  # its object begins one line before its id

    (wrong,) = complain(tmp_path, "sharegpt", text.replace(b'"value": "Hello."', b'"value": 5'))
    assert wrong == f"sharegpt.json:{line}: conversations[1].value: must be str, got int"
    (cut,) = complain(tmp_path, "sharegpt", text[: text.index(b'"two"') + 20])
    assert cut == f"sharegpt.json:{line}: the JSON value that begins here does not end"


def test_numbers_that_are_none_do_not_get_through(tmp_path: Path) -> None:
    for wrong in (b"nan", b"inf", b"-inf", b"1e999"):
        assert complain(tmp_path, "burstgpt", FILES["burstgpt"][1].replace(b"5,1,1.9", wrong + b",1,1.9"))
    assert math.isinf(1e999)
