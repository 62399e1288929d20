"""The Responses API: a conversation as its input items, and an answer from its events.

The names are those of OpenAI's reference (Responses, Streaming events); an event is known by the `type` in its data,
since some servers send no `event:` line. The last event carries the usage, and nothing has to follow it.
"""

from typing import Any

from msgspec import Struct, to_builtins

from agents.answer import Answer, Function, ToolDelta, read_usage
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

    __slots__ = ("_indices",)
    shape = Event

    def __init__(self) -> None:
        super().__init__()
        self._indices: dict[str, int] = {}  # of function calls, by the id of their item

    def take(self, event: Event, t: float) -> None:
        """A decoded event. Raises ValueError where it makes no sense."""
        if event.error:
            self.fail("error_event", complaint(event.error))
            return
        output = False
        match event.type:
            case "response.output_text.delta" | "response.refusal.delta":
                output = keep(self._text, event.delta)
            case "response.reasoning_text.delta" | "response.reasoning_summary_text.delta":
                output = keep(self._reasoning, event.delta)
            case "response.function_call_arguments.delta":
                output = self._take_tool(ToolDelta(function=Function(None, event.delta)), self._index(event))
            case "response.function_call_arguments.done":
                output = self._take_call(Item(id=event.item_id, arguments=event.arguments), self._index(event))
            case "response.output_item.added" | "response.output_item.done" if event.item is not None:
                if event.item.type == "function_call":
                    output = self._take_call(event.item, self._index(event))
            case "response.completed" | "response.incomplete" | "response.failed" | "response.cancelled":
                self._end(event.response or Response(event.type.removeprefix("response.")), t)
            case "error":
                self.fail("error_event", complaint(event.message or "the server sent an error without a message"))
            case None:
                self._end(event, t)
        if output:
            self.token(t)

    def _index(self, event: Event) -> int:
        """Which function call the event is about."""
        item = event.item_id or (event.item.id if event.item is not None else None)
        known = self._indices.get(item or "")
        return known if known is not None else event.output_index or 0

    def _take_call(self, item: Item, index: int) -> bool:
        """What a function call's item says that its deltas have not said, or not yet; say whether it said anything."""
        id = item.call_id or item.id
        known = self._tools.get(index)
        same = known is not None and known[0] in ("", id, item.call_id)
        if item.call_id is None and known is not None:
            same, id = True, None
        arguments = None if same and known is not None and known[2] else item.arguments
        name = None if same and known is not None and known[1] else item.name
        before = len(self._tools)
        output = self._take_tool(ToolDelta(id=None if same else id, function=Function(name, arguments)), index)
        if len(self._tools) > before and item.id:
            self._indices[item.id] = next(reversed(self._tools))
        return output

    def _end(self, response: Response, t: float) -> None:
        """The answer as a whole has come, and with it whatever the events before it left out."""
        if response.usage is not None:
            self._usage = read_usage(response.usage)
        self._fill(response.output or [], t)
        reason = response.incomplete_details.reason if response.incomplete_details is not None else None
        match response.status:
            case "failed" | "cancelled":
                self.fail("error_event", complaint(response.error or f"the response has {response.status}"))
            case "incomplete" | "completed":
                finish = FINISHES.get(reason, reason) if reason else "tool_calls" if self._tools else "stop"
                self.finished(finish, t)
        self.over = True
