"""ShareGPT: an array (or lines) of conversations of a person and a model."""

from collections.abc import Iterator

from msgspec import Struct, field

from agentload.traces.conversation import Said, agent_of
from agentload.traces.graph import Session
from agentload.traces.source import Damaged, Source

ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
    "tool": "tool",
    "function_call": "assistant",
    "observation": "tool",
}


class Turn(Struct, frozen=True):
    """One message."""

    from_: str = field(name="from")
    value: str


class Conversation(Struct, frozen=True):
    """One conversation."""

    conversations: list[Turn]
    id: str | int | None = None


def read(source: Source) -> Iterator[Session]:
    for number, row in source.values(Conversation):
        messages = []
        try:
            for i, turn in enumerate(row.conversations):
                if turn.from_ not in ROLES:
                    raise Damaged(f"conversations[{i}].from", f"{turn.from_[:40]!r} is not known")
                messages.append(Said(ROLES[turn.from_], turn.value))
            agent = agent_of(messages, "conversations")
        except Damaged as damage:
            source.complain(number, damage.field, damage.reason)
            continue
        yield Session(f"line-{number}" if row.id is None else str(row.id)[:1000], agent, shared=True)
