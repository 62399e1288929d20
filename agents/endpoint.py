"""Where the calls go: the endpoint as the user named it, what it turned out to take, and the one door to it.

`Client.send` is the only thing in agentload that touches the model's socket. There are two: `agents.wire` (our own
bytes) and `agents.sdk` (the stock `openai` client); both return the same records.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple, Protocol, TypeAlias

from msgspec import Meta, Struct

from agents.chain import Chat, Reply
from collectors.records import Call

Seconds = Annotated[float, Meta(gt=0)]


class Timeouts(Struct, frozen=True, forbid_unknown_fields=True):
    """Limits on one call, in seconds. Keep-alive comments and blank lines reset none of them."""

    connect: Seconds = 10.0
    first_token: Seconds = 120.0  # from the request's last byte to the first output token
    between_tokens: Seconds = 60.0
    call: Seconds = (
        600.0  # from the request's last byte to the end of the answer; what the openai SDK allows by default
    )


class Endpoint(Struct, frozen=True, forbid_unknown_fields=True):
    """An OpenAI-compatible endpoint, as a spec describes it. The key itself is never here, only where it is found."""

    url: str = ""  # base URL including /v1 (of Azure, with ?api-version=…); "" is the cluster in the box
    model: str = ""  # "" takes the endpoint's only model
    api: Literal["chat", "responses", "completions"] = "chat"  # /v1/chat/completions, /v1/responses, /v1/completions
    api_key_env: str = "OPENAI_API_KEY"
    ca_file: str = ""  # PEM file of the authorities to trust for https, in place of the system's
    client: Literal["wire", "sdk"] = "wire"
    stream: bool = True
    headers: dict[str, str] = {}
    traceparent: Annotated[float, Meta(ge=0, le=1)] = 0.0  # share of sessions whose calls carry one (W3C Trace Context)
    session_header: str = ""  # name of a header that carries the session, for routers that keep a session to a replica
    sampling: dict[str, Any] = {}  # temperature, top_p, seed, …: fields of the request that the API defines
    extra_body: dict[str, Any] = {}  # fields of the request that only this endpoint defines
    timeouts: Timeouts = Timeouts()
    context_length: Annotated[int, Meta(gt=0)] | None = None  # None asks /v1/models


class Features(Struct, frozen=True):
    """What an endpoint takes and gives, found out by asking it (`agentload.probe`)."""

    force_length: bool = True  # takes ignore_eos and min_tokens without an error
    stream_usage: bool = True  # takes stream_options.include_usage
    usage: bool = True  # sends usage at all
    tools: bool = True
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    context_length: int | None = None
    simulated: bool = False
    timing: str = ""  # of a simulated cluster: whose times it imitates, and how far they can be trusted


class Place(NamedTuple):
    """Where in the run a call belongs: the fields of its record that the client cannot know."""

    session: int
    agent: str
    archetype: str
    step: int
    attempt: int
    due: float


Emit: TypeAlias = Callable[[Call], None]


class Client(Protocol):
    """The one door to the endpoint."""

    async def send(self, chat: Chat, place: Place, emit: Emit) -> Reply:
        """Make one attempt at one call, hand its record to `emit` exactly once, and return the reply.

        A fault of the endpoint is a status, not an exception. When the task is cancelled, the connection is closed
        (the server must see it), a record with status "cancelled" is emitted, and CancelledError goes on.
        """
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...
