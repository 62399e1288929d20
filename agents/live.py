"""Live chains: the model's own tool calls decide what happens next.

Tool schemas are sent; calls are run (simulated, or the user's Python functions); results go back until the model
answers without a tool call or the step limit is reached. Where an archetype starts sub-agents, the model is offered a
tool that does.
"""

from collections.abc import Callable, Generator
from typing import Any

import msgspec
import numpy as np

from agents.chain import (
    Agent,
    Ask,
    Chain,
    Chat,
    Context,
    Join,
    Message,
    Note,
    Outcome,
    Reply,
    Spawn,
    ToolCall,
    ToolResult,
    Wait,
)  # fmt: skip
from agents.dice import count, draw
from agents.kind import Archetype
from agents.schedule import Alarm
from agents.sized import LEAST_MESSAGE, Keys, drawn, impatient, limit_of, preamble
from agents.text import CHARACTERS_PER_TOKEN, Room
from agents.tools import Toolbox

MISTAKES = ("unknown", "malformed")
"""Kinds of tool calls that the harness answers with an error, for the model to correct itself."""
SUMMARISE = "Summarise the conversation so far: the task, what was done, what was found and what is left to do."


Child = Callable[[str, np.random.Generator, str], Agent]
"""Makes a sub-agent of the named archetype, for a task."""


def live(
    name: str, archetype: Archetype, toolbox: Toolbox, rng: np.random.Generator, salt: int, room: Room,
    task: str = "", child: Child | None = None,
) -> Chain:  # fmt: skip
    """One session: a person's turns, and in each of them model calls and tools until the model has answered."""
    a = archetype.for_session(rng)
    team = Team(a, rng, child)
    toolbox = toolbox if team.left else toolbox.alone
    limit = limit_of(a, room, rng)
    keys = Keys(drawn(rng, salt))
    head = instructions(name, a, salt, room)
    context, held, last = Context(head, toolbox.schemas), 0, Reply("ok")
    alarm = Alarm(a.schedule, a.longest_wait) if a.schedule else None
    for turn in range(count(a.turns, rng, least=1)):
        if alarm is not None:
            yield from alarm.next(rng)
        elif turn:
            yield Wait(min(draw(a.think_seconds, rng), a.longest_wait))
        text = a.task_texts[int(rng.integers(len(a.task_texts)))] if a.task_texts else None
        tokens = count(a.turn_tokens if turn else a.task_tokens, rng, least=LEAST_MESSAGE)
        tokens = min(tokens, max(LEAST_MESSAGE, int(0.8 * limit) - max(held, a.system_tokens + a.schema_tokens)))
        context.append(Message("user", tokens, key=keys.next(), text=task or text, pad=True))
        held += tokens
        mistakes = 0
        for _ in range(a.max_steps):
            if held + LEAST_MESSAGE > limit:
                if a.at_limit == "end":
                    return Outcome("context_limit", last.output_tokens, last.text, turn)
                context.append(Message("user", LEAST_MESSAGE, text=SUMMARISE))
                most = max(16, int(min(max(draw(a.compact_to, rng), 0.01), 0.95) * limit / 2))
                last = yield impatient(Chat(context, most, call_tools=False), a.patience, rng)
                if not last.ok:
                    return Outcome(last.ending, intents=turn)
                context = Context([*head, Message("user", last.output_tokens, text=last.text)], toolbox.schemas)
                held = last.output_tokens
                yield Note("compactions")
            last = yield impatient(Chat(context, max(1, min(a.max_reply_tokens, limit - held))), a.patience, rng)
            if not last.ok:
                return Outcome(last.ending, intents=turn)
            context.append(last.message())
            held = last.input_tokens + last.output_tokens
            if not last.tool_calls:
                break
            asked = [toolbox.resolve(call, rng) for call in last.tool_calls]
            mistakes = mistakes + 1 if all(call.kind in MISTAKES for call in asked) else 0
            results = yield from team.act(asked)
            for call, result in zip(asked, results, strict=True):
                context.append(answer(call, result, keys.next()))
                held += max(LEAST_MESSAGE, result.tokens)
            if mistakes >= a.max_mistakes:  # it was told what is wrong each time, and has not put it right
                return Outcome("failed", last.output_tokens, last.text, turn)
        else:
            return Outcome("step_limit", last.output_tokens, last.text, turn)
    return Outcome("done", last.output_tokens, last.text, turn + 1)


class Team:
    """The sub-agents that a live agent starts when its model calls for them, as many as its archetype's draw has."""

    def __init__(self, a: Archetype, rng: np.random.Generator, child: Child | None) -> None:
        self.a, self.rng, self.child = a, rng, child
        wanted = a.child and child is not None
        self.left = sum(count(a.children, rng) for _ in range(count(a.spawns, rng))) if wanted else 0
        self.started = 0

    def act(self, asked: list[ToolCall]) -> Generator[Ask, Any, list[ToolResult]]:
        """Run the tools of one step, and beside them the sub-agents that it starts; the result of each call."""
        wanted = [call for call in asked if call.kind == "agent"]
        if not wanted:
            return (yield asked)  # type: ignore[no-any-return]  # tools are answered by results
        began, others = wanted[: self.left], [call for call in asked if call.kind != "agent"]
        self.left -= len(began)
        first, self.started = self.started, self.started + len(began)
        outcomes = yield Spawn(tuple(self.agent(call) for call in began), wait=0)
        results = iter((yield others) if others else ())
        if began and self.a.join != "background":
            numbers = tuple(range(first, self.started))
            outcomes = yield Join(numbers, self.a.waits_for(len(began)), cancel=self.a.losers == "cancel")
        reports = iter([reported(outcome) for outcome in outcomes] + [NO_MORE] * (len(wanted) - len(began)))
        return [next(reports) if call.kind == "agent" else next(results) for call in asked]

    def agent(self, call: ToolCall) -> Agent:
        assert self.child is not None
        task = str(msgspec.json.decode(call.arguments or "{}").get("task", ""))
        return self.child(self.a.child, self.rng.spawn(1)[0], task)


NO_MORE = ToolResult(LEAST_MESSAGE, "Error: as many agents as there may be have been started.", ok=False)


def reported(outcome: Outcome) -> ToolResult:
    """What a sub-agent's end is to its parent's model."""
    text = outcome.text or f"({outcome.status.replace('_', ' ')})"
    return ToolResult(round(len(text) / CHARACTERS_PER_TOKEN), text, outcome.ok)


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
