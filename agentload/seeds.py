"""The generators of sessions: what `np.random.default_rng([seed, number])` makes, at a fifth of its price.

Most of that is NumPy's `SeedSequence`, which hashes a few words for each generator. Here that is done for many sessions
at once, by the same algorithm: M. E. O'Neill's seed_seq_fe, with a pool of four words.
"""

from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence, default_rng
from numpy.random.bit_generator import ISpawnableSeedSequence
from numpy.typing import NDArray

MANY: Final = 256
"""Sessions that are hashed together."""
POOL: Final = 4
WORD: Final = 0xFFFFFFFF


def generator(seed: int, number: int) -> Generator:
    """The generator of session `number` of a seed."""
    if seed >> 32 * (POOL - 1) or number > WORD:
        return default_rng([seed, number])
    return Generator(PCG64(Hashed(seed, number)))  # type: ignore[arg-type]  # its stubs know SeedSequence alone


class Hashed(ISpawnableSeedSequence):
    """What a generator begins with."""

    def __init__(self, seed: int, number: int) -> None:
        self.entropy = [seed, number]
        self.parent: SeedSequence | None = None  # of those that sub-agents have

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> NDArray[np.uint64]:
        seed, number = self.entropy
        words: NDArray[np.uint64] = states(seed, number // MANY)[number % MANY]
        return words

    def spawn(self, n_children: int) -> list[Any]:
        if self.parent is None:
            self.parent = SeedSequence(self.entropy)
        return self.parent.spawn(n_children)


@lru_cache(maxsize=256)
def states(seed: int, block: int) -> NDArray[np.uint64]:
    """What PCG64 is seeded with, four words each, for the sessions from `block` * MANY on."""
    words = [np.full(MANY, seed >> at & WORD, np.uint32) for at in range(0, max(1, seed.bit_length()), 32)]
    words.append(np.arange(block * MANY, (block + 1) * MANY, dtype=np.uint32))
    words += [np.zeros(MANY, np.uint32)] * (POOL - len(words))
    hashed = Hash(0x43B0D7E5, 0x931E8875)
    pool = [hashed(word) for word in words]
    for one in range(POOL):
        for other in range(POOL):
            if one != other:
                pool[other] = shifted(pool[other] * np.uint32(0xCA01F9DD) - hashed(pool[one]) * np.uint32(0x4973F715))
    hashed = Hash(0x8B51F9DD, 0x58F38DED)
    return np.stack([hashed(word) for word in pool + pool], axis=1).astype("<u4").view(np.uint64)


class Hash:
    """Hashes words, each time with another constant."""

    def __init__(self, constant: int, factor: int) -> None:
        self.constant, self.factor = constant, factor

    def __call__(self, words: NDArray[np.uint32]) -> NDArray[np.uint32]:
        words = words ^ np.uint32(self.constant)
        self.constant = self.constant * self.factor & WORD
        return shifted(words * np.uint32(self.constant))


def shifted(words: NDArray[np.uint32]) -> NDArray[np.uint32]:
    return words ^ (words >> np.uint32(16))
