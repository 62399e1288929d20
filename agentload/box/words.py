"""The box's own tokenizer and chat template: how many tokens a prompt is, and which blocks of it are the same.

The rule: a run of letters is one token for each 16 letters begun, a run of digits one for each 3, a run of
punctuation one for each 3, other writing (bytes of UTF-8 above ASCII) one for each 3 bytes, line breaks and tabs one
for each run of 16. A single space belongs to what follows it and costs nothing; longer runs of spaces are one token
for each 16. So common words are one token each, JSON costs about what it costs in a BPE vocabulary, and joining texts
at a space or a change of kind adds their counts.

A token is a 64-bit number made from its bytes alone, so that equal texts make equal tokens in every process. Messages
are wrapped like ChatML: 3 tokens before (mark, role, line break), 2 after, and 3 at the end of a prompt to open the
answer. Tools are described in one block: 12 tokens and their schemas as compact JSON. A tool call in a message is a
mark, the name, the arguments and a mark, exactly as the model of the box wrote it.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Tokens: TypeAlias = NDArray[np.uint64]
Identities: TypeAlias = NDArray[np.uint64]

BLOCK = 16
_LETTER, _DIGIT, _SPACE, _BREAK, _OTHER, _PUNCTUATION = range(6)
_LIMITS = np.array([16, 3, 16, 16, 3, 3])


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Splitmix64's finaliser (Steele, Lea & Flood 2014): well spread 64-bit numbers from small ones."""
    x = (x + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _classes() -> NDArray[np.uint8]:
    kinds = np.full(256, _PUNCTUATION, np.uint8)
    for low, high, kind in (("A", "Z", _LETTER), ("a", "z", _LETTER), ("0", "9", _DIGIT), ("\0", "\x1f", _BREAK)):
        kinds[ord(low) : ord(high) + 1] = kind
    kinds[ord(" ")] = _SPACE
    kinds[128:] = _OTHER
    return kinds


_CLASS = _classes()
_PAIR = _mix(np.arange(65_536, dtype=np.uint64))  # of a byte and the byte after it in its token, 0 at the end
_IN_BLOCK = _mix(np.arange(BLOCK, dtype=np.uint64) + np.uint64(1 << 20)) | np.uint64(1)


def _starts(data: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Where the pieces of a text begin, and of what kind each is; free spaces are still among them."""
    kinds = _CLASS[data]
    starts = np.concatenate(([0], np.flatnonzero(kinds[1:] != kinds[:-1]) + 1))
    lengths = np.diff(starts, append=len(data))
    limits = _LIMITS[kinds[starts]]
    if (lengths > limits).any():
        parts = -(-lengths // limits)
        first = np.cumsum(parts) - parts
        nth = np.arange(int(parts.sum())) - np.repeat(first, parts)
        starts = np.repeat(starts, parts) + nth * np.repeat(limits, parts)
    return starts, kinds[starts]


def _paid(starts: NDArray[np.int64], kinds: NDArray[np.uint8], size: int) -> NDArray[np.bool_]:
    """Which pieces are tokens: all but single spaces."""
    paid: NDArray[np.bool_] = (kinds != _SPACE) | (np.diff(starts, append=size) > 1)
    return paid


def tokenize(text: str) -> Tokens:
    """The tokens of a text."""
    data = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)
    if not len(data):
        return np.empty(0, np.uint64)
    starts, kinds = _starts(data)
    pairs = data.astype(np.uint16) << np.uint16(8)
    pairs[:-1] |= data[1:]
    pairs[starts[1:] - 1] &= np.uint16(0xFF00)  # a token does not depend on what follows it
    return np.add.reduceat(_PAIR[pairs], starts)[_paid(starts, kinds, len(data))]


def pieces(text: str) -> list[str]:
    """An ASCII text cut into the strings that its tokens stand for; joined, they are the text again."""
    data = np.frombuffer(text.encode("ascii"), np.uint8)
    if not len(data):
        return []
    starts, kinds = _starts(data)
    paid = _paid(starts, kinds, len(data))
    cuts = [int(start) - (i > 0 and not paid[i - 1]) for i, start in enumerate(starts) if paid[i]]
    if not cuts:
        return []
    cuts[0] = 0
    return [text[a:b] for a, b in zip(cuts, [*cuts[1:], len(text)], strict=True)]


def special(name: str) -> Tokens:
    """One token that no text contains: a mark of the template."""
    return np.frombuffer(hashlib.blake2b(name.encode(), digest_size=8).digest(), np.uint64)


CALL_OPEN, CALL_CLOSE = special("<tool_call>"), special("</tool_call>")
_START, _END, _LINE = special("<|im_start|>"), special("<|im_end|>"), special("\n")
_TOOLS = np.repeat(special("# Tools"), 12)
_ANSWER = np.concatenate((_START, special("role assistant"), _LINE))


def identities(tokens: Tokens, before: Identities | None = None) -> Identities:
    """Chained identities of the full blocks of a token sequence, whose first blocks have the identities `before`.

    Equal identities at i mean that everything up to there is equal (but for a chance of 2^-64): each is the wrapped
    sum, over the blocks so far, of the block's own fingerprint times an odd number that belongs to its place.
    """
    known = 0 if before is None else len(before)
    full = len(tokens) // BLOCK
    prints = _mix(tokens[: full * BLOCK].reshape(full, BLOCK) @ _IN_BLOCK)
    places = _mix(np.arange(known, known + full, dtype=np.uint64)) | np.uint64(1)
    chain: Identities = np.cumsum(prints * places, dtype=np.uint64)
    if before is None or not known:
        return chain
    return np.concatenate((before, chain + before[-1]))


def digest(tokens: Tokens, chain: Identities) -> int:
    """A fingerprint of a whole prompt, from its tokens and the identities of its full blocks."""
    tail = tokens[len(chain) * BLOCK :]
    rest = int(np.add.reduce(tail * _IN_BLOCK[: len(tail)])) if len(tail) else 0
    return (rest + (int(chain[-1]) if len(chain) else 0)) & (2**64 - 1)


ENTRY = 64
"""Tokens (of 8 bytes) that a message in the template's memory takes beside its own: its key, its array, its place."""


class Template:
    """The chat template, with a memory of what it has already tokenized (histories are sent again at every step)."""

    def __init__(self, most_tokens: int = 8_000_000) -> None:
        self._most = most_tokens
        self._size = 0
        self._memory: OrderedDict[Hashable, Tokens] = OrderedDict()

    def prompt(self, messages: Iterable[tuple[str, str, tuple[tuple[str, str], ...]]], tools: str = "") -> Tokens:
        """The tokens of a chat, from (role, text, ((tool name, arguments), …)) of each message and the tools' JSON."""
        parts = [self._message(message) for message in messages]
        if tools:
            parts.insert(0, self._tools(tools))
        return np.concatenate((*parts, _ANSWER))

    def _message(self, message: tuple[str, str, tuple[tuple[str, str], ...]]) -> Tokens:
        found = self._recall(message)
        if found is not None:
            return found
        role, text, calls = message
        parts = [_START, special("role " + role), _LINE, tokenize(text)]
        for name, arguments in calls:
            parts += [CALL_OPEN, tokenize(name), tokenize(arguments), CALL_CLOSE]
        return self._keep(message, np.concatenate((*parts, _END, _LINE)))

    def _tools(self, tools: str) -> Tokens:
        found = self._recall(tools)
        return self._keep(tools, np.concatenate((_TOOLS, tokenize(tools)))) if found is None else found

    def _recall(self, key: Hashable) -> Tokens | None:
        found = self._memory.get(key)
        if found is not None:
            self._memory.move_to_end(key)
        return found

    def _keep(self, key: Hashable, tokens: Tokens) -> Tokens:
        self._memory[key] = tokens
        self._size += len(tokens) + ENTRY
        while self._size > self._most:
            self._size -= len(self._memory.popitem(last=False)[1]) + ENTRY
        return tokens
