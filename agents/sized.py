"""Sized chains: lengths, tool times and stopping are drawn from an archetype; prompts are filler of a known size.

The reply's length is forced where the endpoint can. What the server really returned goes back into the history, so
that its cached blocks are reused as in real life, and its `usage` says how much the next message must add: the drift of
one step is corrected in the next. Tool schemas are part of the preamble's tokens, not sent as such, and tool results
are user messages: nothing here depends on what the model says.
"""

import zlib
from collections.abc import Callable, Iterator

import numpy as np
from msgspec import Struct, structs

from agents.archetypes import Archetype
from agents.chain import Agent, Chain, Chat, Context, Message, Outcome, Reply, Spawn, ToolCall, Wait
from agents.draws import count, draw
from agents.text import Calibration

LEAST_MESSAGE = 8
"""Tokens of the smallest message: a template's overhead and a few words."""

Child = Callable[[str, np.random.Generator], Agent]
"""Makes a sub-agent of the named archetype."""


class Room(Struct, frozen=True):
    """What a chain must know about the endpoint to size its prompts."""

    context: int  # tokens that prompt and reply may have together
    calibration: Calibration = Calibration()
    forces_length: bool = True  # the endpoint takes ignore_eos and min_tokens


def preamble(name: str, archetype: Archetype, salt: int, room: Room) -> Message | None:
    """The system prompt that all sessions of an archetype share, tool schemas included; None where there is none."""
    tokens = archetype.system_tokens + archetype.schema_tokens - round(room.calibration.per_request)
    if tokens < LEAST_MESSAGE:
        return None
    return Message("system", tokens, key=(zlib.crc32(name.encode()) ^ salt) & 0xFFFFFFFF)


def keys(rng: np.random.Generator) -> Iterator[int]:
    """Identities for filler that no other session shares."""
    while True:
        yield int(rng.integers(1 << 63))


def limit_of(archetype: Archetype, room: Room) -> int:
    """Tokens that a conversation may reach: 2 % (the drift we allow) and a small message below the true limit."""
    tightest = min(archetype.context_limit or room.context, room.context)
    return int(tightest / 1.02) - 2 * LEAST_MESSAGE


def sized(
    name: str, archetype: Archetype, rng: np.random.Generator, salt: int, room: Room, child: Child | None = None
) -> Chain:
    """One session: turns of a person, steps of the agent, tools between the steps."""
    a, fresh = archetype, keys(np.random.default_rng([salt, int(rng.integers(1 << 63))]))
    head, limit = preamble(name, a, salt, room), limit_of(archetype, room)
    context = Context([head] if head else [])
    held = head.tokens + round(room.calibration.per_request) if head else round(room.calibration.per_request)
    compactions, spawned, last = 0, False, 0
    for turn in range(count(a.turns, rng, least=1)):
        if turn:
            yield Wait(min(draw(a.think_seconds, rng), a.longest_wait))
        said = count(a.turn_tokens if turn else a.task_tokens, rng, least=LEAST_MESSAGE)
        held = add(context, held, min(said, max(LEAST_MESSAGE, int(0.8 * limit) - held)), fresh)
        for left in range(count(a.steps, rng, least=1) - 1, -1, -1):
            output, growth = count(a.output_tokens, rng, least=1), count(a.growth_tokens, rng)
            if held + output > limit:
                if a.at_limit == "end":
                    return Outcome("context_limit", last, intents=turn, compactions=compactions)
                reply = yield summarise(context, held, limit, output)
                if not reply.ok:
                    return Outcome("failed", intents=turn, compactions=compactions)
                context = Context([*([head] if head else []), as_summary(reply)])
                held = (head.tokens if head else 0) + round(room.calibration.per_request) + reply.output_tokens
                held = add(context, held, max(LEAST_MESSAGE, int(a.compact_to * limit) - held), fresh)
                compactions += 1
                output = max(1, min(output, limit - held))
            if not room.forces_length:
                ask_for(context, output)
            reply = yield Chat(context, output, exact=True, wanted_input=held)
            if not reply.ok:
                return Outcome("failed", intents=turn, compactions=compactions)
            held, last = put_back(context, reply, room), reply.output_tokens
            if not left:
                continue
            results = yield use_tools(a, rng)
            told = 0
            if child is not None and a.child and not spawned:
                spawned = True
                outcomes = yield Spawn(tuple(child(a.child, r) for r in rng.spawn(count(a.children, rng))))
                told = sum(outcome.tokens for outcome in outcomes)
            rest = max(LEAST_MESSAGE * max(1, len(results)), growth - output) + told
            held = add(context, held, min(rest, max(LEAST_MESSAGE, limit - held)), fresh)
    return Outcome("done", last, intents=turn + 1, compactions=compactions)


def add(context: Context, held: int, tokens: int, fresh: Iterator[int]) -> int:
    """Append a user message of filler; return what the conversation then holds."""
    context.append(Message("user", tokens, key=next(fresh)))
    return held + tokens


def ask_for(context: Context, output: int) -> None:
    """Have the last message ask for a length, where the endpoint cannot be told to force it."""
    if context.messages[-1].text is None:
        text = f"Write about {output} words."
        context.messages[-1] = structs.replace(context.messages[-1], text=text, pad=True)


def put_back(context: Context, reply: Reply, room: Room) -> int:
    """Append the reply; return the tokens that the conversation now holds, by the server's own count."""
    message = reply.message()
    context.append(message)
    return reply.input_tokens + message.tokens + round(room.calibration.per_message)


def summarise(context: Context, held: int, limit: int, output: int) -> Chat:
    """The call with which a harness compacts: the whole history once more, answered by a summary."""
    return Chat(context, max(1, min(4 * output, limit + LEAST_MESSAGE - held)), exact=True, wanted_input=held)


def as_summary(reply: Reply) -> Message:
    return Message("user", reply.output_tokens, text=reply.text)


def use_tools(a: Archetype, rng: np.random.Generator) -> list[ToolCall]:
    """The tools of one step, drawn by weight; they run in parallel."""
    if not a.tools:
        return []
    weights = np.array([tool.weight for tool in a.tools])
    picked = rng.choice(len(a.tools), size=count(a.tool_calls, rng), p=weights / weights.sum())
    return [
        ToolCall(
            tool.name,
            seconds=min(draw(tool.seconds, rng), a.longest_wait),
            tokens=count(tool.tokens, rng),
            ok=rng.random() >= tool.failure,
        )
        for tool in (a.tools[i] for i in picked.tolist())
    ]
