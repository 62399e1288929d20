"""The Responses API on the box: its input as a chat, and the reply as its items and events, named as OpenAI names them.

Fields and events are those of OpenAI's reference (Responses; Streaming events) as vLLM sends them: `event:` and `data:`
lines, a sequence number in each, no `[DONE]`.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from agentload.box.model import Script, ToolUse, Words
from agentload.box.protocol import (
    AskedCall,
    Called,
    ChatAsk,
    ChatMessage,
    Content,
    Function,
    Refused,
    ToolOffer,
    check,
    usage,
)


class Item(Struct):
    """A piece of the conversation: a message, a function call, its output, or reasoning (which is left out)."""

    type: str = "message"
    role: str = "user"
    content: str | list[Content] | None = None
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    output: str | list[Content] | None = None


class FlatTool(Struct, omit_defaults=True):
    name: str
    type: str = "function"
    description: str | None = None
    parameters: Any = None
    strict: bool | None = None


class ResponsesAsk(Struct):
    """Body of POST /v1/responses. Fields not named here are accepted and ignored."""

    input: str | list[Item]
    model: str | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    tools: list[FlatTool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    stream: bool | None = False
    ignore_eos: bool | None = False
    reasoning_tokens: int | None = None
    min_tokens: int | None = 0
    seed: int | None = None

    def chat(self) -> ChatAsk:
        """The same as a chat: function calls belong to the assistant's message before them."""
        messages = [ChatMessage("system", self.instructions)] if self.instructions else []
        items = [Item(content=self.input)] if isinstance(self.input, str) else self.input
        for item in items:
            add(messages, item)
        if not messages:
            raise Refused(400, "input must not be empty", param="input")
        choice = self.tool_choice
        if isinstance(choice, dict):
            choice = {"function": {"name": choice.get("name")}}
        # not `strict`: which the SDKs fill in here and not in chat completions, and no model reads
        tools = [ToolOffer(Function(tool.name, tool.description, tool.parameters)) for tool in self.tools or ()]
        ask = ChatAsk(
            messages=messages, model=self.model, stream=self.stream, max_tokens=self.max_output_tokens,
            tools=tools or None, tool_choice=choice, ignore_eos=self.ignore_eos,
            reasoning_tokens=self.reasoning_tokens, min_tokens=self.min_tokens,
            seed=self.seed,
        )  # fmt: skip
        check(ask)
        return ask


def add(messages: list[ChatMessage], item: Item) -> None:
    """Append an item to a chat."""
    if item.type == "function_call":
        call = AskedCall(Called(item.name, item.arguments), item.call_id)
        if messages and messages[-1].role == "assistant":
            messages[-1].tool_calls = [*(messages[-1].tool_calls or ()), call]
        else:
            messages.append(ChatMessage("assistant", None, [call]))
    elif item.type == "function_call_output":
        messages.append(ChatMessage("tool", item.output))
    elif item.type == "message":
        messages.append(ChatMessage(item.role, item.content))
    elif item.type != "reasoning":
        raise Refused(400, f"input: items of type {item.type!r} are not understood here", param="input")


