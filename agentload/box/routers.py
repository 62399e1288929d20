"""Which replica a request goes to: the rules of real gateways, each a function from what is known to one of them.

A router sees what its real counterpart sees, with one difference: where those keep a guess of what each replica has
cached, these look into the replica's cache.
"""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Protocol, TypeAlias

import numpy as np

from agentload.box.kv import BlockCache
from agentload.box.request import Request

THRESHOLD = 0.3
ABSOLUTE, RELATIVE = 64, 1.5
"""SMG, the SGLang gateway (docs/getting-started/load-balancing.md): share of a prompt that must match, and what is
unbalanced: most − least outstanding > ABSOLUTE and most > RELATIVE · least."""
CREDIT, HOST_CREDIT = 1.0, 0.75
"""Dynamo, lib/kv-router/src/scheduling/selector.rs at 01690d4: what a cached block is worth, on the device and (its
documentation of v1.3.0) in the host's memory."""


class Candidate(Protocol):
    """What a router may know of a replica."""

    outstanding: int  # requests sent there and not ended
    filling: int  # prompt tokens of those that have not had their first token

    @property
    def cache(self) -> BlockCache: ...


Choose: TypeAlias = Callable[[Request, Sequence[Candidate]], int]
"""From the request and the replicas that are up, the index of one."""


def router(name: str, rng: np.random.Generator) -> Choose:
    """The router of that name; it may remember, and draw from `rng`."""
    turn = count()

    def two_choices(request: Request, up: Sequence[Candidate]) -> int:
        """Power of two choices (Mitzenmacher 2001): the less loaded of two at random."""
        if len(up) == 1:
            return 0
        a = int(rng.integers(len(up)))
        b = (a + 1 + int(rng.integers(len(up) - 1))) % len(up)
        return min(a, b, key=lambda i: up[i].outstanding)

    rules: dict[str, Choose] = {
        "round_robin": lambda request, up: next(turn) % len(up),
        "random": lambda request, up: int(rng.integers(len(up))),
        "least_outstanding": least_outstanding,
        "two_choices": two_choices,
        "prefix": prefix,
        "kv_cost": kv_cost,
    }
    return rules[name]


def least_outstanding(request: Request, up: Sequence[Candidate]) -> int:
    """Fewest requests not ended; the first of several."""
    loads = [replica.outstanding for replica in up]
    return loads.index(min(loads))


def prefix(request: Request, up: Sequence[Candidate]) -> int:
    """SMG's rule: the longest match if it is long enough, the shortest queue where load is unbalanced.

    Without a match, the replica with the least cached.
    """
    loads = [replica.outstanding for replica in up]
    most, least = max(loads), min(loads)
    if most - least > ABSOLUTE and most > RELATIVE * least:
        return loads.index(least)
    matches = [replica.cache.overlap(request.ids, request.prompt) for replica in up]
    best = max(matches)
    if best > THRESHOLD * request.prompt:
        return min((i for i, match in enumerate(matches) if match == best), key=loads.__getitem__)
    return min(range(len(up)), key=lambda i: (up[i].cache.held + up[i].cache.idle, loads[i]))


def kv_cost(request: Request, up: Sequence[Candidate]) -> int:
    """Dynamo's rule at temperature 0: least prefill still to do, in blocks, plus blocks that are held."""

    def cost(replica: Candidate) -> float:
        cache = replica.cache
        overlap = cache.overlap(request.ids, request.prompt)
        match = CREDIT * overlap + HOST_CREDIT * cache.hosted(request.ids, request.prompt, overlap)
        return (max(0.0, replica.filling + request.prompt - match)) / cache.block + cache.held

    costs = [cost(replica) for replica in up]
    return costs.index(min(costs))
