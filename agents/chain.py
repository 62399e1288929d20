"""The words an agent and the world exchange.

An agent is a generator, a *chain*: it yields what it wants and is sent the answer.

    Chat(context, …)    -> Reply                  one model call
    [ToolCall, …]       -> [ToolResult, …]        tools, run in parallel
    Spawn([Agent, …])   -> [Outcome, …]           sub-agents, run in parallel, and joined: all, some or none of them
    Join([number, …])   -> [Outcome, …]           sub-agents that were started earlier
    Wait(seconds)       -> None                   a person, a back-off
    Until(instant)      -> when it is then        a schedule
    Note(what)          -> None                   something for the agent's record

and returns an `Outcome`. It knows no socket and no clock, so the same chain runs against a real endpoint, in virtual
time, and in a test with `next` and `send`.
"""

import math
from collections.abc import Callable, Generator, Iterable
from typing import Any, Literal, TypeAlias, final

from msgspec import Struct


class ToolCall(Struct, frozen=True):
    """A tool to run. What a simulated one costs is decided by the chain, so that a seed decides it."""

    name: str
    arguments: str = "{}"  # JSON text, as the model wrote it
    id: str = ""
    seconds: float = 0.0  # how long a simulated tool takes
    tokens: int = 0  # size of a simulated tool's result
    ok: bool = True  # whether a simulated tool succeeds
    kind: str = "simulated"  # "python", "unknown", "malformed": see `collectors.records.Tool`
    text: str | None = None  # a result that is already known (an error message of the harness)
    run: Callable[..., Any] | None = None  # a real Python function, called with the arguments


class ToolResult(Struct, frozen=True):
    """What a tool gave back: known text, or a size that becomes filler."""

    tokens: int
    text: str | None = None
    ok: bool = True


class Message(Struct, frozen=True):
    """One message of a conversation: known text, or a description (`key`, `tokens`) that becomes filler when sent.

    Filler of several pieces, where a start of it must equal the start of another message, is described by `parts`.
    """

    role: str
    tokens: int  # size of the content: wanted for filler, counted or estimated for text
    key: int = 0  # identity of the filler: same key, same text
    text: str | None = None
    parts: tuple[tuple[int, int], ...] = ()  # (key, tokens) of each piece; they add up to `tokens`
    pad: bool = False  # filler follows `text`, up to `tokens`
    tool_calls: tuple[ToolCall, ...] = ()
    call_id: str = ""  # of the tool call that a "tool" message answers


class ToolSchema(Struct, frozen=True):
    """A tool as it is described to the model."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}


class Context:
    """A conversation that only grows: preamble (tool schemas) and messages.

    `encoded` belongs to the client: one item for each message it has already sent, so that the past is encoded
    once. `tools` never changes; to compact, a chain starts a new Context.
    """

    __slots__ = ("encoded", "messages", "tools")

    def __init__(self, messages: Iterable[Message] = (), tools: tuple[ToolSchema, ...] = ()) -> None:
        self.messages = list(messages)
        self.tools = tools
        self.encoded: list[Any] = []

    def append(self, message: Message) -> None:
        self.messages.append(message)


class HangUp(Struct, frozen=True):
    """When an agent gives up on a call, which the server sees, and how often it then asks again."""

    first_token: float = math.inf  # seconds without one
    call: float = math.inf  # seconds, of the whole call
    tokens: float = math.inf  # pieces of output: it has seen enough
    again: int = 0  # at once


@final
class Chat(Struct, frozen=True):
    """One model call."""

    context: Context
    max_tokens: int
    exact: bool = False  # force exactly `max_tokens` of output where the endpoint can
    call_tools: bool = True  # False: the schemas are sent, but the model must not use them
    wanted_input: int | None = None  # tokens the whole prompt should count, for the record
    reasoning: int | None = None  # of an exact reply's tokens; only simulated endpoints take it, None lets them decide
    hang_up: HangUp | None = None  # None: the agent waits as long as the client does


class Reply(Struct, frozen=True):
    """What a model answered."""

    status: str  # as in `collectors.records.Call`
    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    retry_after: float | None = None  # seconds the server asked us to wait

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    @property
    def ending(self) -> str:
        """How a session ends that this was the end of."""
        return "abandoned" if self.status == "gave_up" else "failed"

    def message(self) -> Message:
        """The assistant turn for the history: what the server really returned, reasoning left out as harnesses do."""
        return Message(
            "assistant", self.output_tokens - self.reasoning_tokens, text=self.text, tool_calls=self.tool_calls
        )


class Outcome(Struct, frozen=True):
    """How an agent's run ended; `text` and `tokens` are what it hands to its parent."""

    status: str = "done"  # as in `collectors.records.Session`; of a sub-agent also "running" and "refused"
    tokens: int = 0
    text: str | None = None
    intents: int = 0  # human turns answered
    error: str = ""  # what went wrong with the agent itself; "" leaves that to its last call

    @property
    def ok(self) -> bool:
        """Whether it has something to hand over."""
        return self.status in ("done", "step_limit", "context_limit")


class Agent(Struct, frozen=True):
    """A chain with the name it is recorded under."""

    archetype: str
    chain: "Chain"
    tenant: int = 0  # whose: an index into the run's tenants; sub-agents are their parent's


class Spawn(Struct, frozen=True):
    """Start sub-agents together and wait until `wait` of them have succeeded, or all have ended.

    Answered by what became of each, in their order: "running" those that go on beside their parent. An agent has ended
    when its sub-agents have.
    """

    agents: tuple[Agent, ...]
    wait: int | None = None  # None: for all to end; 0: for none
    cancel: bool = False  # those that still run then are cancelled, and all that they have started


class Join(Struct, frozen=True):
    """Wait for sub-agents that this agent has started, by number in the order in which it did; () is all so far. What
    else there is is as in `Spawn`, the answer too."""

    agents: tuple[int, ...] = ()
    wait: int | None = None
    cancel: bool = False


class Wait(Struct, frozen=True):
    """Do nothing for a while."""

    seconds: float


class Until(Struct, frozen=True):
    """Do nothing until an instant of the run clock; answered by the instant at which the agent goes on, a later one
    where it has been at work until then."""

    instant: float  # seconds


class Note(Struct, frozen=True):
    """Something that its harness did, for the agent's record; answered at once."""

    what: Literal["compactions", "resets", "rewrites", "missed"]  # as in `collectors.records.Session`
    times: int = 1


Ask: TypeAlias = Chat | list[ToolCall] | Spawn | Join | Wait | Until | Note
Chain: TypeAlias = Generator[Ask, Any, Outcome]
