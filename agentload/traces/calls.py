"""A recording's log of calls, as `agentload record` writes it: a line for each call, sessions made here.

A prompt is a chain of pieces, each known by a key that stands for itself and all before it, and a line has those that
no earlier line has. A call goes on from the agent whose prompt its own begins with: as that agent's next call, or,
where the agent was busy at the time, as a sub-agent that began with its parent's prompt. A call that shares no more
than the head (tools and system prompt) with an earlier one, or asks again what began another session, begins a session;
where its client names sessions, it is a sub-agent in its own, of the agent that waited for tools.
"""

import itertools
from collections.abc import Iterator
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta, Struct

from agentload.traces.graph import Agent, Call, Key, Piece, Seconds, Session, Text, Tokens, Tool
from agentload.traces.graph import Thread as Prompts
from agentload.traces.source import Source, explained
from agentload.traces.timed import Born, Made, steps_of

VERSION = 1
IDLE = 6 * 3600.0
"""Seconds after which a session is taken to have ended, so that a long recording is read in little memory."""
MOST = 400_000
"""Pieces that are remembered, about 250 MB. When there are more, the half of the sessions that were silent for longest
are taken to have ended; what a later one shares with them is then its own."""
LOOK = 1_000
"""Lines between two looks for such sessions."""


class Header(Struct, frozen=True):
    """The first line."""

    agentload_recording: int


class Line(Struct, frozen=True, omit_defaults=True):
    """One call. Seconds are from the beginning of the recording."""

    begin: Seconds
    end: Seconds
    input: Tokens
    output: Tokens
    cached: Tokens = 0
    reasoning: Tokens = 0
    estimated: bool = False
    session: Text = ""  # as its client names it, hashed
    after: Key = 0  # the last piece that an earlier line has; 0 for none
    new: list[tuple[Key, Annotated[int, Meta(ge=1, le=1_000_000_000)]]] = []  # and what follows, with its tokens
    head: Tokens = 0  # of the prompt: tools and system prompt
    tools: list[tuple[Text, Text]] = []  # that the reply asks for: an id, hashed, and the name
    results: list[tuple[Text, Tokens]] = []  # that the prompt brings: the id they answer, and their size
    person: bool = False  # the prompt ends in what a user said
    said: Text = ""  # the text of the reply, hashed
    goes_on: Text = ""  # the text of the last reply in the prompt, likewise

    @property
    def last(self) -> int:
        """The key of the whole prompt."""
        return self.new[-1][0] if self.new else self.after


class Spot(NamedTuple):
    """A piece in its chain."""

    before: int
    tokens: int
    total: int  # of the chain up to its end


NOTHING = Spot(0, 0, 0)


class Thread:
    """One agent."""

    def __init__(self, parent: "Thread | None", line: Line, begun_by: int = -1) -> None:
        self.parent, self.begun_by = parent, begun_by  # which call of its parent's
        self.lines = [line]
        self.children: list[Thread] = []

    def begun(self, at: float) -> int:
        """The call after which something began at that time."""
        return max(0, sum(line.end <= at for line in self.lines) - 1)

    def ended(self) -> float:
        return max([line.end for line in self.lines] + [child.ended() for child in self.children])

    def free(self, at: float) -> bool:
        """Whether none of its calls ran at that time, or later."""
        return self.lines[-1].end <= at


class Group:
    """One session."""

    def __init__(self, name: str, line: Line) -> None:
        self.name = name
        self.root = Thread(None, line)
        self.threads = [self.root]
        self.owner: dict[int, tuple[Thread, int]] = {}  # whose call brought a piece
        self.touched = line.end


