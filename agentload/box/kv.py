"""The key-value cache of one replica: blocks, who holds them, what is cached, what is evicted next.

The rules are vLLM's (v1/core/block_pool.py and kv_cache_manager.py, read in 0.32.0). A block of a request gets an
identity once it is full (a fingerprint chained over all tokens before it); a prompt reuses the longest run of cached
blocks from its start. Blocks are counted by reference. A request gives its blocks back from its tail; those with an
identity go to the end of the free queue, those without to its front, and allocation takes the front, forgetting what
was cached there. That is LRU with no second structure, and the tail of a conversation always goes before its head.

That last property is used here: blocks are not kept one by one but as a tree of *extents*, runs of blocks that are
held, freed and evicted together, so that the cost of a call is in its branches and not in its blocks (a prompt of
100,000 tokens is 6,250 blocks and often one extent). The tests hold it equal to a cache that moves single blocks. One
thing differs from vLLM: a block computed while its twin is cached is given back for the twin, where vLLM keeps both.

A lease may *glide*: it grows by one token at every `tick`, as a request that decodes does. What a tick takes is then
known for all gliding leases together, from how many of them fill a block in it, and no lease is touched until it lands
or somebody comes to share its blocks. So a tick costs the same for one request as for a thousand.
"""

from collections.abc import Sequence
from typing import TypeAlias

from agentload.box.host import Host
from agentload.box.prompts import Runs

Ids: TypeAlias = Runs | Sequence[int]
"""Identities of the full blocks of a token sequence, in order; equal at i means equal up to i.

Worked out when asked (`agentload.box.prompts`), or the memory of an array (`agentload.box.words`).
"""


class Extent:
    """Cached blocks `start` to `stop` of a sequence, continuing where its parent stops, which knows it by `key`, the
    identity of its first. Those that nobody holds are a ring, from the cache's root to `newer` ones and back.

    Most have one child at most. It needs no dictionary: a large simulation is mostly waiting for memory, and a
    dictionary is three places of it.
    """

    __slots__ = ("child", "ids", "key", "newer", "older", "others", "owner", "parent", "refs", "start", "stop")

    def __init__(self, parent: "Extent | None", key: int, ids: Ids, start: int, stop: int, refs: int) -> None:
        self.parent = parent
        self.key = key
        self.ids = ids
        self.start = start
        self.stop = stop
        self.refs = refs
        self.owner: Lease | None = None  # a gliding lease that alone lengthens it
        self.child: Extent | None = None
        self.others: dict[int, Extent] | None = None  # further children, by their keys
        self.older: Extent | None = None
        self.newer: Extent | None = None

    @property
    def lone(self) -> bool:
        """Whether it has one child alone."""
        return self.child is not None and self.others is None

    def find(self, key: int) -> "Extent | None":
        """The child of that key."""
        child = self.child
        if child is None or child.key == key:
            return child
        return None if self.others is None else self.others.get(key)

    def put(self, child: "Extent") -> None:
        """Have a child, in the place of one that has the same key."""
        if self.child is None or self.child.key == child.key:
            self.child = child
        else:
            others = self.others
            if others is None:
                others = self.others = {}
            others[child.key] = child

    def drop(self, child: "Extent") -> None:
        """Lose a child."""
        others = self.others
        if self.child is not child:
            assert others is not None
            del others[child.key]
        else:
            self.child = None if others is None else others.popitem()[1]
        if not others:
            self.others = None

    def enter(self, ring: "Extent") -> None:
        """Become the newest of a ring."""
        newest = ring.older or ring
        self.older, self.newer = newest, ring
        newest.newer = ring.older = self

    def leave(self) -> None:
        """Be in no ring any more."""
        older, newer = self.older, self.newer
        if older is not None and newer is not None:
            older.newer, newer.older = newer, older
            self.older = self.newer = None

    def common(self, ids: Ids, limit: int) -> int:
        """Where this extent and `ids`, known to agree at `start`, part: at most `limit`, at least `start` + 1."""
        own, low, stop = self.ids, self.start + 1, min(self.stop, limit)
        if isinstance(ids, Runs) and isinstance(own, Runs):
            return min(stop, ids.agreed(own))
        if low >= stop or ids[stop - 1] == own[stop - 1]:
            return stop
        high = stop - 1
        while low < high:
            middle = (low + high) // 2
            if ids[middle] == own[middle]:
                low = middle + 1
            else:
                high = middle
        return low


