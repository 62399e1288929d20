"""Names of traces and spans that are known before a call is sent, so that a server's spans can join ours.

A session is a trace, an agent and every attempt at a call a span of it. Their ids are hashes of what the run calls
them, as 16 and 8 bytes; the header is that of W3C Trace Context (https://www.w3.org/TR/trace-context/, version 00).
"""

from hashlib import blake2b

HALF = 1 << 64


def trace_id(run_id: str, session: int) -> int:
    return _hash(f"{run_id}-{session}", 16)


def agent_span(run_id: str, session: int, agent: str) -> int:
    """The span of an agent, from its start to its end; "" is the session's own."""
    return _hash(f"{run_id}-{session}/{agent}", 8)


def call_span(run_id: str, session: int, agent: str, step: int, attempt: int) -> int:
    """The span of one attempt at one model call."""
    return _hash(f"{run_id}-{session}/{agent}/{step}/{attempt}", 8)


def is_sampled(trace: int, share: float) -> bool:
    """Whether a trace is of that share of all, as OpenTelemetry's TraceIdRatioBased decides it: by its lower half."""
    return trace % HALF < share * HALF


def traceparent(trace: int, span: int) -> str:
    """The header of a request whose trace is sampled."""
    return f"00-{trace:032x}-{span:016x}-01"


def _hash(text: str, size: int) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=size).digest()) or 1  # an id of zeros is none
