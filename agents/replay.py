"""Replay chains: a recorded session decides. Sizes, shared prefixes piece by piece, tools, gaps and sub-agents are as
they were; the reply's length is forced, and nothing depends on what the model says.

Prompts are made of pieces of filler. They are put into messages by a rule that looks only at what stands before, so two
prompts that begin with the same pieces begin with the same messages, whoever sends them, and a server's prefix cache
finds in them what it would have found in the original.
"""

import math
import zlib

from msgspec import Struct

from agents import chain as chains
from agents.chain import Agent, Chain, Chat, Context, Message, Outcome, Spawn, ToolCall, Wait
from agents.draws import NonNegative, Positive
from agents.script import Agent as Script
from agents.script import Call, Gap, Join, Session, Start, Tool, Tools, spread
from agents.sized import LEAST_MESSAGE, Room, start

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


def follow(script: Script, world: World, path: str, before: list[tuple[int, int]], skip: int = 0) -> Chain:
    """One agent, which begins with its parent's last prompt. Its first `skip` calls, and what lies before them, are
    taken to be done."""
    pace, room = world.pace, world.room
    pieces, number, intents, last = before, 0, 1, 0
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
                context, tokens = conversation(pieces, pace.scale, room)
                if tokens + output > room.context:
                    return Outcome("context_limit", last, intents=intents - 1)
                reply = yield Chat(context, output, exact=True, wanted_input=tokens)
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


def prompt(before: list[tuple[int, int]], call: Call, world: World, place: str) -> list[tuple[int, int]]:
    """The pieces of a call's prompt: what it keeps, what is new, and what is its own."""
    pieces = list(start(tuple(before), call.keep))
    total = sum(tokens for _, tokens in pieces)
    if total < call.keep:  # more is kept than there was: a trace that begins in the middle
        pieces.append((mix(world.own, hash_of(place, 1)), call.keep - total))
        total = call.keep
    for key, tokens in spread(call.new):
        pieces.append((mix(world.base, key), tokens))
        total += tokens
    if total < call.input:
        pieces.append((mix(world.own, hash_of(place, 0)), call.input - total))
    return list(start(tuple(pieces), call.input))


def conversation(pieces: list[tuple[int, int]], scale: float, room: Room) -> tuple[Context, int]:
    """A prompt as messages, and how many tokens it is. Where a message ends depends on what stands before it alone."""
    groups: list[list[tuple[int, int]]] = [[]]
    held = recorded = made = 0
    for key, tokens in pieces:
        recorded += tokens
        size = round(recorded * scale) - made
        if held >= FULL:
            groups.append([])
            held = 0
        if size:
            groups[-1].append((key, size))
            held, made = held + size, made + size
    if len(groups) > 1 and held < 2 * LEAST_MESSAGE:  # too small for a message of its own
        rest = groups.pop()
        groups[-1] += rest
    request = round(room.calibration.per_request)
    messages = [Message("user", sum(size for _, size in group), parts=tuple(group)) for group in groups if group]
    tail = messages[-1] if messages else Message("user", LEAST_MESSAGE, parts=((0, LEAST_MESSAGE),))
    least = max(LEAST_MESSAGE, tail.tokens - request)
    messages[-1:] = [Message("user", least, parts=start(tail.parts, least) or tail.parts)]
    return Context(messages), sum(message.tokens for message in messages) + request


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