class Reply:
    """The reply to one request as this API words it."""

    def __init__(self, identity: str, created: int, model: str, script: Script) -> None:
        self._common = {
            "id": identity, "object": "response", "created_at": created, "model": model, "error": None,
            "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "metadata": {}, "instructions": None,
            "temperature": 1.0, "top_p": 1.0,
        }  # fmt: skip
        self._script = script
        self._identity = identity.removeprefix("resp_")
        self._number = 0

    def whole(self, prompt: int, cached: int, output: int) -> dict[str, Any]:
        """The response object when all is said."""
        cut = self._script.finish_reason == "length"
        used = usage(prompt, cached, output, self._script.reasoning_tokens)
        return {
            **self._common,
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": [self._item(i, part, part.text) for i, part in self._parts()],
            "usage": {
                "input_tokens": used["prompt_tokens"],
                "input_tokens_details": used["prompt_tokens_details"],
                "output_tokens": used["completion_tokens"],
                "output_tokens_details": used["completion_tokens_details"],
                "total_tokens": used["total_tokens"],
            },
        }

    def opening(self) -> bytes:
        begun = {**self._common, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
        return self._event("response.created", response=begun) + self._event("response.in_progress", response=begun)

    def pieces(self) -> Iterator[tuple[bytes, bool]]:
        """For each token, the events it lets out."""
        before = self.opening()
        for i, part in enumerate(self._script.parts):
            for data, visible in self._spoken(i, part):
                yield before + data, visible
                before = b""

    def end(self, prompt: int, cached: int, output: int) -> bytes:
        """What follows the last token."""
        whole = self.whole(prompt, cached, output)
        return self._event(f"response.{whole['status']}", response=whole) + b"0\r\n\r\n"

    def _spoken(self, i: int, part: Words | ToolUse) -> Iterator[tuple[bytes, bool]]:
        place: dict[str, Any] = {"item_id": self._name(i, part), "output_index": i}
        tool = isinstance(part, ToolUse)
        head, closed = (part.head, part.closed) if isinstance(part, ToolUse) else (0, False)
        hidden = isinstance(part, ToolUse) and not part.name  # cut before even its name was out
        kind = "response.function_call_arguments.delta" if tool else "response.output_text.delta"
        if isinstance(part, Words):
            place["content_index"] = 0
            if part.kind == "reasoning":
                kind = "response.reasoning_text.delta"
        count = head + len(part.pieces) + closed
        for j in range(count):
            data, piece = b"", head <= j < head + len(part.pieces)
            if not hidden:
                if j == max(0, head - 1):
                    data += self._added(i, part, place)
                if piece:
                    data += self._event(kind, **place, delta=part.pieces[j - head])
                if j == count - 1:
                    data += self._ended(i, part, place)
            yield data, piece or (j == head - 1 and not hidden)

    def broken(self) -> bytes:
        return self._event("error", code="server_error", message="a fault made on purpose", param=None) + b"0\r\n\r\n"

    def _parts(self) -> list[tuple[int, Words | ToolUse]]:
        """What can be seen, with its place."""
        return [(i, part) for i, part in enumerate(self._script.parts) if isinstance(part, Words) or part.name]

    def _name(self, i: int, part: Words | ToolUse) -> str:
        kind = "fc" if isinstance(part, ToolUse) else "rs" if part.kind == "reasoning" else "msg"
        return f"{kind}_{self._identity}_{i}"

    def _item(self, i: int, part: Words | ToolUse, text: str, status: str = "completed") -> dict[str, Any]:
        common: dict[str, Any] = {"id": self._name(i, part), "status": status}
        if isinstance(part, ToolUse):
            return {**common, "type": "function_call", "call_id": part.id, "name": part.name, "arguments": text}
        if part.kind == "reasoning":
            content = [{"type": "reasoning_text", "text": text}] if text else []
            return {**common, "type": "reasoning", "summary": [], "content": content}
        content = [{"type": "output_text", "text": text, "annotations": []}] if text else []  # type: ignore[dict-item]
        return {**common, "type": "message", "role": "assistant", "content": content}

    def _added(self, i: int, part: Words | ToolUse, place: dict[str, Any]) -> bytes:
        item = self._item(i, part, "", "in_progress")
        added = self._event("response.output_item.added", output_index=i, item=item)
        if isinstance(part, Words) and part.kind == "text":
            empty = {"type": "output_text", "text": "", "annotations": []}
            added += self._event("response.content_part.added", **place, part=empty)
        return added

    def _ended(self, i: int, part: Words | ToolUse, place: dict[str, Any]) -> bytes:
        whole, ended = part.text, b""
        if isinstance(part, ToolUse):
            ended += self._event("response.function_call_arguments.done", **place, arguments=whole)
        elif part.kind == "reasoning":
            ended += self._event("response.reasoning_text.done", **place, text=whole)
        else:
            ended += self._event("response.output_text.done", **place, text=whole, logprobs=[])
            said = {"type": "output_text", "text": whole, "annotations": []}
            ended += self._event("response.content_part.done", **place, part=said)
        return ended + self._event("response.output_item.done", output_index=i, item=self._item(i, part, whole))

    def _event(self, kind: str, **fields: Any) -> bytes:
        """One event in HTTP's chunked framing."""
        data = msgspec.json.encode({"type": kind, "sequence_number": self._number, **fields})
        self._number += 1
        event = b"event: %b\ndata: %b\n\n" % (kind.encode(), data)
        return b"%x\r\n%b\r\n" % (len(event), event)
