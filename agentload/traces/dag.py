"""AIPerf's dag_jsonl (forks and spawns) and multi_turn JSONL: one session a line, by name.

Source: ai-dynamo/aiperf docs/benchmark-modes/dag.md. A turn's messages are added to the history; the reply is taken to
be `max_tokens` long (128 where that is not said) and stays in the history. A FORK inherits the history up to its turn,
a SPAWN starts empty; spawned children are joined before the next turn, or the one that `join_at` names; forked ones are
not waited for. Sessions that another one starts are inside it, so the sizes of the whole file are held in memory; its
texts are not.
"""

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from agentload.traces.conversation import PER_MESSAGE, plain
from agentload.traces.graph import Agent, Gap, Join, Piece, Session, Start, Step, Text, Thread, Tokens, identity
from agentload.traces.source import Damaged, Source, estimate

REPLY = 128
"""Tokens of a reply whose length is not said."""
DEEPEST, MOST = 50, 10_000
"""Levels of sub-agents, and how many of them, beyond which a session is not taken to be meant."""
Milliseconds = Annotated[float, Meta(ge=0, le=1e13)]


class Fork(Struct, frozen=True):
    """A child that goes on from its parent's history."""

    child: Text
    background: bool = False


class Spawned(Struct, frozen=True):
    """Children that start empty."""

    children: list[Text]
    join_at: Tokens | None = None  # the turn before which they are joined; None: the next


class Turn(Struct, frozen=True):
    """One call."""

    messages: list[dict[str, Any]] | None = None
    text: str | None = None  # of multi_turn
    max_tokens: Tokens | None = None
    forks: list[Text | Fork] = []
    spawns: list[Text | Spawned] = []
    delay: Milliseconds = 0.0


class Row(Struct, frozen=True):
    """One session."""

    session_id: Text
    turns: list[Turn]
    pre_session_spawns: list[Text | Spawned] = []
    think_time_ms: Milliseconds = 0.0


class Said(Struct, frozen=True, omit_defaults=True, array_like=True):
    """A turn without its texts."""

    new: list[Piece]  # its messages
    output: int
    delay: float
    forks: list[Text | Fork] = []
    spawns: list[Text | Spawned] = []


class Held(Struct, frozen=True, array_like=True):
    """A session without its texts."""

    session_id: str
    turns: list[Said]
    pre_session_spawns: list[Text | Spawned]
    think_time_ms: float


def held(row: Row) -> Held:
    """What is kept of a row. Damaged where a turn says nothing."""
    turns = []
    for number, turn in enumerate(row.turns):
        output = REPLY if turn.max_tokens is None else turn.max_tokens
        turns.append(Said(pieces(turn, number), output, turn.delay, turn.forks, turn.spawns))
    return Held(row.session_id, turns, row.pre_session_spawns, row.think_time_ms)


class Rows:
    """The rows of a file by name, encoded: as structs they would take ten times the room."""

    def __init__(self) -> None:
        self.lines: dict[str, int] = {}
        self.started: set[str] = set()  # names that another row starts
        self._rows: dict[str, bytes] = {}

    def add(self, number: int, row: Held) -> None:
        self.lines[row.session_id] = number
        self.started.update(children(row))
        self._rows[row.session_id] = msgspec.msgpack.encode(row)

    def __getitem__(self, name: str) -> Held:
        """The row of that name. Damaged where there is none."""
        if name not in self._rows:
            raise Damaged("spawns", f"session {name[:40]!r} is not in the file")
        return msgspec.msgpack.decode(self._rows[name], type=Held)


