"""Our own trace format: JSON lines, a header and then one session a line, in the very form of `graph`.

Whatever can be read can be written like this, and comes back identical. The header is `{"agentload_trace": 1, …}`; a
later version that this one cannot read has another number.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import msgspec
from msgspec import Struct

from agentload.traces.graph import Session
from agentload.traces.source import Source, explained

VERSION = 1


class Header(Struct, frozen=True, omit_defaults=True):
    """The first line."""

    agentload_trace: int
    source: str = ""  # the file it was made from
    format: str = ""  # and what that was


def read(source: Source) -> Iterator[Session]:
    header, sessions = msgspec.json.Decoder(Header), msgspec.json.Decoder(Session)
    begun = False
    for number, line in source.lines():
        try:
            if begun:
                yield sessions.decode(line)
                continue
            version = header.decode(line).agentload_trace
        except RecursionError:
            source.complain(number, "", "the JSON is nested too deeply")
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            source.complain(number, *explained(error))
        else:
            if version != VERSION:
                source.complain(number, "agentload_trace", f"is {version}; this agentload reads version {VERSION}")
                return
        begun = True


def write(sessions: Iterable[Session], file: IO[bytes], header: Header | None = None) -> int:
    """Write sessions; say how many."""
    encoder, count = msgspec.json.Encoder(), 0
    file.write(encoder.encode(header or Header(VERSION)) + b"\n")
    for session in sessions:
        file.write(encoder.encode(session) + b"\n")
        count += 1
    return count


def save(sessions: Iterable[Session], path: Path, header: Header | None = None) -> int:
    """Write sessions to a file, whole or not at all; say how many."""
    half = path.with_name(f".{path.name}.part")
    try:
        with half.open("wb") as file:
            count = write(sessions, file, header)
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)
    return count
