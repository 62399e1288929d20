"""Replay chains: a recorded session decides. Sizes, shared prefixes piece by piece, tools, gaps and sub-agents are as
they were; the reply's length is forced, and nothing depends on what the model says.

Prompts are made of pieces of filler. They are put into messages by a rule that looks only at what stands before, so two
prompts that begin with the same pieces begin with the same messages, whoever sends them, and a server's prefix cache
finds in them what it would have found in the original.
"""

import math
import zlib
from typing import NamedTuple, TypeAlias

from msgspec import Struct

from agents import chain as chains
from agents.chain import Agent, Chain, Chat, Context, Message, Outcome, Spawn, ToolCall, Wait
from agents.draws import NonNegative, Positive
from agents.script import Agent as Script
from agents.script import Call, Gap, Join, Session, Start, Tool, Tools, spread
from agents.sized import LEAST_MESSAGE, start
from agents.text import Room

Pieces: TypeAlias = list[tuple[int, int]]
"""A prompt: the key and the tokens of each piece."""
FULL = 4_096
"""Tokens at which a message is full and the next one begins."""


class Pace(Struct, frozen=True, forbid_unknown_fields=True):
    """How a recorded session is followed."""

    longest_gap: NonNegative = 10.0  # seconds; people, and what was not recorded, take no longer (AgentX caps so, too)
    longest_tool: Positive = math.inf  # seconds
    speed: Positive = 1.0  # recorded seconds in a second, of gaps, tools and sub-agents' delays
    scale: Positive = 1.0  # multiplies every token count

    def gap(self, gap: Gap) -> float:
        """Seconds that a gap takes here."""
        return min(gap.seconds, self.longest_gap) / self.speed

    def tool(self, tool: Tool) -> float:
        """Seconds that a tool takes here."""
        return min(tool.seconds, self.longest_tool) / self.speed


class Way(Struct, frozen=True):
    """What tells one agent that follows a session from the others that follow it."""

    salt: int  # another one makes other text with the same structure
    copy: int = 0  # likewise: copies with other numbers share no prefix
    past: float = 0.0  # share of the session's calls, below 1, that are taken to have been made already
    wait: float = 0.0  # seconds before it begins


class World(Struct, frozen=True):
    """What the agents of one replayed session share."""

    base: int  # mixed into the identities: another one makes other text with the same structure
    own: int  # mixed into those of text that only this session has
    pace: Pace
    room: Room


def replay(session: Session, pace: Pace, room: Room, way: Way) -> Agent:
    """A recorded session as an agent."""
    base = mix(way.salt, way.copy)
    own = mix(base, zlib.crc32(session.id.encode()))
    world = World(base if session.shared else own, own, pace, room)
    skip = int(way.past * sum(isinstance(step, Call) for step in session.root.steps))
    chain = follow(session.root, world, "", [], skip)
    return Agent(session.root.name or "replay", later(way.wait, chain) if way.wait else chain)


def later(seconds: float, chain: Chain) -> Chain:
    """A chain that waits before it begins."""
    yield Wait(seconds)
    return (yield from chain)


def follow(script: Script, world: World, path: str, before: Pieces, skip: int = 0) -> Chain:
    """One agent, which begins with its parent's last prompt. Its first `skip` calls, and what lies before them, are
    taken to be done."""
    pace, room = world.pace, world.room
    pieces, told = before, Conversation(pace.scale, room)
    number, intents, last = 0, 1, 0
    children, past, begun = 0, 0, not skip
    if script.delay and begun:
        yield Wait(script.delay / pace.speed)
    for step in script.steps:
        match step:
            case Call():
                pieces = prompt(pieces, step, world, f"{path}/{number}")
                number += 1
                begun = number > skip
                if not begun:
                    continue
                output = max(1, round(step.output * pace.scale))
                context, tokens = told.tell(pieces)
                if tokens + output > room.context:
                    return Outcome("context_limit", last, intents=intents - 1)
                thought = round(step.reasoning * pace.scale) if step.reasoning else None
                reply = yield Chat(context, output, exact=True, wanted_input=tokens, reasoning=thought)
                if not reply.ok:
                    return Outcome("failed", intents=intents - 1)
                last = reply.output_tokens
            case Gap(person=person) if begun:
                intents += person
                yield Wait(pace.gap(step))
            case Tools(calls) if begun:
                yield [
                    ToolCall(tool.name, seconds=pace.tool(tool), tokens=round(tool.tokens * pace.scale), ok=tool.ok)
                    for tool in calls
                ]
            case Start(agents, wait):
                born = tuple(
                    Agent(child.name or "replay", follow(child, world, f"{path}.{children + i}", pieces))
                    for i, child in enumerate(agents)
                )
                children += len(agents)
                if begun:
                    yield Spawn(born, wait)
                else:
                    past += len(agents)
            case Join(agents) if begun:
                running = tuple(n - past for n in agents or range(children) if n >= past)
                if running:
                    yield chains.Join(running)
    return Outcome("done", last, intents=intents)


