"""Which replica a request goes to: the rules of real gateways, each a function from what is known to one of them.

A router sees what its real counterpart sees, with one difference: where those keep a guess of what each replica has
cached, these look into the replica's cache.
"""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Final, TypeAlias

import numpy as np

from agentload.box.kv import BlockCache
from agentload.box.prompts import Runs
from agentload.box.request import Request

THRESHOLD: Final = 0.3
ABSOLUTE: Final = 64
RELATIVE: Final = 1.5
"""SMG, the SGLang gateway (docs/getting-started/load-balancing.md): share of a prompt that must match, and what is
unbalanced: most − least outstanding > ABSOLUTE and most > RELATIVE · least."""
CREDIT: Final = 1.0
HOST_CREDIT: Final = 0.75
"""Dynamo, lib/kv-router/src/scheduling/selector.rs at 01690d4: what a cached block is worth, on the device and (its
documentation of v1.3.0) in the host's memory."""


MOST_RUNS: Final = 2_000_000
"""Runs of blocks that a router remembers at least, in the order in which they were sent (about 160 MB). A gateway's
memory is bounded too; here it takes 600,000 calls until something is forgotten."""


class Candidate:
    """What a router may know of a replica."""

    __slots__ = ("cache", "filling", "index")

    def __init__(self, index: int, cache: BlockCache) -> None:
        self.index = index
        self.cache = cache
        self.filling = 0  # prompt tokens of the requests there that have not had their first token


Choose: TypeAlias = Callable[[Request, Sequence[Candidate], list[int]], int]
"""From the request, the replicas that are up and the requests outstanding at each (sent there and not ended), the
index of one of them."""


def router(name: str, rng: np.random.Generator) -> Choose:
    """The router of that name; it may remember, and draw from `rng`."""
    turn = count()

    def two_choices(request: Request, up: Sequence[Candidate], loads: list[int]) -> int:
        """Power of two choices (Mitzenmacher 2001): the less loaded of two at random."""
        if len(up) == 1:
            return 0
        a = int(rng.integers(len(up)))
        b = (a + 1 + int(rng.integers(len(up) - 1))) % len(up)
        return min(a, b, key=loads.__getitem__)

    rules: dict[str, Choose] = {
        "round_robin": lambda request, up, loads: next(turn) % len(up),
        "random": lambda request, up, loads: int(rng.integers(len(up))),
        "least_outstanding": least_outstanding,
        "two_choices": two_choices,
        "prefix": Prefix(),
        "kv_cost": kv_cost,
    }
    return rules[name]


def least_outstanding(request: Request, up: Sequence[Candidate], loads: list[int]) -> int:
    """Fewest requests not ended; the first of several."""
    choice, least = 0, loads[0]
    for i, load in enumerate(loads):
        if load < least:
            choice, least = i, load
    return choice


class Prefix:
    """SMG's rule: the longest match if it is long enough, the shortest queue where load is unbalanced.

    Without a match, the replica with the least cached. Where prompts are described and not written
    (`agentload.box.prompts`), caches are looked into only where something was sent that could match: of a hundred
    replicas, that is one or two.
    """

    def __init__(self) -> None:
        # Run of blocks: the replica it was sent to, or -1 times the bits of several. Python keeps numbers below 257
        # ready, so that most entries need no object for theirs.
        self._sent: dict[int, int] = {}
        self._before: dict[int, int] = {}  # what was sent longer ago

    def __call__(self, request: Request, up: Sequence[Candidate], loads: list[int]) -> int:
        choice, least, most = 0, loads[0], loads[0]
        for i, load in enumerate(loads):
            if load < least:
                choice, least = i, load
            elif load > most:
                most = load
        if most <= max(least + ABSOLUTE, int(RELATIVE * least)):
            choice = self._match(request, up, loads)
        if isinstance(request.ids, Runs):
            self._note(request.ids, up[choice].index)
        return choice

    def _match(self, request: Request, up: Sequence[Candidate], loads: list[int]) -> int:
        ids, prompt = request.ids, request.prompt
        if isinstance(ids, Runs):
            best, choice = self._longest(ids, prompt, up, loads)
        else:
            matches = [replica.cache.overlap(ids, prompt) for replica in up]
            best = max(matches)
            choice = min((loads[i], i) for i, match in enumerate(matches) if match == best)[1]
        if best > THRESHOLD * prompt:
            return choice
        choice, fewest = 0, up[0].cache.filled
        for i, replica in enumerate(up):
            blocks = replica.cache.filled
            if blocks < fewest or (blocks == fewest and loads[i] < loads[choice]):
                choice, fewest = i, blocks
        return choice

    def _longest(self, ids: Runs, prompt: int, up: Sequence[Candidate], loads: list[int]) -> tuple[int, int]:
        """The longest match (tokens), if it is long enough, and who has it: the least busy, the first of several.

        First who was sent the end of the prompt is asked, then who was sent what is before it.
        """
        sent, before, block = self._sent, self._before, up[0].cache.block
        stop = min((prompt - 1) // block, len(ids))
        best, choice, asked = 0, 0, 0
        for run, first in ids.runs(stop):
            places = bits(sent.get(run)) & ~asked
            if before:
                places |= bits(before.get(run)) & ~asked
            if places:
                asked |= places
                holders = positions(places, up)
                if len(holders) > 1:
                    holders.sort(key=loads.__getitem__)
                for i in holders:
                    match = up[i].cache.overlap(ids, prompt)
                    if match > best or (match == best and (loads[i], i) < (loads[choice], choice)):
                        best, choice = match, i
                    if match >= stop * block:  # the others have no more
                        break
            if best > first * block or first * block <= THRESHOLD * prompt:
                break  # who was not asked has at most what is before this run
            stop = first
        return best, choice

    def _note(self, ids: Runs, place: int) -> None:
        sent, before = self._sent, self._before
        for run in ids.news(place):
            was = sent.get(run)
            if was is None and before:
                was = before.get(run)
            sent[run] = place if was is None or was == place else -(bits(was) | 1 << place)
        if len(sent) > MOST_RUNS:
            self._sent, self._before = {}, sent


def bits(places: int | None) -> int:
    """Those replicas as the bits of a number."""
    if places is None:
        return 0
    return 1 << places if places >= 0 else -places


def positions(places: int, up: Sequence[Candidate]) -> list[int]:
    """Where those replicas, the bits of a number, are among the ones that are up."""
    first, count = up[0].index, len(up)
    places >>= first
    if up[count - 1].index != first + count - 1 or places >> count:  # some are not
        return [i for i, replica in enumerate(up) if places >> replica.index - first & 1]
    if not places & places - 1:  # one, or none
        return [places.bit_length() - 1] if places else []
    return [i for i, bit in enumerate(f"{places:b}"[::-1]) if bit == "1"]


def kv_cost(request: Request, up: Sequence[Candidate], loads: list[int]) -> int:
    """Dynamo's rule at temperature 0: least prefill still to do, in blocks, plus blocks that are held."""

    def cost(replica: Candidate) -> float:
        cache = replica.cache
        overlap = cache.overlap(request.ids, request.prompt)
        match = CREDIT * overlap + HOST_CREDIT * cache.hosted(request.ids, request.prompt, overlap)
        return (max(0.0, replica.filling + request.prompt - match)) / cache.block + cache.held

    costs = [cost(replica) for replica in up]
    return costs.index(min(costs))
