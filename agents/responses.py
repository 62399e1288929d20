"""The Responses API: a conversation as its input items, and an answer from its events.

The names are those of OpenAI's reference (Responses, Streaming events); an event is known by the `type` in its data,
since some servers send no `event:` line. The last event carries the usage, and nothing has to follow it.
"""

from typing import Any

from msgspec import Struct, to_builtins
from msgspec.json import Decoder

from agents.answer import Answer, Called, argument_text, read_usage
from agents.chain import ToolSchema
from agents.trouble import complaint


class Part(Struct):
    """A piece of an item's content, or of a reasoning item's summary."""

    text: str | None = None
    refusal: str | None = None


class Item(Struct):
    """What a model put out: a message, its reasoning, a function call."""

    type: str | None = None
    id: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: Any = None
    content: list[Part] | None = None
    summary: list[Part] | None = None


class Incomplete(Struct):
    reason: str | None = None


class Response(Struct):
    """The answer as a whole: the body, or what the last event of a stream carries."""

    status: str | None = None
    output: list[Item] | None = None
    incomplete_details: Incomplete | None = None
    usage: Any = None
    error: Any = None


class Event(Response):
    """One event of a stream; or the whole body, which has no type."""

    type: str | None = None
    delta: Any = None
    item: Item | None = None
    item_id: str | None = None
    output_index: int | None = None
    arguments: Any = None
    response: Response | None = None
    message: Any = None  # of an error


FINISHES = {"max_output_tokens": "length", "max_tokens": "length"}
"""Why an answer is incomplete, in the words of chat completions."""


class ResponsesAnswer(Answer):
    """One answer while it arrives."""

    __slots__ = ("_by_item", "_by_place")
    decoder = Decoder(Event)

    def __init__(self) -> None:
        super().__init__()
        self._by_item: dict[str, Called] = {}  # function calls, by the id of their item
        self._by_place: dict[int, Called] = {}  # and by where in the output they stand

    def take(self, event: Event, t: float) -> None:
        """A decoded event. Raises ValueError where it makes no sense."""
        if event.error:
            self.fail("error_event", complaint(event.error))
            return
        output, kind = False, event.type
        if kind in ("response.output_text.delta", "response.refusal.delta"):
            output = keep(self._text, event.delta)
        elif kind in ("response.reasoning_text.delta", "response.reasoning_summary_text.delta"):
            output = keep(self._reasoning, event.delta)
        elif kind == "response.function_call_arguments.delta":
            output = self._go_on(self._call(event.item_id, event.output_index), event.delta)
        elif kind == "response.function_call_arguments.done":
            output = self._complete(self._call(event.item_id, event.output_index), Item(arguments=event.arguments))
        elif kind in ("response.output_item.added", "response.output_item.done"):
            item = event.item
            if item is not None and item.type == "function_call":
                new = kind.endswith("added") and item.id not in self._by_item
                call = self._new(item.id, event.output_index) if new else self._call(item.id, event.output_index)
                output = self._complete(call, item)
        elif kind == "error":
            self.fail("error_event", complaint(event.message or "an error without a message"))
        elif kind in ENDS:
            self._end(event.response or Response(), ENDS[kind], t)
        elif kind is None and (event.status or event.output):
            self._end(event, None, t)
        if output:
            self.token(t)

    # Function calls: known by the id of their item, by their place where a server's ids do not agree

    def _call(self, id: str | None, place: int | None) -> Called:
        """The function call that an event is about."""
        found = self._by_item.get(id or "")
        if found is None:
            found = self._by_place.get(place or 0)
        return self._new(id, place) if found is None else found

    def _new(self, id: str | None, place: int | None) -> Called:
        call = self._new_tool(len(self._tools))
        self._by_item[id or ""] = self._by_place[place or 0] = call
        return call

    def _go_on(self, call: Called, arguments: object) -> bool:
        text = argument_text(arguments)
        if text:
            call.arguments.append(text)
            self._tool_pieces += 1
        return bool(text)

    def _complete(self, call: Called, item: Item) -> bool:
        """What the item says that was not said before; say whether it said anything."""
        before = call.id, call.name, len(call.arguments)
        call.id = call.id or item.call_id or item.id or ""
        call.name = call.name or item.name or ""
        text = argument_text(item.arguments)
        if text and not call.arguments:
            call.arguments.append(text)
        said = (call.id, call.name, len(call.arguments)) != before
        self._tool_pieces += said
        return said

    # The end

    def _end(self, response: Response, status: str | None, t: float) -> None:
        """The answer as a whole has come."""
        if response.usage is not None:
            self._usage = read_usage(response.usage)
        if self._fill(response.output or []):
            self.token(t)
        status = response.status or status
        why = response.incomplete_details
        if response.error or status in ("failed", "cancelled"):
            self.fail("error_event", complaint(response.error or f"the server says that the response {status}"))
        elif why is not None and why.reason:
            self.finished(FINISHES.get(why.reason, why.reason), t)
        elif status in ("completed", "incomplete"):
            self.finished("tool_calls" if self._tools else "stop", t)
        self.over = True

    def _fill(self, output: list[Item]) -> bool:
        """Take what no event brought: all of it where nothing was streamed. Say whether there was anything."""
        said = {
            "message": (self._text, bool(self._text)),
            "reasoning": (self._reasoning, bool(self._reasoning)),
        }
        filled = False
        for item in output:
            if item.type == "function_call":
                if all(call.id != item.call_id for call in self._tools.values()):
                    filled |= self._complete(self._new(item.id, len(self._tools)), item)
            elif item.type in said:
                pieces, known = said[item.type]
                for part in [] if known else [*(item.content or ()), *(item.summary or ())]:
                    filled |= keep(pieces, part.text or part.refusal or "")
        return filled


ENDS = {f"response.{status}": status for status in ("completed", "incomplete", "failed", "cancelled")}


def keep(pieces: list[str], piece: object) -> bool:
    """Add a piece of text; say whether there was anything in it."""
    if not isinstance(piece, str):
        raise ValueError(f"a delta of text is not text but {type(piece).__name__}")
    if piece:
        pieces.append(piece)
    return bool(piece)


# Asking


def items(message: dict[str, Any]) -> list[dict[str, Any]]:
    """A chat message as input items: one for what was said, one for each tool call, or the output of one."""
    content = message["content"]
    if message["role"] == "tool":
        return [{"type": "function_call_output", "call_id": message.get("tool_call_id", ""), "output": content}]
    calls = [
        {"type": "function_call", "call_id": call["id"], **call["function"]} for call in message.get("tool_calls", ())
    ]
    return ([{"role": message["role"], "content": content}] if content or not calls else []) + calls


def described(schema: ToolSchema) -> dict[str, Any]:
    """A tool, as this API wants it described. Not strict, which is the default here and not of chat completions."""
    return {"type": "function", "strict": False, **to_builtins(schema)}
