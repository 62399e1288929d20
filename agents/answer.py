"""One answer of a model, put together from what arrives: the part that both clients share.

A client hands over each event, or the whole body, with the time it came; here it becomes the `Call` record and the
`Reply`. Nothing here touches a socket or a clock.

The first token is the first piece of text, reasoning or tool call that is not empty, never the role chunk. An answer is
"ok" when a finish reason was seen and no error event; `[DONE]` by itself proves nothing.
"""

import json
import math
from collections.abc import Callable
from operator import sub
from typing import Any, ClassVar, NamedTuple

import msgspec
from msgspec import Struct
from msgspec.json import Decoder

from agents.chain import Chat, HangUp, Reply, ToolCall
from agents.endpoint import Place, Timeouts
from agents.limits import MAX_NAME, MAX_REASON, MAX_TOKENS, MAX_TOOL_CALLS
from agents.text import CHARACTERS_PER_TOKEN
from agents.trouble import Trouble, complaint, shorten
from collectors.records import Call

USUAL = {"", "stop", "length", "tool_calls", "content_filter"}
"""Finish reasons that the APIs define."""

ENOUGH = "it had seen enough"
"""What is said of a call that was given up for its tokens."""


class Function(Struct):
    name: str | None = None
    arguments: Any = None  # JSON text; some servers send the object itself


class ToolDelta(Struct):
    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Delta(Struct):
    """A piece of a message, or all of it. Fields that nothing here needs are not even decoded."""

    content: str | None = None
    reasoning: str | None = None  # vLLM
    reasoning_content: str | None = None  # SGLang, DeepSeek, LiteLLM
    refusal: str | None = None
    tool_calls: list[ToolDelta] | None = None


class Choice(Struct):
    delta: Delta | None = None
    message: Delta | None = None  # of an answer that is not streamed
    text: str | None = None  # of plain completions
    finish_reason: str | None = None


class Chunk(Struct):
    """One event of a stream, or the whole body."""

    choices: list[Choice] | None = None
    usage: Any = None
    error: Any = None


class Called(Struct):
    """A tool call while it arrives."""

    id: str = ""
    name: str = ""
    arguments: list[str] = []  # JSON text, in the pieces that came

    def call(self) -> ToolCall:
        return ToolCall(shorten(self.name, MAX_NAME), whole(self.arguments), whole([self.id]))

    def __len__(self) -> int:
        """Characters that the model wrote."""
        return len(self.name) + sum(map(len, self.arguments))


class Tokens(NamedTuple):
    """What one call counts. `counted` is False where the server did not say and the figures are estimates."""

    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0
    arguments: int = 0
    counted: bool = True


