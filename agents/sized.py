"""Sized chains: lengths, tool times and stopping are drawn from an archetype; prompts are filler of a known size.

The reply's length is forced where the endpoint can. What the server really returned goes back into the history, so
that its cached blocks are reused as in real life, and its `usage` says how much the next message must add: the drift of
one step is corrected in the next. Tool schemas are part of the preamble's tokens, not sent as such, and tool results
are user messages: nothing here depends on what the model says.
"""

import zlib
from collections.abc import Callable, Generator
from typing import Any, Final, TypeAlias

import numpy as np
from msgspec import structs

from agents.chain import Agent, Ask, Chain, Chat, Context, Message, Note, Outcome, Reply, Spawn, Wait
from agents.dice import Dice, Numbers, count, draw, pick, whole
from agents.kind import Archetype, Patience
from agents.schedule import Alarm
from agents.sorts import Sort
from agents.text import Room

LEAST_MESSAGE: Final = 8
"""Tokens of the smallest message: a template's overhead and a few words."""

Child = Callable[[str, np.random.Generator], Agent]
"""Makes a sub-agent of the named archetype."""
Pieces: TypeAlias = tuple[tuple[int, int], ...]
"""Pieces of filler: (key, tokens) of each."""


def preamble(name: str, archetype: Archetype, salt: int, room: Room) -> Message | None:
    """The system prompt that all sessions of an archetype share, tool schemas included; None where there is none."""
    tokens = archetype.system_tokens + archetype.schema_tokens - round(room.calibration.per_request)
    if tokens < LEAST_MESSAGE:
        return None
    return Message("system", tokens, key=(zlib.crc32(name.encode()) ^ salt) & 0xFFFFFFFF)


class Keys:
    """Identities for filler that no other session shares: from a drawn base on, in steps of the golden ratio (Weyl).

    Of a million sessions with a hundred messages each, any two share a key with a chance of 1 in 20,000.
    """

    __slots__ = ("_last",)

    def __init__(self, base: int) -> None:
        self._last = base & _SHORT

    def next(self) -> int:
        self._last = (self._last + 0x13C6EF372FE94F83) & _SHORT
        return self._last


def drawn(rng: np.random.Generator, salt: int) -> int:
    """A session's base for `keys`: its own, and another one under another salt."""
    return int(rng.integers(1 << 63)) ^ (salt * 0x5851F42D4C957F2D & _ALL)


_ALL: Final = (1 << 64) - 1
_SHORT: Final = (1 << 61) - 1
"""Of two such numbers the sum is one that compiled code has no object for."""


def limit_of(archetype: Archetype, room: Room, rng: Numbers, begun: int = 0) -> int:
    """Tokens that a session may reach which begins with `begun`: 2 % (the drift we allow) and a small message below the
    true limit, or where its harness compacts. That is a limit which a session of its size has not passed at once."""
    tightest = min(archetype.context_limit or room.context, room.context)
    limit = int(tightest / 1.02) - 2 * LEAST_MESSAGE
    for _ in range(50 if archetype.compact_at is not None else 0):
        drawn = count(archetype.compact_at or 0.0, rng)
        if drawn > 1.02 * begun:
            return min(limit, drawn)
    return limit