class Grouper:
    """Takes lines in the order in which calls ended; gives sessions."""

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self.spots: dict[int, Spot] = {0: Spot(0, 0, 0)}
        self.groups: dict[str, Group] = {}
        self.where: dict[int, Group] = {}  # who brought a piece, or last asked for just it
        self.ends: dict[int, list[tuple[Group, Thread]]] = {}  # whose prompt ends in a piece
        self.forgot = False  # whether pieces of earlier lines are forgotten
        self._numbers = itertools.count(1)

    def add(self, line: Line) -> None:
        """Find the line's place."""
        if line.after not in self.spots:  # forgotten: it begins with what only it has
            kept = max(1, line.input - sum(tokens for _, tokens in line.new))
            self.spots[line.after] = Spot(0, kept, kept)
        before, total = line.after, self.spots[line.after].total
        for key, tokens in line.new:
            total += tokens
            self.spots[key] = Spot(before, tokens, total)
            before = key
        group, thread = self.place(line)
        group.touched = line.end
        place = (thread, len(thread.lines) - 1)
        for key, _ in line.new or [(line.after, 0)]:
            group.owner[key] = place
            self.where[key] = group
        self.ends.setdefault(line.last, []).append((group, thread))

    def place(self, line: Line) -> tuple[Group, Thread]:
        """The agent whose call it is, with the call added."""
        grown = self.grown(line)
        if grown is not None:
            grown[1].lines.append(line)
            return grown
        group = self.groups.get(line.session) if line.session else self.where.get(line.after)
        found = self.owner(group, line) if group else None
        if group is None or (found is None and not line.session):
            name = line.session or f"r{next(self._numbers)}"
            group = self.groups[name] = Group(name, line)
            return group, group.root
        if found is None or not found.free(line.begin):
            return group, self.branch(group, line, found)
        found.lines.append(line)
        return group, found

    def grown(self, line: Line) -> tuple[Group, Thread] | None:
        """The agent, free at the time, whose whole last prompt the line begins with; the longest such prompt."""
        at = line.after if line.new else self.spots.get(line.after, NOTHING).before
        while at:
            free = [place for place in self.ends.get(at, [])
                    if place[1].free(line.begin) and line.session in ("", place[0].name)]  # fmt: skip
            if free:
                place = max(free, key=lambda place: answers(line, place[1].lines[-1]))
                self.ends[at].remove(place)
                return place
            at = self.spots.get(at, NOTHING).before
        return None

    def owner(self, group: Group, line: Line) -> Thread | None:
        """The agent whose conversation the prompt goes on with."""
        at = line.after
        while at and at not in group.owner:
            at = self.spots.get(at, NOTHING).before
        if not at or self.spots.get(at, NOTHING).total <= line.head:
            return None
        thread, call = group.owner[at]
        again = call == 0 and (at != thread.lines[0].last or not line.new)  # another session with that beginning
        return None if again else thread

    def branch(self, group: Group, line: Line, parent: Thread | None) -> Thread:
        """A sub-agent: of `parent`, or of the agent that waited for tools when it began."""
        if parent is None:
            free = [thread for thread in group.threads if thread.free(line.begin)]
            waiting = [thread for thread in free if thread.lines[-1].tools]
            parent = max(waiting or free or [group.root], key=lambda thread: thread.lines[-1].end)
        thread = Thread(parent, line, parent.begun(line.begin))
        parent.children.append(thread)
        group.threads.append(thread)
        return thread

    def close(self, before: float) -> Iterator[Session]:
        """The sessions that nothing has been heard of since."""
        leaving: list[int] = []
        for name in [name for name, group in self.groups.items() if group.touched < before]:
            group = self.groups.pop(name)
            agent = self.agent(group.root, [])
            head = group.root.lines[0].head
            for key in group.owner:
                if self.where.get(key) is group:
                    del self.where[key]
                if self.spots.get(key, NOTHING).total > head:
                    leaving.append(key)
                self.ends[key] = [place for place in self.ends.get(key, []) if place[0] is not group]
                if not self.ends[key]:
                    del self.ends[key]
            yield Session(name, agent, group.root.lines[0].begin, shared=True)
        self.forget(leaving)

    def forget(self, keys: list[int]) -> None:
        """Let go of pieces that no session has any more."""
        for key in keys:
            if key not in self.where and self.spots.pop(key, None) is not None:
                self.forgot = True

    def crowded(self) -> float:
        """Sessions touched before that time have to make room; none, where there is room."""
        if len(self.spots) <= self.most:
            return 0.0
        return sorted(group.touched for group in self.groups.values())[len(self.groups) // 2]

    def pieces(self, key: int) -> list[Piece]:
        """A prompt."""
        found: list[Piece] = []
        left = 0  # tokens before what was found
        while key:
            spot = self.spots.get(key, Spot(0, left, 0))  # what is forgotten is one piece
            found.append((key, spot.tokens))
            key, left = spot.before, spot.total - spot.tokens
        return [piece for piece in found[::-1] if piece[1]]

    def agent(self, thread: Thread, before: list[Piece]) -> Agent:
        """An agent as a list of steps; it began with its parent's prompt `before`."""
        prompts = Prompts()
        prompts.pieces, prompts.input = before, sum(tokens for _, tokens in before)
        made: list[Made] = []
        for i, line in enumerate(thread.lines):
            following = dict(thread.lines[i + 1].results) if i + 1 < len(thread.lines) else {}
            call: Call = prompts.call(
                self.pieces(line.last), line.input, line.output, reasoning=line.reasoning, cached=line.cached,
                seconds=line.end - line.begin, estimated=line.estimated,
            )  # fmt: skip
            tools = tuple(Tool(name, tokens=following.get(id, 0)) for id, name in line.tools)
            made.append(Made(line.begin, line.end, call, tools, person=line.person))
        born = [
            Born(child.lines[0].begin, child.ended(), self.agent(child, self.pieces(thread.lines[child.begun_by].last)))
            for child in thread.children
        ]
        return Agent(tuple(steps_of(made, born)))


def answers(line: Line, before: Line) -> tuple[bool, bool]:
    """How surely a prompt goes on from a reply: it answers its tools, it repeats its text."""
    tools = {id for id, _ in before.tools} & {id for id, _ in line.results}
    return bool(tools), bool(before.said) and before.said == line.goes_on


def read(source: Source) -> Iterator[Session]:
    header, lines = msgspec.json.Decoder(Header), msgspec.json.Decoder(Line)
    grouper, begun = Grouper(), False
    for number, data in source.lines():
        try:
            if not begun:
                version = header.decode(data).agentload_recording
                begun = True
                if version != VERSION:
                    source.complain(number, "agentload_recording", f"is {version}; this agentload reads {VERSION}")
                    return
                continue
            line = lines.decode(data)
        except RecursionError:
            source.complain(number, "", "the JSON is nested too deeply")
            continue
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            source.complain(number, *explained(error))
            continue
        wrong = what_is_wrong(line, grouper)
        if wrong:
            source.complain(number, *wrong)
            continue
        grouper.add(line)
        if number % LOOK == 0:
            yield from grouper.close(max(line.end - IDLE, grouper.crowded()))
    yield from grouper.close(float("inf"))


def what_is_wrong(line: Line, grouper: Grouper) -> tuple[str, str] | None:
    """Field and reason, where a line does not fit those before it."""
    if line.after not in grouper.spots and not grouper.forgot:
        return "after", f"is {line.after}, which no earlier line has"
    if line.end < line.begin:
        return "end", f"is {line.end:g}, before begin, which is {line.begin:g}"
    known = [key for key, _ in line.new if key in grouper.spots]
    if known or len({key for key, _ in line.new}) < len(line.new):
        return "new", "has a piece that an earlier line has, or one twice"
    if not line.new and not line.after:
        return "new", "is empty, so there is no prompt"
    return None
