"""Prompts that are not text: how many tokens a conversation of described messages is, and which blocks of it are equal.

The template is that of `agentload.box.words`: a message is three tokens that open it and name its role, its content,
and two that end it; three more open the answer. Two such prompts share blocks exactly where their texts would: the same
filler is the same as far as both go, the same role opens a message the same way, and a reply put back without its
reasoning goes on where the prompt it answered had ended.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from agentload.box.said import Said
from agents.chain import Message

if TYPE_CHECKING:
    from agentload.box.kv import BlockCache, Extent

OPEN: Final = 3
CLOSE: Final = 2
ANSWER: Final = 3
ROLES: Final = {
    "system": 0xE3779B97F4A7C15,
    "user": 0xC6EF372FE94F82A,
    "assistant": 0xAA66D2C7DDF743F,
    "tool": 0x8DDE6E5FD29F054,
    "developer": 0x715609F7C746C69,
}
"""Who opens a message, as numbers that tell apart what follows: multiples of the golden ratio, below 60 bits."""
BLOCK: Final = 16
SPARE: Final = 4
"""Bits of a hash that are left out: what fits 62 is a number to compiled code, and no object until it is kept; where it
is, 60 make a smaller one."""


class Runs:
    """Identities of blocks as runs: block i of a run has the identity `base` + i.

    The lists belong to the conversation, which only adds to them; `count` of their runs are ours, and then a last one.
    """

    __slots__ = ("_base", "_bases", "_count", "_length", "_start", "_starts", "of")

    def __init__(self, of: "Prompt", starts: list[int], bases: list[int], start: int, base: int, length: int) -> None:
        self.of = of
        self._starts, self._bases, self._count = starts, bases, len(starts)
        self._start, self._base, self._length = start, base, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int, /) -> int:
        if index >= self._start:
            return self._base + index
        return self._bases[self._before(index + 1) - 1] + index

    def agreed(self, other: "Runs") -> int:
        """How many blocks from the start are the same: to where one of two equal runs stops before the other does."""
        high, low, ahead = min(self._count, other._count) + 1, 0, 1
        if self.of is other.of:
            low = max(0, high - 2)  # all but the last were the conversation's by then
        else:  # most have a preamble in common
            while ahead < high and self._base_of(ahead) == other._base_of(ahead):
                low, ahead = ahead + 1, 2 * ahead
            high = min(high, ahead)
        while low < high:
            middle = (low + high) // 2
            if self._base_of(middle) == other._base_of(middle):
                low = middle + 1
            else:
                high = middle
        return min(self._first(low), other._first(low))

    def _base_of(self, run: int) -> int:
        return self._bases[run] if run < self._count else self._base

    def _first(self, run: int) -> int:
        """The first block of a run; after the last, how many blocks there are."""
        if run < self._count:
            return self._starts[run]
        return self._start if run == self._count else self._length

    def runs(self, limit: int) -> Iterator[tuple[int, int]]:
        """The runs that make the first `limit` blocks, the last one first: base, and the first block."""
        if limit > self._start:
            yield self._base, self._start
        for i in range(self._before(min(limit, self._start)) - 1, -1, -1):
            yield self._bases[i], self._starts[i]

    def _before(self, index: int) -> int:
        """How many runs of the conversation begin before a block. `bisect` knows, but costs compiled code ten times as
        much to ask."""
        starts, low, high = self._starts, 0, self._count
        while low < high:
            middle = (low + high) // 2
            if starts[middle] < index:
                low = middle + 1
            else:
                high = middle
        return low

    def news(self, place: int) -> list[int]:
        """The runs that a place has not been told of, this conversation's and the answer's; now it has been."""
        of = self.of
        told = of.told[1] if of.told[0] == place else 0
        of.told = place, len(of.bases)
        new = of.bases[told:]
        if self._bases is not of.bases:  # a block ends within the opening of the answer
            new.append(self._bases[-1])
        new.append(self._base)
        return new


class Prompt:
    """A conversation as the replica sees it; it grows as messages are added."""

    __slots__ = ("_chain", "_messages", "_starts", "bases", "ended", "tokens", "told")

    def __init__(self) -> None:
        self.tokens = 0  # of all messages, without the opening of the answer
        self._messages = 0
        self._chain = 0  # a number made from everything so far
        self._starts: list[int] = []
        self.bases: list[int] = []  # of runs of blocks, see `Runs`
        self.ended: tuple[BlockCache, Extent] | None = None  # near where the last request did: cache, extent
        self.told = -1, 0  # the place that was told last of so many of them

    @property
    def size(self) -> int:
        """Tokens of the prompt with an answer opened."""
        return self.tokens + ANSWER

    def extend(self, messages: list[Message]) -> None:
        """Take in the messages that are new."""
        for message in messages[self._messages :]:
            self._add(message)
        self._messages = len(messages)

    def ask(self, output: int, thought: int) -> tuple[int, Runs]:
        """A number for the text of the answer, and the identities of all blocks of prompt and answer.

        The answer has `output` tokens; `thought` of them are reasoning. The same prompt with an answer of another
        length is taken to be answered in other words.
        """
        prompt = self.size
        opened = self._chain ^ ROLES["assistant"]
        reply = opened ^ (output << 24) ^ thought
        length = (prompt + output) // BLOCK
        base = hash((opened ^ prompt, -reply if thought else reply)) >> SPARE
        starts, bases = self._starts, self.bases
        first = prompt // BLOCK
        if first > self.tokens // BLOCK:  # a block ends within the opening
            starts, bases = [*starts, self.tokens // BLOCK], [*bases, opened]
        return reply, Runs(self, starts, bases, first, base, length)

    def _add(self, message: Message) -> None:
        text = message.text
        self._chain ^= ROLES[message.role]
        self._run(self.tokens + OPEN)
        if text is None:
            tokens = message.tokens
            left = max(1, tokens - OPEN - CLOSE)
            parts = message.parts
            if parts:
                for key, size in parts:
                    left -= self._piece(key, min(size, left))
            else:
                self._piece(message.key, min(tokens, left))
        elif type(text) is Said:
            self._piece(text.key, text.tokens)
        else:
            raise TypeError(f"a described conversation cannot hold real text, got {text[:40]!r}")
        self._run(self.tokens + CLOSE)

    def _piece(self, key: int, size: int) -> int:
        """So many tokens of some filler, or of a reply; how many they are."""
        if size <= 0:
            return 0
        self._chain = hash((self._chain ^ self.tokens, key)) >> SPARE
        self._run(self.tokens + size)
        self._chain ^= size << 24  # more than any run has blocks
        return size

    def _run(self, end: int) -> None:
        """Everything up to token `end` belongs to what the chain is now; so do the blocks that end in it."""
        first = self.tokens // BLOCK
        if end // BLOCK > first:
            self._starts.append(first)
            self.bases.append(self._chain)
        self.tokens = end


def said(key: int, tokens: int) -> Said:
    """The text of a reply."""
    text = Said()
    text.key, text.tokens = key, tokens
    return text
