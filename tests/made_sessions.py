"""Sessions of archetypes as graphs, without a server."""

from collections.abc import Mapping

import numpy as np

from agentload.traces.graph import Session
from agentload.traces.made import made
from agents.chain import Agent
from agents.kind import Archetype
from agents.sized import sized
from agents.text import Room

ROOM = Room(10_000_000)


def agent(kinds: Mapping[str, Archetype], name: str, rng: np.random.Generator, depth: int, room: Room = ROOM) -> Agent:
    def child(kind: str, r: np.random.Generator) -> Agent:
        return agent(kinds, kind, r, depth - 1, room)

    return Agent(name, sized(name, kinds[name], rng, 0, room, child if depth else None))


def sessions(kinds: Mapping[str, Archetype], name: str, count: int, seed: int = 1, depth: int = 2) -> list[Session]:
    """`count` sessions of an archetype and its sub-agents."""
    rngs = np.random.default_rng(seed).spawn(count)
    return [made(agent(kinds, name, rng, depth), f"{name}-{i}") for i, rng in enumerate(rngs)]
