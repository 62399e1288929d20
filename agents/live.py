"""Live chains: the model's own tool calls decide what happens next.

Tool schemas are sent; calls are run (simulated, or the user's Python functions); results go back until the model
answers without a tool call or the step limit is reached.
"""

import numpy as np

from agents.chain import Chain, Chat, Context, Message, Note, Outcome, Reply, ToolCall, ToolResult, Wait
from agents.draws import count, draw
from agents.kind import Archetype
from agents.schedule import Alarm
from agents.sized import LEAST_MESSAGE, Room, drawn, impatient, keys, limit_of, preamble
from agents.text import CHARACTERS_PER_TOKEN
from agents.tools import Toolbox

MISTAKES = ("unknown", "malformed")
"""Kinds of tool calls that the harness answers with an error, for the model to correct itself."""
SUMMARISE = "Summarise the conversation so far: the task, what was done, what was found and what is left to do."


def live(name: str, archetype: Archetype, toolbox: Toolbox, rng: np.random.Generator, salt: int, room: Room) -> Chain:
    """One session: a person's turns, and in each of them model calls and tools until the model has answered."""
    a = archetype.for_session(rng)
    limit = limit_of(a, room, rng)
    fresh = keys(drawn(rng, salt))
    head = instructions(name, a, salt, room)
    context, held, last = Context(head, toolbox.schemas), 0, Reply("ok")
    alarm = Alarm(a.schedule, a.longest_wait) if a.schedule else None
    for turn in range(count(a.turns, rng, least=1)):
        if alarm is not None:
            yield from alarm.next(rng)
        elif turn:
            yield Wait(min(draw(a.think_seconds, rng), a.longest_wait))
        task = a.task_texts[int(rng.integers(len(a.task_texts)))] if a.task_texts else None
        tokens = count(a.turn_tokens if turn else a.task_tokens, rng, least=LEAST_MESSAGE)
        tokens = min(tokens, max(LEAST_MESSAGE, int(0.8 * limit) - max(held, a.system_tokens + a.schema_tokens)))
        context.append(Message("user", tokens, key=next(fresh), text=task, pad=True))
        held += tokens
        mistakes = 0
        for _ in range(a.max_steps):
            if held + LEAST_MESSAGE > limit:
                if a.at_limit == "end":
                    return Outcome("context_limit", last.output_tokens, last.text, turn)
                context.append(Message("user", LEAST_MESSAGE, text=SUMMARISE))
                most = max(16, int(min(max(draw(a.compact_to, rng), 0.01), 0.95) * limit / 2))
                last = yield impatient(Chat(context, most, call_tools=False), a, rng)
                if not last.ok:
                    return Outcome(last.ending, intents=turn)
                context = Context([*head, Message("user", last.output_tokens, text=last.text)], toolbox.schemas)
                held = last.output_tokens
                yield Note("compactions")
            last = yield impatient(Chat(context, max(1, min(a.max_reply_tokens, limit - held))), a, rng)
            if not last.ok:
                return Outcome(last.ending, intents=turn)
            context.append(last.message())
            held = last.input_tokens + last.output_tokens
            if not last.tool_calls:
                break
            asked = [toolbox.resolve(call, rng) for call in last.tool_calls]
            mistakes = mistakes + 1 if all(call.kind in MISTAKES for call in asked) else 0
            results = yield asked
            for call, result in zip(asked, results, strict=True):
                context.append(answer(call, result, next(fresh)))
                held += max(LEAST_MESSAGE, result.tokens)
            if mistakes >= a.max_mistakes:  # it was told what is wrong each time, and has not put it right
                return Outcome("failed", last.output_tokens, last.text, turn)
        else:
            return Outcome("step_limit", last.output_tokens, last.text, turn)
    return Outcome("done", last.output_tokens, last.text, turn + 1)


def instructions(name: str, archetype: Archetype, salt: int, room: Room) -> list[Message]:
    """The system prompt: real instructions, then filler that brings it to the archetype's size."""
    shared = preamble(name, archetype, salt, room)
    if shared is None and not archetype.system_text:
        return []
    tokens = max(archetype.system_tokens, len(archetype.system_text) // 4)
    return [Message("system", tokens, key=shared.key if shared else 0, text=archetype.system_text, pad=True)]


def answer(call: ToolCall, result: ToolResult, key: int) -> Message:
    """The tool's result as the model sees it."""
    if result.text is not None:
        tokens = round(len(result.text) / CHARACTERS_PER_TOKEN)
        return Message("tool", tokens, text=result.text, call_id=call.id)
    text = "ok:" if result.ok else "Error: the tool failed."
    return Message("tool", result.tokens if result.ok else LEAST_MESSAGE, key=key, text=text, pad=True, call_id=call.id)