class History:
    """A conversation, and how many tokens it holds by the server's own count."""

    def __init__(self, head: Message | None, keys: Keys, room: Room, limit: int) -> None:
        self.head, self.keys, self.limit = head, keys, limit
        self.forced = room.forces_length  # the length of replies
        self.request, self.template = round(room.calibration.per_request), round(room.calibration.per_message)
        self.restart([])

    def restart(self, messages: list[Message]) -> None:
        """Begin again after the preamble, with these messages."""
        self.context = Context([self.head, *messages] if self.head else messages)
        self.messages = self.context.messages
        self.tokens = self.request + sum(m.tokens for m in self.messages)

    def add(self, tokens: int) -> None:
        """Append a user message of filler, as large as there is room for."""
        tokens = min(tokens, max(LEAST_MESSAGE, self.limit - self.tokens))
        self.messages.append(Message("user", tokens, key=self.keys.next()))
        self.tokens += tokens

    def put_back(self, reply: Reply) -> tuple[int, int]:
        """Append the reply; its tokens, and those that stay."""
        output = reply.output_tokens
        kept = output - reply.reasoning_tokens
        self.messages.append(Message("assistant", kept, text=reply.text, tool_calls=reply.tool_calls))
        self.tokens = reply.input_tokens + kept + self.template
        return output, kept

    def ask(self, output: int, thought: int | None = None) -> Chat:
        """The next model call, of whose reply so much is to be reasoning. Where the endpoint cannot be told to force a
        length, the last message asks for it."""
        if not self.forced and (last := self.messages[-1]).text is None:
            self.messages[-1] = structs.replace(last, text=f"Write about {output} words.", pad=True)
        return Chat(self.context, output, exact=True, wanted_input=self.tokens, reasoning=thought)

    def summarise(self, output: int) -> Chat:
        """The call with which a harness compacts: the whole history once more, answered by a summary."""
        most = max(1, min(4 * output, self.limit + LEAST_MESSAGE - self.tokens))
        return Chat(self.context, most, exact=True, wanted_input=self.tokens)

    def compact(self, reply: Reply, to: float) -> None:
        """Go on from the summary, brought to a share of the limit."""
        self.restart([Message("user", reply.output_tokens, text=reply.text)])
        self.add(max(LEAST_MESSAGE, int(min(max(to, 0.01), 0.95) * self.limit) - self.tokens))

    def forget(self, to: float) -> None:
        """Keep the preamble, and notes that bring the history to a share of what it was."""
        wanted = int(to * self.tokens)
        self.restart([])
        self.add(max(LEAST_MESSAGE, wanted - self.tokens))

    def rewrite(self, keep: float) -> None:
        """Change what follows a share of the history; its size stays."""
        left, changed = int(keep * self.tokens), list[Message]()
        for message in self.messages:
            size = message.tokens if message.text is None else message.tokens + self.template  # replies come without it
            if left >= size:
                changed.append(message)
            elif left > LEAST_MESSAGE and message.text is None:
                parts = (*start(pieces(message), left), (self.keys.next(), size - left))
                changed.append(Message(message.role, size, parts=parts))
            else:
                changed.append(Message(message.role, size, key=self.keys.next()))
            left = max(0, left - size)
        self.context = Context(changed)
        self.messages = self.context.messages


def pieces(message: Message) -> Pieces:
    """What the filler of a message is made of."""
    return message.parts or ((message.key, message.tokens),)


def start(parts: Pieces, tokens: int) -> Pieces:
    """The first so many tokens of some pieces."""
    kept: list[tuple[int, int]] = []
    for key, size in parts:
        if tokens <= 0:
            break
        kept.append((key, min(size, tokens)))
        tokens -= size
    return tuple(kept)


