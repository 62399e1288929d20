"""What happened, one row at a time: the records every other number is derived from.

Times are float seconds on the run clock (zero at the start of the run); None means that it never
happened. Instants are stored, durations are derived (`collectors.metrics`).
"""

from msgspec import Struct

SCHEMA = 1
"""Version of the records and of run.json, which both carry it. A new optional field does not change it, and a reader
refuses what is newer than itself."""

CALIBRATION = -1
"""The `session` of calls that agentload makes for itself (probing and calibrating the endpoint).
They are in the ledger, since they cause tokens, and in no latency figure."""


class Call(Struct, frozen=True, gc=False):
    """One model call; every attempt of a retried call is a record of its own."""

    session: int  # number of the session, from 0; CALIBRATION for agentload's own calls
    agent: str  # path of the sub-agent inside its session: "" is the root, "0.2" the third child of its first child
    archetype: str  # of the agent that made it
    step: int  # model calls of this agent so far, from 0; attempts of one call share it
    attempt: int  # 0, then 1, 2, … for retries
    due: float  # when the schedule, or the chain, wanted it sent
    sent: float  # when its bytes were handed to the socket; for a call that never got so far, when it gave up
    opened: float | None  # first byte of the answer (status line); no statement about tokens
    first: float | None  # first output token: text, reasoning or tool call, never the role chunk
    last: float | None  # last output token
    end: float  # the answer was complete, or failed
    connect: float = 0.0  # seconds spent opening a connection between `due` and `sent`; 0 on a reused one
    status: str = "ok"  # STATUSES says what there is
    finish_reason: str = ""  # as the server said it: "stop", "length", "tool_calls", …
    input_tokens: int = 0  # the whole prompt
    cached_tokens: int = 0  # of input_tokens
    output_tokens: int = 0  # everything generated
    reasoning_tokens: int = 0  # of output_tokens
    argument_tokens: int = 0  # of output_tokens: tool calls; servers do not count them apart: shared out by characters
    usage: str = "server"  # who counted: "server" or "estimated"
    wanted_input_tokens: int | None = None  # None where nothing was wanted (live chains)
    wanted_output_tokens: int | None = None
    chunks: int = 0  # network reads that carried output
    tool_calls: int = 0  # that the answer asked for
    resent: int = 0  # silent second sends, after a pooled connection died before a byte was answered
    tenant: str = ""  # "" where the spec names none
    endpoint: str = ""  # base URL, where a run has several
    throttled: float = 0.0  # seconds between `due` and `sent` that the tenant's own quota took
    worker: str = ""  # which process sent it; "" where there was one
    error: str = ""  # what the server or the socket said, shortened
    itl: tuple[float, ...] | None = None  # gaps between output pieces, when asked for


STATUSES = {
    "ok": "a finish reason arrived and no error event",
    "timeout_connect": "no connection within the limit",
    "timeout_first": "no first token within the limit",
    "timeout_gap": "silence between two tokens beyond the limit",
    "timeout_call": "the whole call took longer than the limit",
    "gave_up": "the agent lost patience, or had seen enough, and hung up",
    "cancelled": "it was cut off: the run ended, or others were faster than its agent",
    "connect_failed": "the connection was refused or could not be made (DNS, TLS)",
    "reset": "the connection broke after the request was sent",
    "truncated": "the answer ended without a finish reason",
    "error_event": "an error object inside a stream that began well",
    "bad_reply": "not an answer of this API: wrong content type, broken JSON, too large",
    "http_4xx": "the status code, spelled out: http_429, http_503, …",
}


OURS = ("cancelled", "gave_up")
"""Statuses of calls that we ended, whatever the endpoint would have done."""


class Tool(Struct, frozen=True, gc=False):
    """One tool call that an agent made."""

    session: int  # as of a call, also the two below
    agent: str
    archetype: str
    step: int  # step of the model call that asked for it
    name: str
    start: float  # when the tool began
    end: float  # when its result was there
    ok: bool  # False: it failed, or could not be called
    result_tokens: int  # wanted size of the result; for real functions an estimate
    kind: str = "simulated"  # or "python", "unknown" (no such tool), "malformed" (arguments are not a JSON object)
    error: str = ""


OUTCOMES = {
    "done": "it came to its own end",
    "step_limit": "a live chain made as many calls in a turn as it may",
    "context_limit": "its context was full, and its harness does not compact",
    "failed": "a call was not answered, and its attempts were used up",
    "abandoned": "its agent gave up on a call, and did not ask again",
    "broken": "an agent of the user's own raised an error, or asked for what cannot be done",
    "cancelled": "its place in the population was taken away, or its parent had what it wanted from others",
    "unfinished": "the run ended",
}


class Session(Struct, frozen=True, gc=False):
    """One agent's run: a session when `agent` is "", else one of its sub-agents."""

    session: int  # as of a call, also the two below
    agent: str
    archetype: str
    due: float  # when the schedule, or its parent, wanted it started
    start: float  # when it was
    end: float  # when its last step, and what it waited for, had ended
    outcome: str  # OUTCOMES says what there is
    intents: int  # things a person asked for (human turns) that were answered
    steps: int  # model calls, attempts not counted
    calls: int  # model calls, attempts counted
    tool_calls: int  # tools that it ran
    children: int  # sub-agents started by this agent itself
    compactions: int  # times that its history was cut to a summary
    input_tokens: int  # this agent's own calls, sub-agents apart; likewise below
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    argument_tokens: int
    model_seconds: float  # in calls, from send to end
    tool_seconds: float  # in tools; of several at once the longest
    wait_seconds: float  # people thinking, back-off after errors
    join_seconds: float  # waiting for sub-agents
    tenant: str = ""
    worker: str = ""
    error: str = ""
    resets: int = 0  # times that it forgot most of its history, without a summary
    rewrites: int = 0  # times that its harness changed the history, and caches lost what follows
    missed: int = 0  # instants of its schedule that found it still at work
    refused: int = 0  # sub-agents that it asked for and the session's limit on agents did not let it start


class Sample(Struct, frozen=True, gc=False):
    """One figure that a server said of itself on its `/metrics` page, in the words of `collectors.vocabulary`."""

    time: float  # when the page was asked for; before 0 what was read before the run began
    target: str  # URL of the page, without user, password and query
    server: str  # who speaks: "vllm", "sglang", "dcgm", …; "" for what agentload itself says of the page (`up`)
    series: str  # what tells replicas and GPUs of one page apart, as in `engine=0`; "" where nothing does
    name: str
    value: float
