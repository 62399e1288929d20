"""What one call said: the turns of its prompt as bytes, and its reply. Pure; nothing is kept that is not asked for.

A prompt is cut into turns, each as the bytes that the client sent for it, so that a turn which is sent again is the
same bytes again. Anthropic's clients move their `cache_control` marks from turn to turn; those are taken out first,
and what is left is written anew.
"""

from typing import Any, NamedTuple

import msgspec
from msgspec import Raw, Struct

from agentload.record.anthropic import MessagesAnswer
from agents.answer import Answer
from agents.chain import Chat, Context, Reply
from agents.endpoint import Place
from agents.responses import ResponsesAnswer
from agents.sse import Events
from agents.text import CHARACTERS_PER_TOKEN

APIS: dict[str, tuple[str, type[Answer]]] = {
    "chat/completions": ("messages", Answer),
    "responses": ("input", ResponsesAnswer),
    "completions": ("prompt", Answer),
    "messages": ("messages", MessagesAnswer),
}
"""By the end of a path: the field that holds the conversation, and how the answer is read."""
HEAD = ("tools", "system", "instructions")
"""Fields that templates put before the conversation."""
NOWHERE = (Place(0, "", "", 0, 0, 0.0), Chat(Context(), 0))


class Turn(NamedTuple):
    """One turn of a prompt."""

    data: bytes
    kind: str = "head"  # "head", "user", "assistant", "tool"
    results: tuple[tuple[str, int], ...] = ()  # of "tool": the call that each answers, and its bytes
    text: str = ""  # of "assistant": what was said


class Prompt(NamedTuple):
    """What a request asks, in the order in which templates put it."""

    turns: list[Turn]
    after: str = ""  # the response that it goes on from, where the server keeps the conversation
    session: str = ""  # a conversation that the body names


class Item(Struct):
    """A turn, as far as its kind and what it answers are concerned: a message of any API, or an item of Responses."""

    role: str | None = None
    type: str | None = None
    tool_call_id: str | None = None
    call_id: str | None = None
    content: Raw = Raw(b"null")
    output: Raw = Raw(b"null")


class Block(Struct):
    """A block of content: of an Anthropic message, or of any API's text."""

    type: str | None = None
    tool_use_id: str | None = None
    content: Raw = Raw(b"null")
    text: str | None = None


def path_of(path: str) -> str:
    """Which API a path is of; "" for none of them."""
    return next((end for end in APIS if path.partition("?")[0].rstrip("/").endswith(f"/{end}")), "")


def prompt_of(api: str, body: bytes) -> Prompt:
    """The turns of a request. Raises ValueError where it is none."""
    fields = msgspec.json.decode(body, type=dict[str, Raw])
    bare = without_marks if api == "messages" else bytes
    turns = [Turn(bare(fields[name])) for name in HEAD if name in fields]
    said = bytes(fields.get(APIS[api][0], b"null"))
    if said[:1] == b"[":
        turns += [turn_of(bare(item)) for item in msgspec.json.decode(said, type=list[Raw])]
    elif said != b"null":
        turns.append(Turn(said, "user"))
    return Prompt(turns, text(fields, "previous_response_id"), text(fields, "conversation"))


def text(fields: dict[str, Raw], name: str) -> str:
    """A field that is text, or an object with an id."""
    value: Any = msgspec.json.decode(fields.get(name, Raw(b"null")))
    value = value.get("id") if isinstance(value, dict) else value
    return value if isinstance(value, str) else ""


def without_marks(data: Raw) -> bytes:
    """The same without cache marks, which say nothing of the prompt."""
    return msgspec.json.encode(without(msgspec.json.decode(data)))


def without(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without(item) for key, item in value.items() if key != "cache_control"}
    return [without(item) for item in value] if isinstance(value, list) else value


def turn_of(data: bytes) -> Turn:
    """A turn with its kind."""
    if data[:1] != b"{":
        return Turn(data, "user")
    item = msgspec.json.decode(data, type=Item)
    if item.type == "function_call_output" or item.role == "tool":
        answers = item.call_id or item.tool_call_id or ""
        return Turn(data, "tool", ((answers, len(item.output if item.role is None else item.content)),))
    if item.role == "user" and b'"tool_result"' in data and bytes(item.content)[:1] == b"[":
        blocks = msgspec.json.decode(item.content, type=list[Block])
        found = [(b.tool_use_id or "", len(b.content)) for b in blocks if b.type == "tool_result"]
        if found:
            return Turn(data, "tool", tuple(found))
    kind = {"user": "user", "system": "head", "developer": "head"}.get(item.role or "", "assistant")
    return Turn(data, kind, text=words(item.content) if kind == "assistant" else "")


def words(content: Raw) -> str:
    """The text of a message's content: a string, or blocks of which some are text."""
    found = msgspec.json.decode(content, type=str | list[Block] | None)
    return "".join(block.text or "" for block in found) if isinstance(found, list) else found or ""


class Heard(NamedTuple):
    """A reply, and what its server counted, or for want of that what its length says."""

    reply: Reply
    cached: int
    counted: bool
    id: str = ""  # of a response that can be gone on from


class Named(Struct):
    """An answer of Responses, or an event about one, as far as its id is concerned."""

    id: str | None = None
    response: "Named | None" = None


def reply_of(api: str, streamed: bool, body: bytes, sent: int) -> Heard:
    """The reply in a body; `sent` is the length of the request in bytes."""
    answer, id = APIS[api][1](), ""
    if streamed:
        for data in Events().feed(body if body.endswith(b"\n\n") else body + b"\n\n"):
            answer.event(data, 0.0)
            id = id or (response_id(data) if api == "responses" else "")
    else:
        answer.body(body, 0.0)
        id = response_id(body) if api == "responses" else ""
    call, reply = answer.finish(*NOWHERE, 0.0, lambda: round(sent / CHARACTERS_PER_TOKEN), False)
    return Heard(reply, call.cached_tokens, call.usage == "server", id)


def response_id(data: bytes) -> str:
    try:
        named = msgspec.json.decode(data, type=Named)
    except (ValueError, RecursionError):
        return ""
    return (named.response.id if named.response else named.id) or ""
