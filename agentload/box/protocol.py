"""The OpenAI API as bytes: requests checked on their way in, replies and errors put together on their way out.

Shapes are vLLM's: the role chunk comes with the first token, tool calls are a chunk with id and name and then pieces of
arguments, usage is a last chunk with empty `choices`, and an error's code is a number.
"""

import json
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from agentload.box.model import Offer, Script, ToolUse, Words


class Refused(Exception):  # noqa: N818  # a reply, not a failure
    """A request that gets an error instead of an answer."""

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = "BadRequestError",
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}
        self.kind = kind
        self.param = param

    @property
    def body(self) -> bytes:
        error = {"message": str(self), "type": self.kind, "param": self.param, "code": self.status}
        return msgspec.json.encode({"error": error})


class Called(Struct):
    name: str
    arguments: str = ""


class AskedCall(Struct):
    function: Called
    id: str = ""


class Content(Struct):
    """A part of a message's content; only text is understood."""

    type: str
    text: str | None = None


class ChatMessage(Struct):
    role: str
    content: str | list[Content] | None = None
    tool_calls: list[AskedCall] | None = None

    def plain(self) -> tuple[str, str, tuple[tuple[str, str], ...]]:
        """Role, text and tool calls, as `agentload.box.words.Template` takes them."""
        calls = tuple((call.function.name, call.function.arguments) for call in self.tool_calls or ())
        if isinstance(self.content, list):
            if any(part.text is None for part in self.content):
                raise Refused(400, "messages: this model takes parts of type 'text' only", param="messages")
            return self.role, "".join(part.text or "" for part in self.content), calls
        return self.role, self.content or "", calls


class Function(Struct, omit_defaults=True):
    name: str
    description: str | None = None
    parameters: Any = None
    strict: bool | None = None


class ToolOffer(Struct):
    function: Function
    type: str = "function"


class StreamOptions(Struct):
    include_usage: bool = False
    continuous_usage_stats: bool = False


