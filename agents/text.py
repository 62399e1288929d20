"""Descriptions become text here: filler with a known token count, and the JSON of a message.

Filler is made of common English words, each one token in practically every BPE vocabulary. It is drawn in shuffled
rounds of the whole vocabulary, so that even where words cost different numbers of tokens (a tiny vocabulary, say), the
count of a long text is exact and only its last, partial round varies. `Calibration` holds what the endpoint's own
`usage` said about words and about its chat template.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec
import numpy as np
from msgspec import Struct

from agents.chain import Message, ToolCall, ToolSchema

WORDS = (
    "the a and of to in is was for on that with as it by at from be this or are an have not had but his they were her "
    "she one all we there their has been if more when will would who so no out up them then into time some could these "
    "two may first other its new only people over after also well down back just where most know very through good "
    "way even because any those how our work life man year day long make great between world still own last never "
    "before too under state might much while see day house both part place right old high again small end number "
    "during home point hand without school every war public use system set water group order head fact side name "
    "power line city area level law case kind form best body face keep light free field air land town late white real "
    "car full far young money white open door mind plan book word court night half service change food cost office "
    "show word room stand road age girl party table job company market report press study price test file code tool "
    "result error search read write step value server load request queue cache model answer check next fix build list "
    "find return count data input output user task done note run agent turn call store view key type class rule"
).split()
VOCABULARY = tuple(dict.fromkeys(WORDS))
ALL = (1 << 64) - 1
SIZE = len(VOCABULARY)
DRAWN = 8
"""Words at the start of a round that the key decides by itself: as many as 64 bits can."""
CHARACTERS_PER_TOKEN = 4.0
"""Of English text in common vocabularies; used for real text where nobody has counted."""
MOST_SHARED = 128 * 2**20
"""Bytes of messages that are kept because others may need them again; the oldest go first."""

Write: TypeAlias = Callable[[dict[str, Any]], bytes]
"""Makes a message's dictionary into bytes of a request."""


class Calibration(Struct, frozen=True):
    """What the endpoint's `usage` says a prompt costs beyond its words, in tokens."""

    per_word: float = 1.0
    per_message: float = 4.0  # chat template, each message; ChatML's `<|im_start|>role\n … <|im_end|>\n`
    per_system: float = 4.0
    per_request: float = 3.0  # chat template, once: the beginning of text and the generation prompt
    counted: bool = False  # False: nobody has counted, these are the defaults


class Room(Struct, frozen=True):
    """What a chain must know about the endpoint to size its prompts."""

    context: int  # tokens that prompt and reply may have together
    calibration: Calibration = Calibration()
    forces_length: bool = True  # the endpoint takes ignore_eos and min_tokens


def described(schema: ToolSchema) -> dict[str, Any]:
    """A tool, as chat completions want it described."""
    return {"type": "function", "function": schema}


class Encoder:
    """Makes messages into what the API takes. Pure: the same message gives the same text."""

    def __init__(self, calibration: Calibration | None = None) -> None:
        self.calibration = calibration or Calibration()
        self._shared: dict[tuple[Write, Message], bytes] = {}
        self._shared_bytes = 0

    def plain(self, message: Message) -> dict[str, Any]:
        """The message as the dictionary of chat completions."""
        plain: dict[str, Any] = {"role": message.role, "content": self._content(message)}
        if message.tool_calls:
            plain["tool_calls"] = [asked(call) for call in message.tool_calls]
            plain["content"] = plain["content"] or None
        if message.call_id:
            plain["tool_call_id"] = message.call_id
        return plain

    def encode(self, message: Message, write: Write = msgspec.json.encode) -> bytes:
        """The message's dictionary as `write` puts it. System prompts, which all sessions of an archetype share, are
        made once; so are, for as long as there is room, messages of several pieces, which conversations share too."""
        if message.role != "system" and not message.parts:
            return write(self.plain(message))
        buffer = self._shared.get((write, message))
        if buffer is None:
            buffer = self._shared[write, message] = write(self.plain(message))
            self._shared_bytes += len(buffer)
            while self._shared_bytes > MOST_SHARED and len(self._shared) > 1:
                self._shared_bytes -= len(self._shared.pop(next(iter(self._shared))))
        return buffer

    def tools(self, schemas: tuple[ToolSchema, ...], shape: Callable[[ToolSchema], Any] = described) -> bytes:
        """Tool schemas as the JSON array of the API's `tools` field."""
        return msgspec.json.encode([shape(schema) for schema in schemas])

    def words(self, tokens: float) -> int:
        """How many words make that many tokens."""
        return max(0, round(tokens / self.calibration.per_word))

    def _content(self, message: Message) -> str:
        if message.text is not None and not message.pad:
            return message.text
        counts = self.calibration
        room = message.tokens - (counts.per_system if message.role == "system" else counts.per_message)
        if message.parts:
            return pieced(message.parts, max(1, self.words(room)), self.words)
        if message.text is None:
            return filler(message.key, max(1, self.words(room)))
        rest = filler(message.key, self.words(room - len(message.text) / CHARACTERS_PER_TOKEN))
        return f"{message.text} {rest}" if rest else message.text


@functools.cache
def orders() -> list[list[int]]:
    """64 orders of the vocabulary."""
    rng = np.random.default_rng(0)
    return [rng.permutation(SIZE).tolist() for _ in range(64)]


def filler(key: int, words: int) -> str:
    """That many words; the key decides which.

    A round is one of some orders of the vocabulary, begun anywhere and put through another: no worse than a shuffle, at
    half the price. Its first words are then drawn one by one, from all 64 bits, so that no two keys begin alike.
    """
    known, texts = orders(), list[str]()
    for left in range(words, 0, -SIZE):
        rest = key = mixed(key)
        inner, outer, turn = known[key >> 58], known[key >> 52 & 63], (key >> 44) % SIZE
        order = inner[turn:] + inner[:turn]
        for place in range(DRAWN):
            rest, ahead = divmod(rest, SIZE - place)
            order[place], order[place + ahead] = order[place + ahead], order[place]
        texts += [VOCABULARY[outer[i]] for i in order[:left]]
    return " ".join(texts)


def mixed(number: int) -> int:
    """Another number of 64 bits, by which no bit of the first can be told: a step of splitmix64 (Steele, Lea, Flood
    2014). No two numbers of 64 bits give the same one."""
    number = number + 0x9E3779B97F4A7C15 & ALL
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & ALL
    number = (number ^ number >> 27) * 0x94D049BB133111EB & ALL
    return number ^ number >> 31


def pieced(parts: tuple[tuple[int, int], ...], words: int, count: Callable[[float], int]) -> str:
    """Filler of several pieces, cut off after so many words. What two messages have in common from their start, piece
    by piece, is the same text: where a piece ends depends on the tokens up to there alone, and a short filler is the
    start of a longer one with its key."""
    texts, tokens, made = [], 0, 0
    for key, size in parts:
        tokens += size
        end = min(count(tokens), words)
        if end > made:
            texts.append(filler(key, end - made))
            made = end
    if made < words and parts:  # fewer words than asked for: rounding
        texts.append(filler(parts[-1][0] + 1, words - made))
    return " ".join(texts)


def asked(call: ToolCall) -> dict[str, Any]:
    """A tool call of the model, as it goes back into the history."""
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