def read(source: Source) -> Iterator[Session]:
    rows = Rows()
    for number, row in source.values(Row):
        if row.session_id in rows.lines:
            source.complain(
                number, "session_id", f"{row.session_id[:40]!r} is on line {rows.lines[row.session_id]}, too"
            )
        elif not row.turns:
            source.complain(number, "turns", "must hold one turn or more")
        else:
            try:
                rows.add(number, held(row))
            except Damaged as damage:
                source.complain(number, damage.field, damage.reason)
    roots = [name for name in rows.lines if name not in rows.started]
    if rows.lines and not roots:
        source.complain(0, "spawns", "every session is started by another one; there is none to begin with")
    for name in roots:
        try:
            agent = Builder(rows).agent(rows[name], Thread(), [], 0)
        except Damaged as damage:
            source.complain(rows.lines[name], damage.field, damage.reason)
            continue
        yield Session(name, agent, shared=True)


def children(row: Held) -> Iterator[str]:
    for spawned in row.pre_session_spawns:
        yield from names(spawned)
    for turn in row.turns:
        for fork in turn.forks:
            yield fork.child if isinstance(fork, Fork) else fork
        for spawned in turn.spawns:
            yield from names(spawned)


def names(spawned: str | Spawned) -> list[str]:
    return spawned.children if isinstance(spawned, Spawned) else [spawned]


class Builder:
    """Makes agents of rows."""

    def __init__(self, rows: Rows) -> None:
        self.rows, self.made = rows, 0

    def agent(self, row: Held, thread: Thread, history: list[Piece], depth: int) -> Agent:
        """The agent of a row, with those that it starts."""
        self.made += 1
        if depth > DEEPEST or self.made > MOST:
            raise Damaged("spawns", f"sessions start each other in a circle, or deeper than {DEEPEST}, or {MOST} times")
        steps: list[Step] = []
        joins: dict[int, list[int]] = {}  # before which turn, which children
        born = 0
        for turn, said in enumerate([None, *row.turns]):
            if said is not None:
                if turn > 1 and said.delay + row.think_time_ms:
                    steps.append(Gap((said.delay + row.think_time_ms) / 1000, person=bool(row.think_time_ms)))
                if joins.get(turn - 1):
                    steps.append(Join(tuple(joins.pop(turn - 1))))
                history = [*history, *said.new]
                steps.append(thread.call(history, sum(size for _, size in history), said.output))
                if said.output:
                    history = [*history, (identity(row.session_id, turn, "reply"), said.output)]
            forked, spawned = (said.forks, said.spawns) if said else ([], row.pre_session_spawns)
            agents = []
            for fork in forked:
                name = fork.child if isinstance(fork, Fork) else fork
                agents.append(self.child(name, Thread(thread), history, depth))
                born += 1
            for group in spawned:
                at = group.join_at if isinstance(group, Spawned) and group.join_at is not None else turn
                for name in names(group):
                    agents.append(self.child(name, Thread(), [], depth))
                    joins.setdefault(max(at, turn), []).append(born)
                    born += 1
            if agents:
                steps.append(Start(tuple(agents), 0))
        if joins:
            steps.append(Join(tuple(sorted(number for group in joins.values() for number in group))))
        return Agent(tuple(steps), row.session_id, row.turns[0].delay / 1000)

    def child(self, name: str, thread: Thread, history: list[Piece], depth: int) -> Agent:
        return self.agent(self.rows[name], thread, history, depth + 1)


def pieces(turn: Turn, number: int) -> list[Piece]:
    """The new messages of a turn."""
    if turn.messages is None and turn.text is None:
        raise Damaged(f"turns[{number}].messages", "is missing")
    messages = turn.messages if turn.messages is not None else [{"role": "user", "content": turn.text}]
    if not messages and not number:
        raise Damaged(f"turns[{number}].messages", "must hold one message or more")
    made = []
    for i, message in enumerate(messages):
        text = plain(message.get("content"), f"turns[{number}].messages[{i}].content")
        whole = msgspec.json.encode(message.get("tool_calls")).decode() if message.get("tool_calls") else ""
        made.append((identity(message.get("role"), text, whole), estimate(text) + estimate(whole) + PER_MESSAGE))
    return made
