"""Host memory as a second tier: blocks that a replica's cache evicts are kept here, the oldest forgotten first.

A victim cache, as TensorRT-LLM's secondary pool is: a block is either on the device or here. It comes as the device
evicts it, the tail of a conversation before its head, and goes back when a prompt continues what the device has with
it. Blocks are kept one by one, so that moving a block costs a fraction of a microsecond of the simulation; without
host memory nothing of this happens.
"""

from collections import OrderedDict
from typing import Protocol


class Blocks(Protocol):
    """Identities of a sequence's blocks (`agentload.box.kv.Ids`)."""

    def __getitem__(self, index: int, /) -> int: ...


class Host:
    """Room for `usable` blocks."""

    def __init__(self, usable: int) -> None:
        self.usable = usable
        self._blocks: OrderedDict[int, None] = OrderedDict()  # identities, the next to be forgotten first

    @property
    def held(self) -> int:
        """Blocks that are here."""
        return len(self._blocks)

    def keep(self, ids: Blocks, start: int, stop: int) -> None:
        """Take in blocks `start` to `stop` of a sequence, the last of them first."""
        blocks = self._blocks
        for i in range(stop - 1, start - 1, -1):
            identity = ids[i]
            blocks[identity] = None
            blocks.move_to_end(identity)
            if len(blocks) > self.usable:
                blocks.popitem(last=False)

    def reach(self, ids: Blocks, start: int, limit: int) -> int:
        """Where the blocks of a sequence that are here, without a gap from `start`, end; at most `limit`."""
        at = start
        while at < limit and ids[at] in self._blocks:
            at += 1
        return at

    def give(self, ids: Blocks, start: int, stop: int) -> None:
        """Let blocks go that are back on the device."""
        for i in range(start, stop):
            del self._blocks[ids[i]]
