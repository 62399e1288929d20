"""What the box's model answers: made up, but decided by the prompt and a seed alone, and shaped like a real reply.

Given tools it calls one or several, with arguments that fit their schemas, less likely the more results it has
already seen since the last user message, so that agent loops end; else it answers in plain words. Every piece of text
is exactly one token of `agentload.box.words`, so that a reply put back into the history counts what it counted when
it was made.
"""

import json
from typing import Any, Literal, TypeAlias

import numpy as np
from msgspec import Struct

from agentload.box.arguments import arguments
from agentload.box.options import Habits
from agentload.box.sizes import thought_of
from agentload.box.vocabulary import WORDS
from agentload.box.words import CALL_CLOSE, CALL_OPEN, Tokens, pieces, tokenize


class Offer(Struct, frozen=True):
    """A tool the model may call."""

    name: str
    parameters: Any = None  # JSON schema of its arguments


class Question(Struct, frozen=True):
    """All that the model looks at: a fingerprint of the prompt, and what the request asks for."""

    digest: int
    most: int  # tokens it may answer with at most
    seed: int = 0
    least: int = 0  # min_tokens
    exact: bool = False  # ignore_eos: go on until `most`
    thought: int | None = None  # tokens of reasoning in a forced reply; None: as the model is wont to
    tools: tuple[Offer, ...] = ()
    choice: str = "auto"  # "auto", "required", "none", or the name of a tool
    results: int = 0  # tool results since the last user message
    prompt: int = 0  # tokens of the prompt


class Words(Struct, frozen=True):
    """A stretch of text, one token each piece."""

    kind: Literal["reasoning", "text"]
    pieces: list[str]

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class ToolUse(Struct, frozen=True):
    """A tool call: a mark and the name (`head` tokens in all), the arguments, a mark.

    Cut short, it lacks its end; without even a name nobody sees it.
    """

    id: str
    name: str
    head: int
    pieces: list[str]
    closed: bool = True

    @property
    def text(self) -> str:
        return "".join(self.pieces)


Part: TypeAlias = Words | ToolUse


class Script(Struct, frozen=True):
    """A whole reply."""

    parts: list[Part]
    tokens: Tokens  # of all parts
    reasoning_tokens: int
    finish_reason: Literal["stop", "length", "tool_calls"]


def answer(question: Question, habits: Habits) -> Script:
    """The reply to a question: the same question and habits, the same reply."""
    rng = np.random.default_rng([question.digest, question.seed & (2**64 - 1)])
    wants_calls = _wants_calls(question, habits, rng)
    reasons = rng.random() < habits.reasoning
    if question.exact:
        return _forced(question, habits, rng)
    natural = max(1, round(float(rng.lognormal(np.log(habits.output_median), habits.output_sigma))))
    parts: list[Part] = []
    if wants_calls:
        calls = _calls(question, habits, rng)
        length = sum(_size(call) for call in calls)
        before = max(question.least - length, round(natural * 0.2) if reasons else 0)
        if before:
            parts.append(Words("reasoning" if reasons else "text", _speak(before, rng)))
        parts += calls
    else:
        length = min(max(natural, question.least), question.most)
        thought = round(length * rng.uniform(0.2, 0.8)) if reasons else 0
        if thought:
            parts.append(Words("reasoning", _speak(thought, rng)))
        if length > thought:
            parts.append(Words("text", _speak(length - thought, rng)))
    return _script(parts, question, wants_calls)


def _forced(question: Question, habits: Habits, rng: np.random.Generator) -> Script:
    """A reply of exactly the tokens asked for."""
    thought = question.thought
    if thought is None:
        thought = thought_of(question.prompt, question.most, question.seed, habits.reasoning)
    thought = min(thought, question.most)
    parts: list[Part] = [Words("reasoning", _speak(thought, rng))] if thought else []
    if question.most > thought:
        parts.append(Words("text", _speak(question.most - thought, rng)))
    return _script(parts, question, False)


def _wants_calls(question: Question, habits: Habits, rng: np.random.Generator) -> bool:
    tempted = rng.random() < habits.call_tools * habits.call_again**question.results
    if not question.tools or question.choice == "none" or question.exact:
        return False
    return tempted or question.choice != "auto"


def _calls(question: Question, habits: Habits, rng: np.random.Generator) -> list[ToolUse]:
    offers = [offer for offer in question.tools if offer.name == question.choice] or list(question.tools)
    count = int(rng.integers(2, 4)) if rng.random() < habits.parallel else 1
    return [_call(offers[int(rng.integers(len(offers)))], habits, rng) for _ in range(count)]


def _call(offer: Offer, habits: Habits, rng: np.random.Generator) -> ToolUse:
    name = offer.name if rng.random() >= habits.unknown else f"{offer.name}_v2"
    text = json.dumps(arguments(offer.parameters, rng))
    if rng.random() < habits.malformed:
        text = text[: max(1, len(text) - 1)]  # never closed
    identity = f"chatcmpl-tool-{rng.bytes(16).hex()}"
    return ToolUse(identity, name, 1 + len(tokenize(name)), pieces(text))


def _speak(count: int, rng: np.random.Generator) -> list[str]:
    """Sentences of `count` tokens, a full stop being one."""
    spoken = [" " + WORDS[i] for i in rng.integers(len(WORDS), size=count).tolist()]
    at = 0
    while at < count:
        spoken[at] = spoken[at].title() if at else spoken[at].strip().title()
        at += int(rng.integers(6, 18))
        if at < count:
            spoken[at] = "."
            at += 1
    return spoken


def _size(part: Part) -> int:
    return len(part.pieces) if isinstance(part, Words) else part.head + len(part.pieces) + part.closed


def _tokens(part: Part) -> Tokens:
    if isinstance(part, Words):
        return tokenize(part.text)
    return np.concatenate((CALL_OPEN, tokenize(part.name), tokenize(part.text), CALL_CLOSE))


def _script(parts: list[Part], question: Question, calls: bool) -> Script:
    """Put the parts together, cut at the most tokens allowed."""
    tokens = np.concatenate([_tokens(part) for part in parts])
    cut = len(tokens) > question.most
    kept, room = [], question.most
    for part in parts:
        if room > 0:
            kept.append(_shorten(part, room))
        room -= _size(part)
    reasoning = sum(len(part.pieces) for part in kept if isinstance(part, Words) and part.kind == "reasoning")
    finish: Literal["stop", "length", "tool_calls"] = "tool_calls" if calls else "stop"
    if cut or (not calls and len(tokens) == question.most):
        finish = "length"
    return Script(kept, tokens[: question.most], reasoning, finish)


def _shorten(part: Part, room: int) -> Part:
    if _size(part) <= room:
        return part
    if isinstance(part, Words):
        return Words(part.kind, part.pieces[:room])
    if room < part.head:  # not even the name is out
        return ToolUse(part.id, "", room, [], closed=False)
    return ToolUse(part.id, part.name, part.head, part.pieces[: room - part.head], closed=False)
