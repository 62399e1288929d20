"""The block cache of the box, against hand-worked cases and against a cache that moves single blocks."""

from collections import OrderedDict
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import approx

from agentload.box.host import Host
from agentload.box.kv import BlockCache, Ids, Lease
from agentload.box.prompts import Prompt, said
from agents.chain import Message

BLOCK = 4


def ids(*path: int) -> Ids:
    """Identities of a sequence whose blocks are `path`: equal exactly where everything before is equal."""
    chain, before = [], 7
    for block in path:
        before = (before * 1_000_003 + block + 1) % (1 << 61)
        chain.append(before)
    return chain


def run(cache: BlockCache, path: Ids, tokens: int) -> Lease:
    lease = cache.admit(path, tokens)
    assert lease is not None
    assert cache.grow(lease, tokens)
    return lease


def test_a_repeated_prompt_is_found_up_to_its_last_block():
    cache = BlockCache(100, BLOCK)
    cache.release(run(cache, ids(1, 2, 3), 12))

    again = cache.admit(ids(1, 2, 3), 12)
    longer = cache.admit(ids(1, 2, 3, 4), 16)

    assert again is not None and again.sealed == 2  # 12 tokens are three full blocks; the last is computed again
    assert longer is not None and longer.sealed == 3


def test_a_prompt_that_parts_half_way_shares_the_blocks_before():
    cache = BlockCache(100, BLOCK)
    first = run(cache, ids(1, 2, 3, 4), 17)
    second = run(cache, ids(1, 2, 8, 9), 17)

    assert second.sealed == 4
    assert cache.free == 100 - 5 - 3  # the second has two blocks of its own and a partial one

    cache.release(first)
    assert cache.free == 100 - 5
    cache.release(second)
    assert cache.free == 100
    assert cache.usage == 0.0


def test_usage_counts_held_blocks_only():
    cache = BlockCache(10, BLOCK)
    lease = run(cache, ids(1, 2), 9)
    assert cache.usage == approx(0.3)  # two full blocks and a partial one of ten

    cache.release(lease)
    assert cache.usage == 0.0
    found = cache.admit(ids(1, 2), 9)
    assert found is not None and found.sealed == 2  # cached though counted as free


def test_allocation_evicts_the_oldest_tail_first():
    cache = BlockCache(6, BLOCK)
    cache.release(run(cache, ids(1, 2, 3), 12))
    cache.release(run(cache, ids(5, 6), 8))
    held = run(cache, ids(9, 9, 9), 12)  # one blank block is left, so the last two of 1-2-3 must go

    assert reach(cache, ids(1, 2, 3, 4)) == 1
    assert reach(cache, ids(5, 6, 7)) == 2
    cache.release(held)


def test_a_block_somebody_holds_is_never_evicted():
    cache = BlockCache(6, BLOCK)
    holder = run(cache, ids(1, 2), 8)
    cache.release(run(cache, ids(1, 2, 3), 12))
    other = run(cache, ids(9, 9, 9, 9), 16)

    assert cache.free == 0
    assert not cache.grow(other, 17)
    assert cache.admit(ids(4), 4) is None
    cache.release(other)
    assert reach(cache, ids(1, 2, 3, 4)) == 2
    cache.release(holder)


def test_a_prompt_is_admitted_only_if_the_whole_fits():
    cache = BlockCache(4, BLOCK)
    assert cache.admit(ids(1, 2, 3, 4), 17) is None
    assert cache.admit(ids(1, 2, 3, 4), 16) is not None


def test_a_growing_conversation_stays_one_extent():
    cache = BlockCache(10_000, BLOCK)
    for turn in range(1, 50):
        cache.release(run(cache, ids(*range(10 * turn)), 40 * turn + 1))

    lease = cache.admit(ids(*range(490)), 4 * 490 + 1)
    assert lease is not None
    assert lease.sealed == 490
    assert lease.leaf.start == 0  # what makes long histories cheap


def test_what_was_evicted_comes_back_from_the_host_as_far_as_it_is_there():
    cache = BlockCache(6, BLOCK, Host(3))
    cache.release(run(cache, ids(1, 2, 3, 4, 5), 20))
    cache.release(run(cache, ids(9, 9, 9, 9), 16))  # evicts 5, 4 and 3, in that order
    assert cache.host is not None and cache.host.held == 3
    back = cache.admit(ids(1, 2, 3, 4, 5, 6), 24)

    assert back is not None and back.sealed == 2
    assert cache.hosted(ids(1, 2, 3, 4, 5, 6), 24, 8) == 12
    assert cache.restore(back, 24) == 12
    assert (back.sealed, cache.host.held) == (5, 3)  # and three of the others went there to make room
    assert cache.restore(back, 24) == 0


def reach(cache: BlockCache, path: Ids) -> int:
    """Blocks of `path` that are cached, without taking them."""
    return cache.overlap(path, len(path) * BLOCK + 1) // BLOCK


