"""The session graph (`agents.script`), and what readers need to make one: calls from the prompts of an agent."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from agents.script import (
    Agent,
    Call,
    Gap,
    Join,
    Key,
    Run,
    Seconds,
    Session,
    Start,
    Step,
    Text,
    Tokens,
    Tool,
    Tools,
    spread,
)

__all__ = ["Agent", "Call", "Gap", "Join", "Key", "Run", "Seconds", "Session", "Start", "Step", "Text", "Tokens",
           "Tool", "Tools", "spread"]  # fmt: skip

Piece: TypeAlias = tuple[int, int]
"""A key and its tokens."""


def common(a: Sequence[Any], b: Sequence[Any]) -> int:
    """How many items two sequences share from their start."""
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while high - low > 1:  # a[:low] is shared, a[:high] is not
        middle = (low + high) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle)
    return low


def runs(pieces: Sequence[Piece]) -> tuple[Run, ...]:
    """Pieces, with neighbours whose keys count up joined."""
    made: list[list[int]] = []
    for key, tokens in pieces:
        if made and made[-1][1] == tokens and made[-1][0] + made[-1][2] == key:
            made[-1][2] += 1
        else:
            made.append([key, tokens, 1])
    return tuple(Run(*run) for run in made)


class Thread:
    """The prompts of one agent, from which a reader makes calls."""

    def __init__(self, before: "Thread | None" = None) -> None:
        self.pieces: list[Piece] = list(before.pieces) if before else []
        self.input: int = before.input if before else 0

    def call(self, pieces: list[Piece], input: int, output: int, **recorded: Any) -> Call:
        """A call whose prompt has these pieces; the rest of `input` is its own. Pieces beyond `input` are cut off."""
        pieces = fit(pieces, input)
        same = common(self.pieces, pieces)
        if same < len(pieces) and same < len(self.pieces):
            (key, tokens), (kept, had) = pieces[same], self.pieces[same]
            same += key == kept and tokens < had  # the start of a piece, cut short
        keep = sum(tokens for _, tokens in pieces[:same])
        self.pieces, self.input = pieces, input
        return Call(input, output, keep, runs(pieces[same:]), **recorded)

    def grown(self, input: int, output: int, keep: int, **recorded: Any) -> Call:
        """A call of which only the sizes are known: so many tokens of the last prompt, and then its own."""
        keep = min(keep, self.input, input)
        self.pieces, self.input = [], input
        return Call(input, output, keep, **recorded)


def fit(pieces: list[Piece], tokens: int) -> list[Piece]:
    """The pieces that fit into so many tokens, the last one cut."""
    total = sum(size for _, size in pieces)
    if total <= tokens:
        return pieces
    pieces = list(pieces)
    while pieces and total > tokens:
        key, size = pieces.pop()
        total -= size
        if total < tokens:
            pieces.append((key, tokens - total))
            break
    return pieces


def blocks(ids: Sequence[int], block: int, input: int) -> list[Piece]:
    """Block identities as pieces; the last block may be filled in part, and blocks beyond `input` are left out."""
    full = min(len(ids), input // block)
    pieces = [(key, block) for key in ids[:full]]
    rest = input - full * block
    if full < len(ids) and rest:
        pieces.append((ids[full], rest))
    return pieces


def identity(*what: object) -> int:
    """A key for something that has none, from what is known of it."""
    digest = hashlib.blake2b("\0".join(map(str, what)).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def agents(agent: Agent, path: str = "") -> Iterator[tuple[str, Agent]]:
    """An agent and all below it, with their paths ("" is the root, "0.2" the third child of its first child)."""
    yield path, agent
    number = 0
    for step in agent.steps:
        if isinstance(step, Start):
            for child in step.agents:
                yield from agents(child, f"{path}.{number}" if path else str(number))
                number += 1