def idle(extent: Extent, stop: int) -> int:
    """How many blocks nobody holds, of those from the start up to `stop`, which lies within that extent."""
    blocks = 0
    while extent.parent is not None:
        if not extent.refs:
            blocks += stop - extent.start
        extent, stop = extent.parent, extent.start
    return blocks


class Lease:
    """The blocks of one request."""

    __slots__ = ("blocks", "gliding", "ids", "leaf", "sealed", "since")

    def __init__(self, ids: Ids, leaf: Extent, sealed: int) -> None:
        self.ids = ids
        self.leaf = leaf  # the deepest extent it holds; all above are held with it
        self.sealed = sealed  # blocks up to there are held through `leaf`
        self.blocks = sealed  # blocks it has in all; those beyond `sealed` are in no extent
        self.gliding = False
        self.since = 0  # while gliding: it holds the cache's `ticks` minus this many tokens


class BlockCache:
    """`usable` blocks of `block` tokens; what is evicted goes to `host`, if there is one."""

    def __init__(self, usable: int, block: int, host: Host | None = None) -> None:
        self.usable = usable
        self.block = block
        self.host = host
        self._blank = usable  # free blocks without identity: the front of the free queue
        self._cached = 0  # free blocks that have one
        self._root = Extent(None, 0, (), 0, 0, 1)
        self.ticks = 0
        self._gliding = 0  # leases
        self._phases = [0] * block  # gliding leases by `since` modulo a block: those that need a block at that tick
        self._shared: set[Lease] = set()  # gliding leases whose next full block may be cached already

    @property
    def free(self) -> int:
        """Blocks that can be allocated; cached ones that nobody holds are among them."""
        return self._blank + self._cached

    @property
    def held(self) -> int:
        """Blocks that somebody holds."""
        return self.usable - self._blank - self._cached

    @property
    def idle(self) -> int:
        """Blocks that are cached and that nobody holds."""
        return self._cached

    @property
    def filled(self) -> int:
        """Blocks that are held or cached."""
        return self.usable - self._blank

    @property
    def usage(self) -> float:
        """Share of blocks that somebody holds, 0 to 1."""
        return 1.0 - self.free / self.usable

    def admit(self, ids: Ids, tokens: int) -> Lease | None:
        """A lease on the cached start of a sequence of `tokens` tokens; None if the whole would not fit.

        At least its last token is left to compute.
        """
        extent, hit = self._reach(ids, min((tokens - 1) // self.block, len(ids)))
        if -(-tokens // self.block) - hit + idle(extent, hit) > self._blank + self._cached:
            return None
        leaf = extent if extent.stop <= hit else self._split(extent, hit)
        at = below = leaf
        while at.parent is not None:
            self._hold(at)
            if at is not below and at.refs == below.refs and at.lone:
                self._merge(at, below)  # cut once, for somebody who has gone
            else:
                below = at
            at = below.parent or self._root
        return Lease(ids, leaf, hit)

    def restore(self, lease: Lease, tokens: int) -> int:
        """Bring back from the host what continues a lease on the start of `tokens` tokens; how many tokens of it.

        At least the last token is left to compute. `admit` has seen to it that the whole fits.
        """
        host, start = self.host, lease.sealed
        if host is None:
            return 0
        stop = host.reach(lease.ids, start, min((tokens - 1) // self.block, len(lease.ids)))
        if stop > start:
            host.give(lease.ids, start, stop)
            fits = self.grow(lease, stop * self.block)
            assert fits
        return (stop - start) * self.block

    def grow(self, lease: Lease, tokens: int) -> bool:
        """Make room for a sequence's first `tokens` tokens and cache the blocks that they fill; False if full."""
        need = -(-tokens // self.block) - lease.blocks
        if need > 0:
            if need > self._blank + self._cached:
                return False
            self._take(need)
            lease.blocks += need
        full = min(tokens // self.block, len(lease.ids))
        if full > lease.sealed:
            self._seal(lease, full)
        return True

    def release(self, lease: Lease) -> None:
        """Give all blocks of a lease back, tail first."""
        self._blank += lease.blocks - lease.sealed
        extent, ids = lease.leaf, lease.ids
        if isinstance(ids, Runs):
            ids.of.ended = self, extent
        while extent.parent is not None:
            extent.refs -= 1
            if not extent.refs:
                extent.enter(self._root)
                self._cached += extent.stop - extent.start
            extent = extent.parent

    def overlap(self, ids: Ids, tokens: int) -> int:
        """How many tokens of a prompt of `tokens` tokens are cached."""
        extent, hit = self._reach(ids, min((tokens - 1) // self.block, len(ids)))
        if isinstance(ids, Runs) and (ids.of.ended is None or ids.of.ended[0] is self):
            ids.of.ended = self, extent  # whoever looks next begins here
        return hit * self.block

    def hosted(self, ids: Ids, tokens: int, overlap: int) -> int:
        """How many tokens of a prompt the host has, beyond the `overlap` that is cached on the device."""
        start = overlap // self.block
        if self.host is None:
            return 0
        return (self.host.reach(ids, start, min((tokens - 1) // self.block, len(ids))) - start) * self.block

    def leans_on_growth(self, ids: Ids, tokens: int) -> bool:
        """Whether more of a sequence may yet be cached by a lease that glides."""
        return self._reach(ids, min((tokens - 1) // self.block, len(ids)))[0].owner is not None

    def glide(self, lease: Lease, tokens: int) -> None:
        """From now on the lease, which holds `tokens` tokens, grows by one at every tick."""
        lease.gliding, lease.since = True, self.ticks - tokens
        self._phases[lease.since % self.block] += 1
        self._gliding += 1
        leaf = lease.leaf
        if leaf.refs == 1 and leaf.child is None and leaf.parent is not None:
            leaf.owner = lease
        elif lease.sealed < len(lease.ids):
            self._shared.add(lease)

    def land(self, lease: Lease) -> int:
        """End a lease's gliding; the tokens it holds."""
        self._settle(lease)
        lease.gliding = False
        self._phases[lease.since % self.block] -= 1
        self._gliding -= 1
        self._shared.discard(lease)
        if lease.leaf.owner is lease:
            lease.leaf.owner = None
        return self.ticks - lease.since

    def room(self, most: int) -> int:
        """How many ticks, up to `most`, can pass before blocks run out or one is filled that may have a twin."""
        for lease in self._shared:
            most = min(most, (lease.since - self.ticks - 1) % self.block)
        free, each = self._blank + self._cached, self._gliding
        if free >= (most // self.block + 1) * each:
            return most
        count = free // each * self.block
        free %= each
        while count < most and (free := free - self._phases[(self.ticks + count) % self.block]) >= 0:
            count += 1
        return min(count, most)

    def tick(self, count: int = 1) -> None:
        """Let `count` ticks pass, at most as many as there is `room` for."""
        block, phases = self.block, self._phases
        need = count // block * self._gliding
        for i in range(self.ticks, self.ticks + count % block):
            need += phases[i % block]
        if need:
            self._take(need)
        self.ticks += count

    def _settle(self, lease: Lease) -> None:
        """Bring a gliding lease's blocks up to date; they have been counted already."""
        tokens = self.ticks - lease.since
        lease.blocks = -(-tokens // self.block)
        full = min(tokens // self.block, len(lease.ids))
        if full > lease.sealed:
            self._seal(lease, full)

    def _reach(self, ids: Ids, limit: int) -> tuple[Extent, int]:
        """Where the cached start of `ids` ends, at most `limit` blocks from it: the extent, and how many blocks."""
        extent = self._known(ids, limit)
        hit = extent.stop
        while hit == extent.stop and hit < limit and extent.child is not None:
            child = extent.find(ids[hit])
            if child is None:
                break
            if child.owner is not None:
                self._settle(child.owner)
            if extent.refs == child.refs > 0 and extent.lone and extent.parent is not None:
                self._merge(extent, child)  # cut once, for somebody who has gone
            extent, hit = child, child.common(ids, limit)
            if hit == child.stop:
                child.ids = ids  # the same so far, and of the same conversation as the next to look here
        return extent, hit

    def _known(self, ids: Ids, limit: int) -> Extent:
        """An extent that holds a start of `ids`, at most `limit` blocks: near where its conversation's last request
        ended, so that nobody has to come down the whole tree."""
        if not isinstance(ids, Runs) or ids.of.ended is None or ids.of.ended[0] is not self:
            return self._root
        extent = ids.of.ended[1]
        while extent.parent is not None:
            own = extent.ids
            if extent.start < extent.stop <= limit and isinstance(own, Runs) and extent.stop <= ids.agreed(own):
                break
            extent = extent.parent  # it is gone, or too long, or has gone on with somebody else
        return extent

    def _seal(self, lease: Lease, full: int) -> None:
        """Give the blocks of a lease up to `full` their identity."""
        ids, leaf, at = lease.ids, lease.leaf, lease.sealed
        while at < full:
            if leaf.refs == 1 and leaf.child is None and leaf.parent is not None:
                leaf.ids, leaf.stop = ids, full  # ours alone, so it may grow
                break
            key = ids[at]
            child = leaf.find(key)
            if child is None:
                fresh = Extent(leaf, key, ids, at, full, 1)
                leaf.put(fresh)
                leaf = fresh
                break
            if child.owner is not None:
                self._settle(child.owner)
            at = child.common(ids, full)  # somebody cached this already: take theirs, give our own back
            leaf = child if child.stop == at else self._split(child, at)
            self._hold(leaf)
            self._blank += leaf.stop - leaf.start
        lease.leaf, lease.sealed = leaf, full

    def _split(self, extent: Extent, at: int) -> Extent:
        """Cut an extent in two and return the upper part, which the caller must hold at once.

        The object that was there becomes the lower part, so that whoever holds it, and its place in the queue, stay
        right.
        """
        parent = extent.parent
        assert parent is not None
        upper = Extent(parent, extent.key, extent.ids, extent.start, at, extent.refs)
        parent.put(upper)
        extent.parent, extent.key, extent.start = upper, extent.ids[at], at
        upper.put(extent)
        return upper

    def _merge(self, upper: Extent, lower: Extent) -> None:
        """Make one of two extents that have the same holders, so that none of them ends at `upper`."""
        parent = upper.parent
        assert parent is not None
        lower.start, lower.key, lower.parent = upper.start, upper.key, parent
        parent.put(lower)
        upper.stop, upper.ids = upper.start, ()  # gone

    def _hold(self, extent: Extent) -> None:
        if not extent.refs:
            extent.leave()  # the upper part of a split was never in the ring itself
            self._cached -= extent.stop - extent.start
        elif extent.owner is not None:
            self._shared.add(extent.owner)
            extent.owner = None
        extent.refs += 1

    def _take(self, count: int) -> None:
        """Allocate blocks from the front of the free queue."""
        blank = min(count, self._blank)
        self._blank -= blank
        count -= blank
        while count:
            extent = self._root.newer
            assert extent is not None
            gone = min(count, extent.stop - extent.start)
            extent.stop -= gone
            if self.host is not None:
                self.host.keep(extent.ids, extent.stop, extent.stop + gone)
            self._cached -= gone
            count -= gone
            if extent.stop == extent.start:
                extent.leave()
                parent = extent.parent
                assert parent is not None
                parent.drop(extent)
                extent.ids = ()
