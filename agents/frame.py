"""The middle of a stream, read without decoding it event by event.

Most events of a stream are alike but for one piece of text. What stands around it is learned from one event; another
with the same bytes around another string is that string, and nothing else. On the wire such an event is, mostly, one
network read that holds one whole chunk of a chunked body.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain, repeat, takewhile
from typing import NamedTuple

import msgspec

from agents.answer import Answer

FIELD = re.compile(rb'"(?:content|reasoning|reasoning_content|text|delta)": ?"(?=[^"])')
"""Where a text may begin."""

STRING, STRINGS = msgspec.json.Decoder(str), msgspec.json.Decoder(list[str])
SAMPLE = "sample"
LINE = 9
"""Bytes of a chunk's first line that are looked at: one more than those of any size that is taken."""


class Frame(NamedTuple):
    """What events repeat: the bytes around their text, and what kind of text it is."""

    before: bytes  # from `data:` to the opening quote
    after: bytes  # from the closing quote to the end of the chunk
    reasoning: bool

    def texts(self, reads: Sequence[bytes]) -> list[str]:
        """The text of each read, up to the first that is not one whole chunk with one such event."""
        before, after, many = self.before, self.after, len(reads)
        while many and not reads[many - 1].endswith(after):  # the end of the answer, mostly
            many -= 1
        if not many:
            return []
        reads, start, end = reads[:many], len(before), -len(after)
        lines = list(map(first_line, map(len, reads)))
        texts = [read[len(line) + start : end] for line, read in zip(lines, reads, strict=True)]
        pieces = chain.from_iterable(zip(lines, repeat(before), texts, repeat(after)))
        if b"".join(pieces) != b"".join(reads):  # some differ, if only by the case of their size
            chunks = [line + before + text + after for line, text in zip(lines, texts, strict=True)]
            alike = takewhile(lambda pair: same(*pair), zip(chunks, reads, strict=True))
            texts = texts[: len(list(alike))]
        return strings(texts)


def same(chunk: bytes, read: bytes) -> bool:
    """Whether a read is that chunk. Some servers write sizes in capitals."""
    size, _, rest = read.partition(b"\r\n")
    return b"%b\r\n%b" % (size.lower(), rest) == chunk


def strings(texts: list[bytes]) -> list[str]:
    """What stood between quotes, decoded, up to the first that is empty or no JSON string.

    All at once, which costs less than half, where none of them has a quote: a backslash that takes one of ours for its
    own then leaves fewer strings than there are texts.
    """
    together = b'","'.join(texts)
    if together.count(b'"') == 2 * len(texts) - 2:
        try:
            found = STRINGS.decode(b'["%b"]' % together)
        except ValueError:
            found = []
        if len(found) == len(texts) and "" not in found:
            return found
    found = []
    for text in texts:
        try:
            found.append(STRING.decode(b'"%b"' % text))
        except ValueError:
            break
    return list(takewhile(bool, found))


def frame_of(read: bytes, fresh: Callable[[], Answer]) -> Frame | None:
    """What an event like the one in that read has around its text: proved by another text in its place, which must be
    all that a fresh answer then holds. None where there is more to it."""
    event = whole_chunk(read)
    if not event or not event.startswith(b"data: ") or event.find(b"\n") != len(event) - 2:
        return None
    starts = [match.end() for match in FIELD.finditer(event)]
    end = event.find(b'"', starts[0]) if len(starts) == 1 else -1
    if end < 0 or b"\\" in event[starts[0] : end]:
        return None
    before, after, answer = event[: starts[0]], event[end:], fresh()
    answer.event(b"%b%b%b" % (before[6:], SAMPLE.encode(), after[:-2]), 0.0)
    kind = answer.sole(SAMPLE)
    return Frame(before, shared(after + b"\r\n"), kind == "reasoning") if kind else None


@lru_cache(maxsize=64)
def shared(end: bytes) -> bytes:
    """The same bytes object for the same end: all streams of a server have one."""
    return end


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


@lru_cache(maxsize=4096)
def first_line(length: int) -> bytes:
    """The first line of a chunk that takes so many bytes in all; none where no chunk does."""
    for digits in range(1, LINE):
        line = b"%x\r\n" % max(0, length - digits - 4)
        if len(line) == digits + 2:
            return line
    return b""