class Answer:
    """One answer of chat or plain completions while it arrives. `status` is "" until something went wrong."""

    decoder: ClassVar[Decoder[Any]] = Decoder(Chunk)  # of an event, or of the whole body
    __slots__ = (
        "_finished",
        "_reasoning",
        "_text",
        "_tool_pieces",
        "_tools",
        "_usage",
        "chunks",
        "connect",
        "error",
        "finish_reason",
        "first",
        "gaps",
        "hang_up",
        "last",
        "opened",
        "over",
        "resent",
        "retry_after",
        "sent",
        "status",
    )

    def __init__(self) -> None:
        self.sent: float | None = None
        self.opened: float | None = None
        self.first: float | None = None
        self.last: float | None = None
        self.connect = 0.0
        self.resent = 0
        self.chunks = 0
        self.gaps: list[float] = []
        self.status = ""
        self.error = ""
        self.finish_reason = ""
        self.retry_after: float | None = None
        self.hang_up: HangUp | None = None
        self.over = False  # nothing that still comes can matter
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._tools: dict[int, Called] = {}  # by index
        self._tool_pieces = 0
        self._usage: Tokens | None = None
        self._finished = 0.0  # when the finish reason came

    # Taking in

    def event(self, data: bytes, t: float) -> None:
        """The data of one server-sent event that came at `t`."""
        if data.startswith(b"[DONE]"):
            self.over = True
            return
        try:
            self.take(decode(data, self.decoder), t)
        except (ValueError, RecursionError) as error:
            self.fail("bad_reply", f"an event does not fit the API: {error}")

    def body(self, data: bytes, t: float) -> None:
        """The whole body of an answer that was not streamed."""
        try:
            self.take(decode(data, self.decoder), t)
        except (ValueError, RecursionError) as error:
            self.fail("bad_reply", f"the body does not fit the API: {error}")
        self.over = True

    def take(self, chunk: Any, t: float) -> None:
        """A decoded event or body, as `decoder` makes it. Raises ValueError where it makes no sense."""
        if chunk.error:
            self.fail("error_event", complaint(chunk.error))
            return
        if chunk.usage is not None:
            self._usage = read_usage(chunk.usage)
        output = False
        for choice in chunk.choices or ():
            delta = choice.delta or choice.message
            if delta is not None:
                output |= self._take(delta)
            elif choice.text:
                self._text.append(choice.text)
                output = True
            if choice.finish_reason:
                self.finished(choice.finish_reason, t)
        if output:
            self.token(t)

    def _take(self, delta: Delta) -> bool:
        """Keep one piece of the message; say whether there was anything in it."""
        text = delta.content or delta.refusal
        reasoning = delta.reasoning or delta.reasoning_content
        if text:
            self._text.append(text)
        if reasoning:
            self._reasoning.append(reasoning)
        tools = False
        if delta.tool_calls:
            for i, call in enumerate(delta.tool_calls):
                tools |= self._take_tool(call, i if call.index is None else call.index)
        return tools or bool(text or reasoning)

    def _take_tool(self, call: ToolDelta, index: int) -> bool:
        function = call.function or Function()
        arguments = argument_text(function.arguments)
        known = self._tools.get(index)
        if known is not None and call.id and function.name and known.id not in ("", call.id):
            index = max(self._tools) + 1  # a server that numbers all its calls 0, yet names each
            known = None
        if known is None:
            known = self._new_tool(index)
        known.id = known.id or call.id or ""
        known.name = known.name or function.name or ""
        if arguments:
            known.arguments.append(arguments)
        if not (call.id or function.name or arguments):
            return False
        self._tool_pieces += 1
        return True

    def _new_tool(self, index: int) -> Called:
        if len(self._tools) >= MAX_TOOL_CALLS:
            raise ValueError(f"more than {MAX_TOOL_CALLS} tool calls")
        self._tools[index] = new = Called()
        return new

    def finished(self, reason: str, t: float) -> None:
        """The server said at `t` why the answer ends."""
        self.finish_reason = shorten(reason, MAX_REASON)
        self._finished = t

    def token(self, t: float) -> None:
        """Output came at `t`; what comes in one network read has one time."""
        if self.hang_up is not None and not self.finish_reason and self._pieces() >= self.hang_up.tokens:
            self.fail("gave_up", ENOUGH)
        last = self.last
        if last is None:
            self.first = t
        elif t == last:
            return
        else:
            self.gaps.append(t - last)
        self.last = t
        self.chunks += 1

    def flow(self, texts: list[str], times: list[float], reasoning: bool) -> None:
        """Pieces of text, and when each came in a read of its own, of an answer whose first token is there and nobody
        counts."""
        (self._reasoning if reasoning else self._text).extend(texts)
        assert self.last is not None
        gaps = list(filter(None, map(sub, times, [self.last, *times])))
        self.gaps += gaps
        self.chunks += len(gaps)
        self.last = times[-1]

    def sole(self, piece: str) -> str:
        """What kind of output that piece is, "text" or "reasoning", if it is all that has come; else ""."""
        if self._tools or self._usage or self.finish_reason or self.over:
            return ""
        if self._text == [piece]:
            return "" if self._reasoning else "text"
        return "reasoning" if self._reasoning == [piece] and not self._text else ""

    # Ending

    def fail(self, status: str, error: str = "") -> None:
        """End the answer with that status, unless it has ended already."""
        if not self.over:
            self.status = status
            self.error = error
            self.over = True

    def broke(self, trouble: Trouble) -> None:
        """The connection went away. An answer that has its finish reason has lost nothing that matters."""
        if self.finish_reason:
            self.over = True
        else:
            self.fail(trouble.status, trouble.error)

    def conceal(self, conceal: Callable[[str], str]) -> None:
        """Take out of what will be recorded what must not be."""
        if self.finish_reason not in USUAL:
            self.finish_reason = conceal(self.finish_reason)
        for called in self._tools.values():
            called.name = conceal(called.name)

    def restart(self) -> None:
        """Forget the end of an attempt that never reached the server."""
        self.over = False
        self.status = self.error = ""

    def overdue(self, now: float, limits: Timeouts, stream: bool) -> tuple[str, float]:
        """The status of the limit that is passed ("" if none is), and the seconds until the next could be.

        Only a whole call has a limit when it is not streamed, since its tokens come all at once.
        """
        sent = now if self.sent is None else self.sent
        status, deadline = "timeout_call", sent + limits.call
        if stream:
            token = "timeout_first" if self.last is None else "timeout_gap"
            limit = sent + limits.first_token if self.last is None else self.last + limits.between_tokens
            if limit < deadline:
                status, deadline = token, limit
        if self.hang_up is not None:
            patience = self.hang_up.call if self.last is not None else min(self.hang_up.first_token, self.hang_up.call)
            if sent + patience < deadline:
                status, deadline = "gave_up", sent + patience
        return (status if now >= deadline else "", deadline - now)

    def outcome(self) -> str:
        """The status of an answer after which nothing comes any more."""
        return self.status or ("ok" if self.finish_reason else "truncated")

    # Giving out

    def texts(self) -> tuple[str, str]:
        """Text and reasoning so far."""
        return whole(self._text), whole(self._reasoning)

    def tokens(self, prompt_tokens: Callable[[], int]) -> Tokens:
        """The call's tokens by account; `prompt_tokens` estimates the input where the server does not say.

        Without usage, a call that brought no token counts none: there is no sign that the model did any work.
        Servers do not count the tokens of tool calls apart, nor all of them reasoning: those are shared out by length.
        """
        reasoning_length = sum(map(len, self._reasoning))
        argument_length = sum(map(len, self._tools.values()))
        length = sum(map(len, self._text)) + reasoning_length + argument_length
        tokens = self._usage
        if tokens is None:
            if self.first is None:
                return Tokens(counted=False)
            output = max(self._pieces(), math.ceil(length / CHARACTERS_PER_TOKEN))
            tokens = Tokens(input=prompt_tokens(), output=output, counted=False)
        if reasoning_length and not tokens.reasoning:
            tokens = tokens._replace(reasoning=round(tokens.output * reasoning_length / length))
        if argument_length:
            visible = tokens.output - tokens.reasoning
            tokens = tokens._replace(arguments=round(visible * argument_length / (length - reasoning_length)))
        return tokens

    def _pieces(self) -> int:
        return len(self._text) + len(self._reasoning) + self._tool_pieces

    def finish(
        self, place: Place, chat: Chat, end: float, prompt_tokens: Callable[[], int], gaps: bool
    ) -> tuple[Call, Reply]:
        """The record of the call and the reply to the agent."""
        status = self.outcome()
        tokens = self.tokens(prompt_tokens)
        if self.first is None and status == "ok" and tokens.output:
            self.token(self._finished)  # special tokens alone: the server counts them and shows nothing
        text, reasoning = self.texts()
        call = Call(
            *place,
            sent=end if self.sent is None else self.sent,
            opened=self.opened,
            first=self.first,
            last=self.last,
            end=end,
            connect=self.connect,
            status=status,
            finish_reason=self.finish_reason,
            input_tokens=tokens.input,
            cached_tokens=tokens.cached,
            output_tokens=tokens.output,
            reasoning_tokens=tokens.reasoning,
            argument_tokens=tokens.arguments,
            usage="server" if tokens.counted else "estimated",
            wanted_input_tokens=chat.wanted_input,
            wanted_output_tokens=chat.max_tokens if chat.exact else None,
            chunks=self.chunks,
            tool_calls=len(self._tools),
            resent=self.resent,
            error=self.error,
            itl=tuple(self.gaps) if gaps else None,
        )
        reply = Reply(
            status=status,
            text=text,
            reasoning=reasoning,
            tool_calls=tuple(called.call() for called in self._tools.values()),
            finish_reason=self.finish_reason,
            input_tokens=tokens.input,
            output_tokens=tokens.output,
            reasoning_tokens=tokens.reasoning,
            retry_after=self.retry_after,
        )
        return call, reply