def prompt(before: Pieces, call: Call, world: World, place: str) -> Pieces:
    """The pieces of a call's prompt: what it keeps, what is new, and what is its own."""
    pieces = cut(before, call.keep)
    total = sum([tokens for _, tokens in pieces])
    if total < call.keep:  # more is kept than there was: a trace that begins in the middle
        pieces.append((mix(world.own, hash_of(place, 1)), call.keep - total))
        total = call.keep
    for key, tokens in spread(call.new):
        pieces.append((mix(world.base, key), tokens))
        total += tokens
    if total < call.input:
        pieces.append((mix(world.own, hash_of(place, 0)), call.input - total))
    return cut(pieces, call.input)


def cut(pieces: Pieces, tokens: int) -> Pieces:
    """The first so many tokens of some pieces; taken from the end, where most is kept."""
    pieces, total = list(pieces), sum([size for _, size in pieces])
    while total > tokens:
        key, size = pieces.pop()
        total -= size
        if total < tokens:
            pieces.append((key, tokens - total))
            break
    return pieces


class Full(NamedTuple):
    """A message that is full, and where the next one begins."""

    message: Message
    pieces: int
    recorded: int  # tokens of those pieces
    made: int  # the same, scaled


class Conversation:
    """Prompts as messages. Where a message ends depends on what stands before it alone, so what a prompt begins with is
    not made again."""

    def __init__(self, scale: float, room: Room) -> None:
        self.scale, self.request = scale, round(room.calibration.per_request)
        self.pieces: Pieces = []
        self.full: list[Full] = []

    def tell(self, pieces: Pieces) -> tuple[Context, int]:
        """A prompt as messages, and how many tokens it is."""
        full = self.full
        while full and full[-1].message.parts and self.pieces[: full[-1].pieces] != pieces[: full[-1].pieces]:
            full.pop()
        begun, recorded, made = full[-1][1:] if full else (0, 0, 0)
        group, held = list[tuple[int, int]](), 0
        for place in range(begun, len(pieces)):
            if held >= FULL:
                full.append(Full(Message("user", held, parts=tuple(group)), place, recorded, made))
                group, held = [], 0
            key, tokens = pieces[place]
            recorded += tokens
            size = round(recorded * self.scale) - made
            if size:
                group.append((key, size))
                held, made = held + size, made + size
        self.pieces = pieces
        return self.ended([one.message for one in full], group, held)

    def ended(self, messages: list[Message], group: list[tuple[int, int]], held: int) -> tuple[Context, int]:
        """The messages with the last one, which is smaller by what the template adds to a request."""
        if messages and held < 2 * LEAST_MESSAGE:  # too small for a message of its own
            last = messages.pop()
            group, held = [*last.parts, *group], held + last.tokens
        parts = tuple(group) or ((0, LEAST_MESSAGE),)
        least = max(LEAST_MESSAGE, held - self.request)
        messages.append(Message("user", least, parts=start(parts, least) or parts))
        return Context(messages), sum(message.tokens for message in messages) + self.request


MASK = (1 << 63) - 1


def mix(a: int, b: int) -> int:
    """One well spread number from two (splitmix64's finaliser, Steele, Lea & Flood 2014)."""
    x = (a * 0x9E3779B97F4A7C15 + b + 0x632BE59BD9B4E019) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return (x ^ (x >> 31)) & MASK


def hash_of(place: str, sort: int) -> int:
    """A number for a place in a session, the same in every process."""
    return zlib.crc32(place.encode()) * 2 + sort
