"""The log of a recording: a line for each answered call, written when it ends, so that nothing is lost but what runs.

No text is in it. A prompt is a chain of pieces, each known by a hash of itself and of all before it; the hash is keyed
with a secret that is drawn for the recording and never written, so that nobody can try texts against it. A line has the
pieces that no earlier line has. `agentload.traces.calls` makes sessions from the lines.
"""

import hashlib
import itertools
import secrets
from collections import OrderedDict
from collections.abc import Iterator
from typing import IO, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from agentload.record.heard import Heard, Prompt
from agentload.traces.calls import VERSION, Header, Line

PIECE = 512
"""Bytes of a prompt in one piece, about 128 tokens; a turn begins a piece of its own."""
K = TypeVar("K")
KNOWN = 1_000_000
"""Pieces, and ids of responses, that are remembered; the longest unused are forgotten first."""


class Times(NamedTuple):
    """When a call came and when its answer ended, in seconds since the recording began."""

    begin: float
    end: float


class Log:
    """Writes the lines."""

    def __init__(self, file: IO[bytes], secret: bytes = b"") -> None:
        self._file = file
        self._secret = secret or secrets.token_bytes(32)
        self._known: OrderedDict[int, int] = OrderedDict({0: 0})  # tokens of the chain up to a piece
        self._responses: OrderedDict[str, int] = OrderedDict()  # the last piece of what a response answers
        self.calls = self.failed = self.estimated = 0
        self._write(Header(VERSION))

    def _write(self, line: Struct) -> None:
        self._file.write(msgspec.json.encode(line) + b"\n")
        self._file.flush()

    def key(self, *parts: bytes) -> int:
        """A keyed hash, as the key of a piece; never 0."""
        digest = hashlib.blake2b(b"\0".join(parts), digest_size=8, key=self._secret).digest()
        return int.from_bytes(digest, "big") >> 1 or 1

    def name(self, word: str) -> str:
        """What tells sessions and tool calls apart, and says nothing else."""
        return f"{self.key(b'name', word.encode('utf-8', 'surrogatepass')):016x}" if word else ""

    def answered(self, times: Times, prompt: Prompt, heard: Heard, session: str = "") -> None:
        """Write one call; `session` is its client's name for its session."""
        reply = heard.reply
        chain = list(self.chain(prompt))
        known = sum(1 for _ in itertools.takewhile(lambda piece: piece.key in self._known, chain))
        after = chain[known - 1].key if known else self._start(prompt)
        new = sized(chain[known:], reply.input_tokens - self._known[after])
        self._remember(chain, after, new)
        fresh = prompt.turns[chain[known].turn :] if known < len(chain) else []
        rate = sum(tokens for _, tokens in new) / max(1, sum(piece.bytes for piece in chain[known:]))
        heads = list(itertools.takewhile(lambda piece: prompt.turns[piece.turn].kind == "head", chain))
        self.calls += 1
        self.estimated += not heard.counted
        self._write(
            Line(
                begin=times.begin,
                end=times.end,
                input=reply.input_tokens,
                output=max(1, reply.output_tokens),
                cached=heard.cached,
                reasoning=min(reply.reasoning_tokens, reply.output_tokens),
                estimated=not heard.counted,
                session=self.name(session or prompt.session),
                after=after,
                new=new,
                head=self._known[heads[-1].key] if heads else 0,
                tools=[(self.name(call.id), call.name[:200]) for call in reply.tool_calls],
                results=[(self.name(id), round(size * rate)) for turn in fresh for id, size in turn.results],
                person=bool(fresh) and fresh[-1].kind == "user",
                said=self.name(reply.text.strip()),
                goes_on=self.name(next((turn.text.strip() for turn in reversed(fresh) if turn.text), "")),
            )
        )
        if heard.id:
            keep(self._responses, heard.id, chain[-1].key if chain else after)

    def chain(self, prompt: Prompt) -> Iterator["Piece"]:
        """The pieces of a prompt: each key stands for the piece and all before it."""
        key = self._start(prompt)
        for number, turn in enumerate(prompt.turns):
            for at in range(0, len(turn.data), PIECE):
                data = turn.data[at : at + PIECE]
                key = self.key(key.to_bytes(8, "big"), data)
                yield Piece(key, len(data), number)

    def _start(self, prompt: Prompt) -> int:
        """Where a prompt begins: after what the server keeps, where it goes on from a response."""
        key = self._responses.get(prompt.after, 0)
        return key if key in self._known else 0

    def _remember(self, chain: list["Piece"], after: int, new: list[tuple[int, int]]) -> None:
        total = self._known[after]
        for piece in chain:
            if piece.key in self._known:
                self._known.move_to_end(piece.key)
        for key, tokens in new:
            total += tokens
            keep(self._known, key, total)
        self._known.move_to_end(0)


class Piece(NamedTuple):
    """A piece of a prompt."""

    key: int
    bytes: int
    turn: int


def sized(pieces: list[Piece], tokens: int) -> list[tuple[int, int]]:
    """Pieces with their share of the tokens, by their length, each at least one."""
    left, length = max(0, tokens - len(pieces)), sum(piece.bytes for piece in pieces)
    found, passed, given = list[tuple[int, int]](), 0, 0
    for piece in pieces:
        passed += piece.bytes
        upto = round(left * passed / length)
        found.append((piece.key, 1 + upto - given))
        given = upto
    return found


def keep(memory: OrderedDict[K, int], key: K, value: int) -> None:
    """Remember something, and forget what has not been used for longest."""
    memory[key] = value
    while len(memory) > KNOWN:
        memory.popitem(last=False)