class Sized:
    """The sessions of one archetype, and what they have in common."""

    def __init__(self, name: str, archetype: Archetype, salt: int, room: Room) -> None:
        self.salt, self.room, self.head = salt, room, preamble(name, archetype, salt, room)
        self.sorts = [Sort(archetype.varied(variant)) for variant in archetype.variants] or [Sort(archetype)]
        self.weights = [variant.weight for variant in archetype.variants]

    def chain(self, rng: np.random.Generator, child: Child | None = None) -> Chain:
        """One session: turns of a person, steps of the agent, tools between the steps."""
        keys = Keys(drawn(rng, self.salt))
        dice = Dice(rng)
        sort = self.sorts[pick(self.weights, dice.random()) if self.weights else 0]
        a = sort.archetype
        said = whole(sort.task_tokens(dice), LEAST_MESSAGE)
        limit = limit_of(a, self.room, dice, a.system_tokens + a.schema_tokens + said)
        history = History(self.head, keys, self.room, limit)
        step, last, intents = 0, 0, 0
        spawns = count(a.spawns, dice) if child is not None and a.child else 0
        alarm = Alarm(a.schedule, a.longest_wait) if a.schedule else None
        for turn in range(whole(sort.turns(dice), 1)):
            if alarm is not None:
                yield from alarm.next(dice)
            elif turn:
                yield Wait(min(sort.think_seconds(dice), sort.longest_wait))
            if turn:
                said = whole(sort.turn_tokens(dice), LEAST_MESSAGE)
            history.add(min(said, max(LEAST_MESSAGE, int(0.8 * history.limit) - history.tokens)))
            steps = whole(sort.steps(dice), 1)
            outputs, growths = sort.lengths(step, steps, dice)
            for i in range(steps):
                output = outputs[i]
                if step and (note := changed(history, sort, dice)) is not None:
                    yield note
                if step and sort.pause and dice.random() < sort.pause:
                    intents += 1
                    yield Wait(min(sort.think_seconds(dice), sort.longest_wait))
                if history.tokens + output > history.limit:
                    if a.at_limit == "end":
                        return Outcome("context_limit", last, intents=intents)
                    reply = yield impatient(history.summarise(output), sort.patience, dice)
                    if not reply.ok:
                        return Outcome(reply.ending, intents=intents)
                    history.compact(reply, draw(a.compact_to, dice))
                    yield Note("compactions")
                    history.limit = limit_of(a, self.room, dice, history.tokens)
                    output = max(1, min(output, history.limit - history.tokens))
                reply = yield impatient(history.ask(output, sort.thought(output, dice)), sort.patience, dice)
                if reply.status != "ok":
                    return Outcome(reply.ending, intents=intents)
                last, kept = history.put_back(reply)
                step += 1
                if i == steps - 1:
                    continue
                results = yield sort.use_tools(dice)
                told = 0
                if spawns and child is not None:
                    spawns -= 1
                    told = yield from delegate(a, dice, child)
                history.add(max(LEAST_MESSAGE * max(1, len(results)), growths[i] - kept) + told)
            intents += 1
        return Outcome("done", last, intents=intents)


def sized(
    name: str, archetype: Archetype, rng: np.random.Generator, salt: int, room: Room, child: Child | None = None
) -> Chain:
    """One session of an archetype, for who wants no more of them."""
    return Sized(name, archetype, salt, room).chain(rng, child)


def delegate(a: Archetype, dice: Dice, child: Child) -> Generator[Ask, Any, int]:
    """Start sub-agents, those that fail once more as often as the archetype says; tokens of what they tell."""
    told, wanted = 0, count(a.children, dice)
    for _ in range(a.respawns + 1):
        agents = tuple(child(a.child, r) for r in dice.rng.spawn(wanted))
        outcomes = yield Spawn(agents, a.waits_for(wanted), cancel=a.losers == "cancel" and a.join != "background")
        told += sum(outcome.tokens for outcome in outcomes)
        wanted = sum(outcome.status == "failed" for outcome in outcomes)
        if not wanted:
            break
    return told


def impatient(chat: Chat, patience: Patience | None, rng: Numbers) -> Chat:
    """The call, with when the agent hangs up on it."""
    return chat if patience is None else structs.replace(chat, hang_up=patience.drawn(rng))


def changed(history: History, sort: Sort, dice: Dice) -> Note | None:
    """What a harness may do to the history between two steps, by chance."""
    if sort.reset and dice.random() < sort.reset:
        history.forget(sort.reset_to(dice))
        return Note("resets")
    if sort.rewrite and dice.random() < sort.rewrite:
        history.rewrite(sort.rewrite_keep(dice))
        return Note("rewrites")
    return None
