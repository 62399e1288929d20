"""The middle of a stream, read without decoding it.

Most events of a stream are alike but for one piece of text. What stands around it is learned from one event; another
with the same bytes around another plain text is that text, and nothing else. On the wire such an event is, mostly, one
network read that holds one whole chunk of a chunked body.
"""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import takewhile
from typing import NamedTuple

from agents.answer import Answer

FIELD = re.compile(rb'"(?:content|reasoning|reasoning_content|text|delta)": ?"(?=[^"])')
"""Where a text may begin."""

SAMPLE = "sample"
LINE = 9
"""Bytes of a chunk's first line that are looked at: one more than those of any size that is taken."""


class Frame(NamedTuple):
    """What events repeat: the bytes around their text, and what kind of text it is."""

    before: bytes  # from `data:` to the opening quote
    after: bytes  # from the closing quote to the end of the chunk
    reasoning: bool

    def texts(self, reads: Iterable[tuple[float, bytes]]) -> list[str]:
        """The text of each read, up to the first that is not one whole chunk with one such event."""
        before, after, found = self.before, self.after, list[bytes]()
        start, end = len(before), -len(after)
        for _, data in reads:
            size, _, chunk = data.partition(b"\r\n")
            if not (chunk.startswith(before) and chunk.endswith(after)) or chunk_size(size[:LINE]) != len(chunk) - 2:
                break
            found.append(chunk[start:end])
        texts = plain(b'"'.join(found)).split('"')  # all at once, which costs a third
        if len(texts) != len(found) or "" in texts:
            texts = list(takewhile(lambda text: text and '"' not in text, map(plain, found)))
        return texts


def frame_of(read: bytes, fresh: Callable[[], Answer]) -> Frame | None:
    """What an event like the one in that read has around its text: proved by another text in its place, which must be
    all that a fresh answer then holds. None where there is more to it."""
    event = whole_chunk(read)
    if not event or not event.startswith(b"data: ") or event.find(b"\n") != len(event) - 2:
        return None
    starts = [match.end() for match in FIELD.finditer(event)]
    end = event.find(b'"', starts[0]) if len(starts) == 1 else -1
    if end < 0 or not plain(event[starts[0] : end]):
        return None
    before, after, answer = event[: starts[0]], event[end:], fresh()
    answer.event(b"%b%b%b" % (before[6:], SAMPLE.encode(), after[:-2]), 0.0)
    kind = answer.sole(SAMPLE)
    return Frame(before, after + b"\r\n", kind == "reasoning") if kind else None


def plain(text: bytes) -> str:
    """Bytes of JSON strings as text, where they stand for themselves; else ""."""
    try:
        found = text.decode()
    except UnicodeDecodeError:
        return ""
    return found if "\\" not in found and found.isprintable() else ""


def whole_chunk(data: bytes) -> bytes | None:
    """The content, where that read is one whole chunk of a chunked body, neither more nor less; else None."""
    i = data.find(b"\r\n", 0, LINE + 1)
    if i < 1 or chunk_size(data[:i]) != len(data) - i - 4 or not data.endswith(b"\r\n"):
        return None
    return data[i + 2 : -2]


@lru_cache(maxsize=4096)
def chunk_size(line: bytes) -> int:
    """The size in a chunk's first line; -1 where it is no plain number of a few digits, and is left to llhttp."""
    return int(line, 16) if 0 < len(line) < LINE and not line.strip(b"0123456789abcdefABCDEF") else -1