def decode(data: bytes, decoder: Decoder[Any]) -> Any:
    """What that JSON says. Raises ValueError.

    What msgspec refuses, Python's own decoder may take as the openai client does (NaN, half of a surrogate pair).
    """
    try:
        return decoder.decode(data)
    except msgspec.ValidationError:
        raise
    except ValueError:
        return msgspec.convert(json.loads(data.decode()), decoder.type)


def argument_text(arguments: object) -> str:
    """Arguments of a tool call as JSON text; some servers send the object itself."""
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


def whole(pieces: list[str]) -> str:
    """The pieces as one text that can be encoded again: halves of a surrogate pair are joined, lone ones replaced."""
    text = "".join(pieces)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def read_usage(usage: Any) -> Tokens | None:
    """The server's own count, where it makes sense; nested details and top-level spellings are both understood."""
    if not isinstance(usage, dict):
        return None
    prompt = number(usage.get("prompt_tokens"))
    completion = number(usage.get("completion_tokens"))
    names = ("prompt", "completion")
    if prompt is None or completion is None:
        prompt, completion = number(usage.get("input_tokens")), number(usage.get("output_tokens"))
        names = ("input", "output")  # in the Responses API
    if prompt is None or completion is None:
        return None
    cached = detail(usage, f"{names[0]}_tokens_details", "cached_tokens")
    reasoning = detail(usage, f"{names[1]}_tokens_details", "reasoning_tokens")
    return Tokens(prompt, min(cached, prompt), completion, min(reasoning, completion))


def detail(usage: dict[str, Any], group: str, name: str) -> int:
    """A figure from a nested group, else from the top level, else 0."""
    nested = usage.get(group)
    value = number(nested.get(name)) if isinstance(nested, dict) else None
    return value or number(usage.get(name)) or 0


def number(value: Any) -> int | None:
    """A count of tokens, or None where it cannot be one. Digits in quotes count: the openai client takes them too."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 12:
        return number(int(value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not 0 <= value <= MAX_TOKENS or value != int(value):  # NaN fails the first
        return None
    return int(value)
