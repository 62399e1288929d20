"""What a recorded agent does: the one form that every trace takes here, and that replay follows.

An agent is a list of steps in order. A prompt is described by how much of the last prompt it starts with (`keep`) and
by the pieces that follow (`new`); a piece is a number of tokens with an identity, so that equal pieces after equal
pieces mean equal text. What neither reaches is text that no other call has. All gaps are end to start: from when the
last thing ended to when the next one began.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, NamedTuple, TypeAlias

from msgspec import Meta, Struct

Tokens = Annotated[int, Meta(ge=0, le=1_000_000_000)]
Seconds = Annotated[float, Meta(ge=0, le=1e13)]
Key = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Text = Annotated[str, Meta(max_length=1_000)]


class Run(NamedTuple):
    """Pieces of a prompt: `times` of them, of `tokens` each, with the identities `key`, `key` + 1, …"""

    key: Key
    tokens: Annotated[int, Meta(ge=1, le=1_000_000_000)]
    times: Annotated[int, Meta(ge=1, le=100_000_000)] = 1


class Call(Struct, frozen=True, tag="call", tag_field="do", omit_defaults=True, forbid_unknown_fields=True):
    """One model call."""

    input: Tokens
    output: Tokens
    keep: Tokens = 0  # of `input`: the start of this agent's last prompt, or for the first call of its parent's last
    new: tuple[Run, ...] = ()  # what follows
    reasoning: Tokens = 0  # of `output`
    cached: Tokens | None = None  # what the server said it had, where recorded
    seconds: Seconds | None = None  # how long it took, where recorded
    estimated: bool = False  # sizes are from the length of the text: nobody has counted


class Tool(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One tool call."""

    name: Text = "tool"
    seconds: Seconds = 0.0
    tokens: Tokens = 0  # of the result
    ok: bool = True


class Tools(Struct, frozen=True, tag="tools", tag_field="do", omit_defaults=True, forbid_unknown_fields=True):
    """Tools that run side by side."""

    calls: tuple[Tool, ...]


class Gap(Struct, frozen=True, tag="gap", tag_field="do", omit_defaults=True, forbid_unknown_fields=True):
    """Nothing of ours happens: a person reads and types, or the harness does something that was not recorded."""

    seconds: Seconds
    person: bool = False


class Start(Struct, frozen=True, tag="start", tag_field="do", omit_defaults=True, forbid_unknown_fields=True):
    """Start sub-agents, and wait for `wait` of them; None waits for all, 0 for none."""

    agents: tuple["Agent", ...]
    wait: Tokens | None = None


class Join(Struct, frozen=True, tag="join", tag_field="do", omit_defaults=True, forbid_unknown_fields=True):
    """Wait for sub-agents started earlier, by their number in the order in which this agent started them; () is all."""

    agents: tuple[Tokens, ...] = ()


Step: TypeAlias = Call | Tools | Gap | Start | Join


class Agent(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One agent: what it does, in order. Its sub-agents are inside its steps."""

    steps: tuple[Step, ...]
    name: Text = ""  # what kind
    delay: Seconds = 0.0  # from when its parent started it to when it began


class Session(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One session."""

    id: Text
    root: Agent
    start: Annotated[float, Meta(ge=-1e12, le=1e12)] | None = None  # seconds from the trace's zero, where recorded
    shared: bool = False  # whether keys mean the same in other sessions that say so; else they are this session's own


def spread(parts: Sequence[Run]) -> Iterator[tuple[int, int]]:
    """Runs as single pieces."""
    for key, tokens, times in parts:
        for i in range(times):
            yield key + i, tokens
