"""A trace file as readers see it: lines and JSON values with their line numbers, and complaints about bad ones.

What cannot be used is named (file, line, field, reason) and skipped, or ends the reading: the caller's choice.
"""

import gzip
import re
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Generic, TypeVar, cast

import msgspec
from msgspec import Struct

from agentload.errors import BadInput

LONGEST = 256 * 2**20
"""Bytes of a line, or of a JSON value, beyond which it is not read."""
MOST = 16 * 2**30
"""Bytes of a file, unpacked, beyond which it is not read."""
KEPT = 1_000
"""Complaints that are kept word for word; all are counted."""
CHUNK = 1 << 20


class Complaint(Struct, frozen=True):
    """What is wrong with a trace, and where."""

    file: str
    line: int  # from 1; 0 is the file as a whole
    field: str
    reason: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.field}: {self.reason}" if self.field else f"{place}: {self.reason}"


class Damaged(ValueError):  # noqa: N818  # it is the value that is
    """A value that cannot be used."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field, self.reason = field, reason


class Complaints:
    """What was found wrong so far. `fatal` makes the first one end the reading, with BadInput."""

    def __init__(self, fatal: bool = False) -> None:
        self.fatal = fatal
        self.found: list[Complaint] = []
        self.count = 0

    def add(self, path: Path, line: int, field: str, reason: str) -> None:
        complaint = Complaint(str(path), line, field, shortened(reason))
        if self.fatal:
            raise BadInput(str(complaint))
        self.count += 1
        if len(self.found) < KEPT:
            self.found.append(complaint)


T = TypeVar("T")


class Source:
    """One file, and where its complaints go."""

    def __init__(self, path: Path, complaints: Complaints) -> None:
        self.path, self.complaints = path, complaints

    def complain(self, line: int, field: str, reason: str) -> None:
        self.complaints.add(self.path, line, field, reason)

    def open(self) -> IO[bytes]:
        """The file's bytes; gzip is unpacked. BadInput where it cannot be read."""
        try:
            with self.path.open("rb") as file:
                packed = file.read(2) == b"\x1f\x8b"
            return cast(IO[bytes], gzip.open(self.path, "rb")) if packed else self.path.open("rb")
        except OSError as error:
            raise BadInput(f"trace {str(self.path)!r} cannot be read: {error.strerror}") from None

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Lines that are not blank, with their numbers."""
        number = size = 0
        with self.open() as file:
            try:
                while line := file.readline(LONGEST):
                    number += 1
                    size += len(line)
                    if size > MOST:
                        self.complain(number, "", f"the file has more than {MOST >> 30} GiB; the rest is not read")
                        return
                    if len(line) == LONGEST:
                        self.complain(number, "", f"the line is longer than {LONGEST >> 20} MiB; the rest is not read")
                        return
                    if line.strip():
                        yield number, line
            except (OSError, EOFError, zlib.error) as error:
                self.complain(number + 1, "", f"the file cannot be read further: {error}")

    def values(self, kind: type[T]) -> Iterator[tuple[int, T]]:
        """JSON values that are a `kind`, with the line each begins on: one a line, or spread over lines, or the items
        of an array."""
        decoder = msgspec.json.Decoder(kind)
        pieces = self.lines() if self._one_a_line() else self._documents()
        for number, data in pieces:
            try:
                yield number, decoder.decode(data)
            except RecursionError:
                self.complain(number, "", "the JSON is nested too deeply")
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                self.complain(number, *explained(error))

    def _one_a_line(self) -> bool:
        """Whether one of the first lines is a JSON object by itself."""
        for count, (_, line) in enumerate(self.lines()):
            if line.lstrip()[:1] == b"{" and line.rstrip()[-1:] == b"}" and is_json(line):
                return True
            if count >= 4:
                break
        return False

    def _documents(self) -> Iterator[tuple[int, bytes]]:
        """Top-level values, or the items of a top-level array, with the lines they begin on."""
        number, begun, depth, base, in_string = 1, 0, 0, 0, False
        held: list[bytes] = []
        size, started, total = 0, False, 0
        inside, outside = re.compile(rb'["\\\n]'), re.compile(rb'["{}\[\]\n]')
        with self.open() as file:
            while chunk := self._read(file, number):
                at, start = 0, 0
                total += len(chunk)
                if total > MOST:
                    self.complain(number, "", f"the file has more than {MOST >> 30} GiB; the rest is not read")
                    return
                while at < len(chunk):
                    found = (inside if in_string else outside).search(chunk, at)
                    if found is None:
                        break
                    mark, at = found[0], found.end()
                    if mark == b"\n":
                        number += 1
                    elif mark == b"\\":
                        at += 1
                        if at > len(chunk):
                            chunk += self._read(file, number)
                    elif mark == b'"':
                        in_string = not in_string
                    elif mark in b"{[":
                        if not started and mark == b"[":
                            base = 1
                        elif depth == base:
                            begun, start = number, at - 1
                            held, size = [], 0
                        started = True
                        depth += 1
                    else:
                        depth -= 1
                        if depth == base and begun:
                            yield begun, b"".join([*held, chunk[start:at]])
                            begun = 0
                        if depth < base:
                            base = depth = 0
                            started = False
                if begun:
                    held.append(chunk[start:])
                    size += len(chunk) - start
                    if size > LONGEST:
                        self.complain(begun, "", f"the value is longer than {LONGEST >> 20} MiB; the rest is not read")
                        return
        if begun:
            self.complain(begun, "", "the JSON value that begins here does not end")

    def _read(self, file: IO[bytes], number: int) -> bytes:
        try:
            return file.read(CHUNK)
        except (OSError, EOFError, zlib.error) as error:
            self.complain(number, "", f"the file cannot be read further: {error}")
            return b""


def is_json(data: bytes) -> bool:
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def explained(error: Exception) -> tuple[str, str]:
    """Field and reason of what msgspec says."""
    what, _, path = str(error).partition(" - at `")
    field = path.rstrip("`").removeprefix("$").lstrip(".")
    missing = re.search(r"missing required field `(.*)`", what)
    if missing:
        return f"{field}.{missing[1]}".lstrip("."), "is missing"
    if isinstance(error, msgspec.ValidationError):
        return field, what.replace("Expected", "must be").replace("`", "")
    return field, f"not JSON: {what[:1].lower()}{what[1:]}"


def shortened(reason: str, most: int = 300) -> str:
    """One line, not too long."""
    line = " ".join(reason.split())
    return line if len(line) <= most else line[: most - 1] + "…"


class Gather(Generic[T]):
    """Rows of many sessions that come interleaved: held until the file ends, or until they have to make room."""

    def __init__(self, most: int = 3_000_000) -> None:
        self._most, self._held = most, 0
        self._open: OrderedDict[str, tuple[list[T], list[int]]] = OrderedDict()

    def add(self, session: str, row: T, weight: int = 10) -> Iterator[tuple[str, list[T]]]:
        """Take a row; yield sessions that must make room for it, the longest untouched first. `weight` is about how
        many numbers a row holds."""
        rows, weights = self._open.setdefault(session, ([], []))
        rows.append(row)
        weights.append(weight)
        self._open.move_to_end(session)
        self._held += weight
        while self._held > self._most and len(self._open) > 1:
            name, (rows, weights) = self._open.popitem(last=False)
            self._held -= sum(weights)
            yield name, rows

    def rest(self) -> Iterator[tuple[str, list[T]]]:
        """All that is left, in the order in which the sessions were last added to."""
        while self._open:
            name, (rows, _) = self._open.popitem(last=False)
            yield name, rows


def estimate(text: Any) -> int:
    """Tokens of a text that nobody has counted: a quarter of its characters."""
    return -(-len(text) // 4) if isinstance(text, str) else 0
