"""Anthropic's Messages API: an answer from its events, or from its body.

The names are those of Anthropic's reference (Messages, Streaming). Input that was read from a cache or written to one
is counted apart there; here the input is all of it, as in the other APIs.
"""

from typing import Any

from msgspec import Struct
from msgspec.json import Decoder

from agents.answer import Answer, argument_text, read_usage
from agents.responses import keep
from agents.trouble import complaint


class Block(Struct):
    """A block of content, or a piece of one."""

    type: str | None = None
    id: str | None = None
    name: str | None = None
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    input: Any = None
    stop_reason: str | None = None


class Message(Struct):
    content: list[Block] | None = None
    stop_reason: str | None = None
    usage: dict[str, Any] | None = None


class Event(Message):
    """One event of a stream; or the whole body, whose type is "message"."""

    type: str | None = None
    index: int = 0
    message: Message | None = None
    content_block: Block | None = None
    delta: Block | None = None
    error: Any = None


FINISHES = {"end_turn": "stop", "stop_sequence": "stop", "tool_use": "tool_calls", "max_tokens": "length"}
"""Why an answer ended, in the words of chat completions."""


class MessagesAnswer(Answer):
    """One answer while it arrives."""

    __slots__ = ("_counts",)
    decoder = Decoder(Event)

    def __init__(self) -> None:
        super().__init__()
        self._counts: dict[str, Any] = {}

    def take(self, event: Event, t: float) -> None:
        """A decoded event. Raises ValueError where it makes no sense."""
        if event.error:
            self.fail("error_event", complaint(event.error))
            return
        message = event if event.type == "message" else event.message or Message()
        self._count(message.usage or event.usage)
        output = False
        for i, block in enumerate(message.content or ()):
            output |= self._take_block(i, block)
        if event.content_block is not None:
            output |= self._take_block(event.index, event.content_block)
        if event.delta is not None and event.type == "content_block_delta":
            output |= self._go_on(event.index, event.delta)
        if output:
            self.token(t)
        reason = message.stop_reason or (event.delta.stop_reason if event.delta else None)
        if reason:
            self.finished(FINISHES.get(reason, reason), t)
        if event.type in ("message", "message_stop"):
            self.over = True

    def _count(self, usage: dict[str, Any] | None) -> None:
        """The figures of the last event that has them; a stream's first event has the input, its last the output."""
        if usage is None:
            return
        self._counts |= {name: value for name, value in usage.items() if value is not None}
        counts = {name: value for name, value in self._counts.items() if isinstance(value, int)}
        read, written = counts.get("cache_read_input_tokens", 0), counts.get("cache_creation_input_tokens", 0)
        self._usage = read_usage({
            "prompt_tokens": counts.get("input_tokens", 0) + read + written,
            "completion_tokens": counts.get("output_tokens", 0),
            "cached_tokens": read,
        })  # fmt: skip

    def _take_block(self, index: int, block: Block) -> bool:
        if block.type == "tool_use":
            call = self._new_tool(index)
            call.id, call.name = block.id or "", block.name or ""
            if block.input:
                call.arguments.append(argument_text(block.input))
            self._tool_pieces += 1
            return True
        return self._go_on(index, block)

    def _go_on(self, index: int, delta: Block) -> bool:
        if delta.partial_json and index in self._tools:
            self._tools[index].arguments.append(delta.partial_json)
            self._tool_pieces += 1
            return True
        said = keep(self._text, delta.text or "")
        return keep(self._reasoning, delta.thinking or "") or said