class Ask(Struct, kw_only=True):
    """What every kind of request has in common. Fields not named here are accepted and ignored, as vLLM does."""

    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    min_tokens: int | None = 0
    ignore_eos: bool | None = False
    reasoning_tokens: int | None = None  # of a reply of forced length; ours, no other server has it
    seed: int | None = None
    n: int | None = 1

    @property
    def most(self) -> int | None:
        return self.max_tokens

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class ChatAsk(Ask, kw_only=True):
    """Body of POST /v1/chat/completions."""

    messages: list[ChatMessage]
    max_completion_tokens: int | None = None
    tools: list[ToolOffer] | None = None
    tool_choice: str | dict[str, Any] | None = None

    @property
    def most(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    def offers(self) -> tuple[tuple[Offer, ...], str]:
        """The tools, and the same as compact JSON: the counts of two clients that space it differently agree."""
        if not self.tools:
            return (), ""
        offers = tuple(Offer(tool.function.name, tool.function.parameters) for tool in self.tools)
        return offers, msgspec.json.encode(self.tools).decode()

    def choice(self, offers: tuple[Offer, ...]) -> str:
        """tool_choice as one word: "auto", "required", "none" or the name of a tool."""
        if isinstance(self.tool_choice, dict):
            function = self.tool_choice.get("function")
            name = function.get("name") if isinstance(function, dict) else None
            if not any(offer.name == name for offer in offers):
                raise Refused(400, f"tool_choice names {name!r}, which is not among the tools", param="tool_choice")
            return str(name)
        if self.tool_choice not in (None, "auto", "required", "none"):
            raise Refused(
                400, f"tool_choice must be auto, required or none, got {self.tool_choice!r}", param="tool_choice"
            )
        return self.tool_choice or "auto"

    def results(self) -> int:
        """Tool results since the last user message."""
        count = 0
        for message in reversed(self.messages):
            if message.role == "user":
                break
            count += message.role == "tool"
        return count


class TextAsk(Ask, kw_only=True):
    """Body of POST /v1/completions."""

    prompt: str | list[str | Annotated[int, Meta(ge=0, lt=2**62)]]

    def only(self) -> str | list[int]:
        """The one prompt, as text or as tokens; Refused where there are several."""
        match self.prompt:
            case str(text) | [str(text)]:
                return text
            case prompts if all(isinstance(token, int) for token in prompts):
                return [int(token) for token in prompts]
        raise Refused(400, f"one prompt a request, got {len(self.prompt)}", param="prompt")


def parse(body: bytes, kind: type[Struct]) -> Any:
    """The request in `body`, of type `kind`; Refused where it is none."""
    try:
        ask = msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise Refused(400, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(400, f"the body is not valid JSON: {error}") from None
    if isinstance(ask, ChatAsk) and not ask.messages:
        raise Refused(400, "messages must not be empty", param="messages")
    if isinstance(ask, Ask):
        check(ask)
    return ask


def check(ask: Ask) -> None:
    """Refused where a field's value makes no sense."""
    if ask.n not in (None, 1):
        raise Refused(400, f"n must be 1 here, got {ask.n}", param="n")
    if ask.most is not None and ask.most < 1:
        raise Refused(400, f"max_tokens must be at least 1, got {ask.most}", param="max_tokens")
    if (ask.reasoning_tokens or 0) < 0:
        raise Refused(400, f"reasoning_tokens must be at least 0, got {ask.reasoning_tokens}", param="reasoning_tokens")
    if (ask.min_tokens or 0) < 0:
        raise Refused(400, f"min_tokens must be at least 0, got {ask.min_tokens}", param="min_tokens")
    if ask.min_tokens and ask.most is not None and ask.min_tokens > ask.most:
        raise Refused(
            400, f"min_tokens must be at most max_tokens={ask.most}, got {ask.min_tokens}", param="min_tokens"
        )


def usage(prompt: int, cached: int, output: int, reasoning: int) -> dict[str, Any]:
    """The API's account of one reply, in tokens."""
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + output,
        "completion_tokens": output,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def deltas(script: Script) -> Iterator[bytes]:
    """For each token of a chat reply, the `delta` objects it lets out; b"" for marks, which nobody sees."""
    calls = 0
    for part in script.parts:
        if isinstance(part, Words):
            key = b'{"reasoning_content":"' if part.kind == "reasoning" else b'{"content":"'
            for piece in part.pieces:  # plain words: nothing to escape
                yield b'%b%b"}' % (key, piece.encode())
        else:
            yield from _call_deltas(part, calls)
            calls += 1


def _call_deltas(part: ToolUse, index: int) -> Iterator[bytes]:
    opened = {"id": part.id, "type": "function", "index": index, "function": {"name": part.name}}
    for i in range(part.head):
        last = i == part.head - 1 and part.name
        yield msgspec.json.encode({"content": None, "tool_calls": [opened]}) if last else b""
    head, tail = b'{"content":null,"tool_calls":[{"index":%d,"function":{"arguments":' % index, b"}}]}"
    for piece in part.pieces:
        yield head + json.dumps(piece).encode() + tail
    if part.closed:
        yield b""


def texts(script: Script) -> Iterator[bytes]:
    """For each token of a plain completion, its text as JSON."""
    for part in script.parts:
        if isinstance(part, Words):
            for piece in part.pieces:
                yield b'"%b"' % piece.encode()


def message(script: Script) -> dict[str, Any]:
    """The assistant's message of a reply that is not streamed."""
    said = {"reasoning": "", "text": ""}
    calls = []
    for part in script.parts:
        if isinstance(part, Words):
            said[part.kind] += part.text
        elif part.name:
            calls.append({"id": part.id, "type": "function", "function": {"name": part.name, "arguments": part.text}})
    made: dict[str, Any] = {"role": "assistant", "content": said["text"] or None}
    if said["reasoning"]:
        made["reasoning_content"] = said["reasoning"]
    if calls:
        made["tool_calls"] = calls
    return made


def chunked(event: bytes) -> bytes:
    """One server-sent event in HTTP's chunked framing."""
    return b"%x\r\ndata: %b\n\n\r\n" % (len(event) + 8, event)


DONE = chunked(b"[DONE]") + b"0\r\n\r\n"


class Framer:
    """The bytes around the tokens of one streamed reply; all but the token is made once."""

    def __init__(self, identity: str, created: int, model: str, *, chat: bool) -> None:
        kind, self._key, self._empty = (
            ("chat.completion.chunk", b"delta", b"{}") if chat else ("text_completion", b"text", b'""')
        )
        common = {"id": identity, "object": kind, "created": created, "model": model}
        self._common = msgspec.json.encode(common)[:-1]
        self._before = b'data: %b,"choices":[{"index":0,"%b":' % (self._common, self._key)
        self._after = b',"logprobs":null,"finish_reason":null}]}\n\n\r\n'
        self._rest = len(self._before) + len(self._after) - 2
        self.done = DONE
        self.opening = self.token(b'{"role":"assistant","content":""}') if chat else b""

    def token(self, delta: bytes) -> bytes:
        return b"%x\r\n%b%b%b" % (self._rest + len(delta), self._before, delta, self._after)

    def end(self, reason: str, used: dict[str, Any] | None) -> bytes:
        """Finish chunk, usage if wanted, the end mark, and the end of the body."""
        finish = b'%b,"choices":[{"index":0,"%b":%b,"logprobs":null,"finish_reason":"%b"}]}'
        end = chunked(finish % (self._common, self._key, self._empty, reason.encode()))
        if used is not None:
            end += chunked(b'%b,"choices":[],"usage":%b}' % (self._common, msgspec.json.encode(used)))
        return end + DONE
