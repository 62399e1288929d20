"""Server-sent events, as far as an API answer needs them: bytes in, the `data` of each event out.

The rules are those of the HTML standard (§9.2.6, "Interpreting an event stream"), `data` alone is kept.
"""

from agents.limits import MAX_EVENT_BYTES

LF, CR = 10, 13  # as numbers, which are found in bytes several times faster than a piece of bytes is


class EventTooLargeError(ValueError):
    """One event is larger than `MAX_EVENT_BYTES`."""


class Events:
    """Splits a stream that arrives in pieces cut anywhere."""

    __slots__ = ("_after_cr", "_data", "_line", "_size", "clean")

    def __init__(self) -> None:
        self._line = bytearray()  # the unfinished last line
        self._data: list[bytes] = []  # data lines of the unfinished event
        self._size = 0  # of `_data`, in bytes
        self._after_cr = False  # the last piece ended in a CR, whose LF may still come
        self.clean = True  # nothing of the three is pending

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that this piece completes."""
        if self.clean and piece.endswith(b"\n\n") and CR not in piece:
            # Whole events of one data line each: what every server sends when nothing cuts its writes. One, mostly.
            if piece.find(LF) == len(piece) - 2 and piece.startswith(b"data: "):
                return [piece[6:-2]]
            events = piece[:-2].split(b"\n\n")
            for i, event in enumerate(events):
                if not event.startswith(b"data: ") or b"\n" in event:
                    break
                events[i] = event[6:]
            else:
                return events
        return self._slow(piece)

    def _slow(self, piece: bytes) -> list[bytes]:
        if not piece:
            return []
        if self._after_cr and piece[0] == 10:
            piece = piece[1:]
        self._after_cr = False
        found: list[bytes] = []
        lines = piece.splitlines(keepends=True)  # of bytes: at LF, CR and CRLF only
        for line in lines:
            text = line.rstrip(b"\r\n")
            if len(text) == len(line):  # no line end: only the last one can be so
                self._line += line
                break
            if self._line:
                self._line += text
                text = bytes(self._line)
                self._line.clear()
            self._take(text, found)
        self._after_cr = piece.endswith(b"\r")
        if len(self._line) + self._size > MAX_EVENT_BYTES:
            raise EventTooLargeError(f"an event of more than {MAX_EVENT_BYTES} bytes")
        self.clean = not self._line and not self._data and not self._after_cr
        return found

    def _take(self, line: bytes, found: list[bytes]) -> None:
        """One whole line: a data line is kept, a blank one ends the event."""
        if not line:
            if self._data:
                found.append(b"\n".join(self._data))
                self._data.clear()
                self._size = 0
        elif line.startswith(b"data:"):
            self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])
            self._size += len(line)
        elif line == b"data":
            self._data.append(b"")
            self._size += len(line)
