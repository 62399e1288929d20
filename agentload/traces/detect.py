"""Which format a trace is: named, or told from what it holds."""

import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from agentload.errors import BadInput, meant
from agentload.traces import (
    bailian,
    calls,
    dag,
    messages,
    mooncake,
    otel,
    own,
    runs,
    servegen,
    sharegpt,
    sweagent,
    tables,
    tracelab,
    trt,
    weka,
)
from agentload.traces.graph import Session
from agentload.traces.source import Complaints, Source

Read: TypeAlias = Callable[[Source], Iterator[Session]]

FORMATS: dict[str, Read] = {
    "agentload": own.read,
    "mooncake": mooncake.read,
    "weka": weka.read,
    "trt": trt.read,
    "dag": dag.read,
    "tracelab": tracelab.read,
    "messages": messages.read,
    "sharegpt": sharegpt.read,
    "sweagent": sweagent.read,
    "azure": tables.read_azure,
    "burstgpt": tables.read_burstgpt,
    "shape": tables.read_shape,
    "bailian": bailian.read,
    "servegen": servegen.read,
    "otel": otel.read,
    "run": runs.read,
    "recording": calls.read,
}

KEYS: dict[str, tuple[tuple[str, ...], ...]] = {  # what an object of each format has; the first that fits is it
    "agentload": (("agentload_trace",),),
    "recording": (("agentload_recording",),),
    "otel": (("resourceSpans",),),
    "trt": (("trace_id", "events"),),
    "weka": (("id", "requests"), ("hash_id_scope", "requests")),
    "sweagent": (("trajectory",),),
    "sharegpt": (("conversations",),),
    "tracelab": (("session_id", "round_index"), ("round_id", "input_tokens_total")),
    "bailian": (("chat_id", "input_length"), ("chat_id", "parent_chat_id")),
    "dag": (("session_id", "turns"), ("turns",)),
    "mooncake": (("input_length", "output_length"), ("hash_ids", "output_length"), ("timestamp", "hash_ids")),
    "messages": (("messages",), ("traj",)),
}
HEAD = 1 << 18


def read(path: Path, complaints: Complaints, format: str | None = None) -> Iterator[Session]:
    """The sessions of a trace: a file, a run folder, or a folder of files of one format. BadInput where it is none."""
    if format is not None and format not in FORMATS:
        raise BadInput(f"trace format {format!r} is not known{meant(format, FORMATS)}")
    if not path.exists():
        raise BadInput(f"trace {str(path)!r} does not exist")
    if path.is_dir() and (path / "run.json").exists() and format in (None, "run"):
        yield from runs.read(Source(path, complaints))
        return
    for file in files(path):
        kind = format or detect(file)
        if kind is None:
            raise BadInput(f"trace {str(file)!r} is of no known format; name one with --format: {', '.join(FORMATS)}")
        yield from FORMATS[kind](Source(file, complaints))


def files(path: Path) -> list[Path]:
    """The files of a trace."""
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    chunks = [file for file in found if servegen.NAME.fullmatch(file.name)]
    if chunks:
        return chunks
    found = [file for file in found if re.search(r"\.(jsonl?|ndjson|csv|traj)(\.gz)?$", file.name)]
    if not found:
        raise BadInput(f"folder {str(path)!r} holds no trace: no run.json, .json, .jsonl, .csv or .traj")
    return found


def format_of(path: Path) -> str | None:
    """The format of a file or folder; None where it is not known."""
    if path.is_dir():
        return "run" if (path / "run.json").exists() else detect(files(path)[0])
    return detect(path)


def detect(path: Path) -> str | None:
    """The format of a file, from how it begins."""
    with Source(path, Complaints()).open() as file:
        try:
            head = file.read(HEAD)
        except (OSError, EOFError, zlib.error) as error:
            raise BadInput(f"trace {str(path)!r} cannot be read: {error}") from None
    text = head.decode("utf-8-sig", "replace").lstrip()
    if text[:1] in ("{", "["):
        return by_keys(text)
    first = [cell.strip() for cell in text.partition("\n")[0].split(",")]
    for name, columns in (("azure", tables.AZURE), ("burstgpt", tables.BURST), ("shape", tables.SHAPE)):
        if sum(column in first for column in columns) >= len(columns) - 1:
            return name
    if servegen.NAME.fullmatch(path.name) or re.match(r"[\d.]+,[\d.]+,[\d.]*,(Gamma|Weibull|),", text):
        return "servegen"
    return None


def by_keys(text: str) -> str | None:
    """The format whose keys an early object has; where no line is an object, whose keys occur in the text."""
    for line in text.splitlines()[:5]:
        try:
            value: Any = msgspec.json.decode(line.strip().rstrip(","))
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            continue
        value = value[0] if isinstance(value, list) and value else value
        found = matching(value.keys()) if isinstance(value, dict) else None
        if found:
            return found
    return matching(re.findall(r'"(\w+)"\s*:', text))


def matching(keys: Any) -> str | None:
    keys = set(keys)
    return next((name for name, sets in KEYS.items() if any(keys.issuperset(wanted) for wanted in sets)), None)
