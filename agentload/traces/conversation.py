"""Conversations of text (OpenAI messages, ShareGPT, SWE-agent) as steps: every assistant message is a call.

Nobody has counted their tokens, so a quarter of the characters is taken, and four for each message. Text is not kept:
a piece is known by a digest of its role and text, the same in every session.
"""

from typing import Any

from msgspec import Struct

from agentload.traces.graph import Agent, Call, Gap, Piece, Step, Thread, Tool, Tools, identity
from agentload.traces.source import Damaged, estimate

PER_MESSAGE = 4


class Said(Struct, frozen=True):
    """One message."""

    role: str
    text: str
    calls: tuple[tuple[str, str], ...] = ()  # id and name of each tool that an assistant asks for
    answers: str = ""  # the id of the tool call that a tool's message answers
    arguments: int = 0  # tokens of the calls
    wait: float = 0.0  # seconds before it
    took: float = 0.0  # seconds a tool took
    failed: bool = False


def steps_of(messages: list[Said], schemas: str = "") -> tuple[Step, ...]:
    """What the agent of a conversation did."""
    steps: list[Step] = []
    pieces: list[Piece] = [(identity("tools", schemas), estimate(schemas))] if schemas else []
    thread, asked, results = Thread(), dict[str, str](), list[Tool]()
    for message in messages:
        size = estimate(message.text) + message.arguments
        if message.role == "tool" or (message.role == "user" and message.answers):
            name = asked.get(message.answers, "tool")
            results.append(Tool(name[:1000], message.took, size + PER_MESSAGE, not message.failed))
        elif results:
            steps.append(Tools(tuple(results)))
            results = []
        if message.wait:
            steps.append(Gap(message.wait, person=message.role == "user" and not message.answers))
        if message.role == "assistant":
            input = sum(tokens for _, tokens in pieces)
            if input:
                steps.append(thread.call(pieces, input, max(1, size)))
            asked = dict(message.calls)
        key = identity(message.role, message.text, *(name for _, name in message.calls))
        pieces = [*pieces, (key, size + PER_MESSAGE)]
    if results:
        steps.append(Tools(tuple(results)))
    return tuple(steps)


def said(message: Any, place: str) -> Said:
    """A message of chat completions. Damaged says what is wrong with it."""
    if not isinstance(message, dict):
        raise Damaged(place, "must be an object")
    role = message.get("role")
    if not isinstance(role, str):
        raise Damaged(f"{place}.role", "is missing" if role is None else "must be text")
    text = plain(message.get("content"), f"{place}.content")
    calls, arguments = [], 0
    asked = message.get("tool_calls") or []
    if not isinstance(asked, list):
        raise Damaged(f"{place}.tool_calls", "must be an array")
    for i, call in enumerate(asked):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Damaged(f"{place}.tool_calls[{i}].function.name", "is missing")
        calls.append((str(call.get("id", "")), function["name"]))
        arguments += estimate(function["name"]) + estimate(function.get("arguments"))
    answers = message.get("tool_call_id")
    return Said(role, text, tuple(calls), str(answers or ""), arguments)


def plain(content: Any, place: str) -> str:
    """The text of a message's content: a string, nothing, or parts of which some are text."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise Damaged(place, "must be text or an array of parts")
    texts = [part.get("text") or part.get("content") for part in content if isinstance(part, dict)]
    return "".join(text for text in texts if isinstance(text, str))


def agent_of(messages: list[Said], place: str, schemas: str = "") -> Agent:
    """The agent of a conversation. Damaged where there is no call in it."""
    steps = steps_of(messages, schemas)
    if not any(isinstance(step, Call) for step in steps):
        raise Damaged(place, "there is no assistant message after another in it")
    return Agent(steps)