class Blocks:
    """The same rules, one block at a time."""

    def __init__(self, usable: int, host: int) -> None:
        self.blank = usable
        self.refs: dict[int, int] = {}
        self.queue: OrderedDict[int, None] = OrderedDict()
        self.room = host
        self.host: list[int] = []

    def hold(self, block: int) -> None:
        self.queue.pop(block, None)
        self.refs[block] += 1

    def admit(self, path: list[int], tokens: int) -> "Held | None":
        hits = []
        for block in path[: (tokens - 1) // BLOCK]:
            if block not in self.refs:
                break
            hits.append(block)
        idle = sum(self.refs[block] == 0 for block in hits)
        if -(-tokens // BLOCK) - len(hits) + idle > self.blank + len(self.queue):
            return None
        for block in hits:
            self.hold(block)
        return Held(path, hits)

    def grow(self, held: "Held", tokens: int) -> bool:
        need = -(-tokens // BLOCK) - held.blocks
        if need > self.blank + len(self.queue):
            return False
        for _ in range(need):
            if self.blank:
                self.blank -= 1
            else:
                gone = self.queue.popitem(last=False)[0]
                del self.refs[gone]
                self.host = [*(block for block in self.host if block != gone), gone][-self.room :] if self.room else []
        held.blocks += max(0, need)
        for block in held.path[len(held.chain) : tokens // BLOCK]:
            if block in self.refs:
                self.hold(block)
                self.blank += 1
            else:
                self.refs[block] = 1
            held.chain.append(block)
        return True

    def restore(self, held: "Held", tokens: int) -> int:
        count = 0
        for block in held.path[len(held.chain) : (tokens - 1) // BLOCK]:
            if block not in self.host:
                break
            self.host.remove(block)
            count += 1
        assert not count or self.grow(held, BLOCK * (len(held.chain) + count))
        return BLOCK * count

    def release(self, held: "Held") -> None:
        self.blank += held.blocks - len(held.chain)
        for block in reversed(held.chain):
            self.refs[block] -= 1
            if not self.refs[block]:
                self.queue[block] = None


class Held:
    def __init__(self, path: list[int], chain: list[int]) -> None:
        self.path, self.chain, self.blocks = path, chain, len(chain)


def flat(cache: BlockCache) -> list[int]:
    """The free queue of a cache, block by block."""
    extent, blocks = cache._root.newer or cache._root, list[int]()
    while extent is not cache._root:
        assert not extent.refs
        blocks += [int(extent.ids[i]) for i in range(extent.stop - 1, extent.start - 1, -1)]
        extent = extent.newer
    return blocks


operations = st.lists(
    st.tuples(
        st.integers(0, 2), st.integers(0, 5), st.lists(st.integers(0, 1), min_size=1, max_size=7), st.integers(1, 30)
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(st.integers(4, 24), st.sampled_from([0, 0, 3, 12]), operations)
def test_extents_do_what_single_blocks_would_do(usable, host, steps):
    cache, blocks = BlockCache(usable, BLOCK, Host(host) if host else None), Blocks(usable, host)
    live: list[tuple[Lease, Held, int]] = []
    for kind, which, path, amount in steps:
        if kind == 0:
            identity, tokens = ids(*path), min(amount, len(path) * BLOCK + 3)
            lease, held = cache.admit(identity, tokens), blocks.admit([int(i) for i in identity], tokens)
            assert (lease is None) == (held is None)
            if lease is not None and held is not None:
                assert lease.sealed == len(held.chain)
                assert cache.restore(lease, tokens) == blocks.restore(held, tokens)
                assert cache.grow(lease, tokens) and blocks.grow(held, tokens)
                live.append((lease, held, tokens))
        elif live and kind == 1:
            lease, held, tokens = live[which % len(live)]
            assert cache.grow(lease, tokens + amount) == blocks.grow(held, tokens + amount)
        elif live:
            lease, held, _ = live.pop(which % len(live))
            cache.release(lease)
            blocks.release(held)
        assert flat(cache) == list(blocks.queue)
        assert cache.free == blocks.blank + len(blocks.queue)
        assert cache.host is None or list(cache.host._blocks) == blocks.host
        shared = sum(count > 0 for count in blocks.refs.values())
        assert cache.free + shared + sum(lease.blocks - lease.sealed for lease, _, _ in live) == usable


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**9), st.integers(20, 90))
def test_blocks_as_runs_of_conversations_are_found_as_blocks_one_by_one_are(seed, blocks):
    """Conversations that go on, fork and are evicted: one cache knows where each ended, the other looks everywhere."""
    rng = np.random.default_rng(seed)
    runs, plain = BlockCache(blocks, 16), BlockCache(blocks, 16)
    talks: list[tuple[Prompt, list[Message]]] = []
    held: list[tuple[Any, Any, int, int, tuple[Prompt, list[Message]], int]] = []
    for _ in range(80):
        if held and (rng.random() < 0.5 or len(held) == 3):
            one, two, output, tokens, talk, number = held.pop(int(rng.integers(len(held))))
            for cache, lease in ((runs, one), (plain, two)):
                cache.grow(lease, tokens)
                cache.release(lease)
            talk[1].append(Message("assistant", output, text=said(number, output)))
        else:
            if not talks or rng.random() < 0.3:
                talks.append((Prompt(), [Message("system", 40, key=int(rng.integers(2)))]))
            talk = talks[int(rng.integers(len(talks)))]
            if rng.random() < 0.2:  # the same start, told anew
                talk = Prompt(), list(talk[1])
                talks.append(talk)
            talk[1].append(Message("user", int(rng.integers(8, 90)), key=int(rng.integers(5))))
            talk[0].extend(talk[1])
            output = int(rng.integers(1, 40))
            number, ids = talk[0].ask(output, int(rng.integers(2)))
            size = talk[0].size
            one = runs.admit(ids, size)
            two = plain.admit([ids[i] for i in range(len(ids))], size)
            assert (one is None) == (two is None)
            if one is None or two is None:
                talks.remove(talk)
            else:
                assert one.sealed == two.sealed
                assert runs.grow(one, size) == plain.grow(two, size)
                held.append((one, two, output, size + output - 1, talk, number))
        assert (runs.free, runs.idle, runs.held) == (plain.free, plain.idle, plain.held)
