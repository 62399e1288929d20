"""Which pieces of prompts were seen before, how long ago, and behind how many tokens of others.

A piece is known together with all before it. All pieces that one call used last leave an LRU cache one after the other,
end first, so it is enough to remember for each piece the call that used it last, and for each call how many tokens it
was the last to use (Mattson et al. 1970, by whole calls).
"""

import numpy as np
from numpy.typing import NDArray

from agentload.traces.graph import Call, spread

Numbers = NDArray[np.int64]
MOST = 1_500_000
"""Pieces that are remembered. When there are more, the memory begins anew: the hit rates of a trace with many times as
many come out a little low."""


class Prompt:
    """The last prompt of an agent: the numbers of its pieces, and what identifies each with all before it."""

    __slots__ = ("chains", "memory", "numbers")

    def __init__(self) -> None:
        self.begin(0)

    def begin(self, memory: int) -> None:
        """Nothing was said yet, as far as this memory goes."""
        self.numbers: Numbers = np.empty(0, np.int64)
        self.chains: list[int] = []
        self.memory = memory

    def copy(self) -> "Prompt":
        other = Prompt()
        other.numbers, other.chains, other.memory = self.numbers, self.chains, self.memory
        return other


class Sharing:
    """What calls, one after the other, share with those before them. Sums of tokens."""

    def __init__(self, sizes: tuple[int, ...], lifetimes: tuple[float, ...], most: int = MOST) -> None:
        self.input = self.ideal = self.pieces = self.seen_pieces = 0
        self.known = False  # whether any call said anything of its prompt
        self.by_size = np.zeros(len(sizes))
        self.by_lifetime = np.zeros(len(lifetimes))
        self._sizes, self._lifetimes, self._most = np.array(sizes, float), np.array(lifetimes), most
        self._memory = 0
        self.forget()

    def forget(self) -> None:
        """Nothing that comes shares anything with what has been."""
        self._memory += 1
        self._number: dict[int, int] = {}
        self._tokens = np.zeros(1_024, np.int64)
        self._last: Numbers = np.zeros(1_024, np.int64)  # the call that used a piece last
        self._times: list[float] = []
        self._stack = Fenwick()

    def add(self, prompt: Prompt, call: Call, at: float, scope: int) -> int:
        """Take a call, made at `at` seconds; return how many of its tokens had been seen. `prompt` is its agent's last
        one, and becomes this call's. Keys mean the same where `scope` is the same."""
        if len(self._number) > self._most:
            self.forget()
        if prompt.memory != self._memory:
            prompt.begin(self._memory)
        self.known = self.known or bool(call.keep or call.new)
        whole = int(np.searchsorted(np.cumsum(self._tokens[prompt.numbers]), call.keep, side="right"))
        old, chains = prompt.numbers[:whole], prompt.chains[:whole]
        held = int(self._tokens[old].sum())
        new: list[int] = []
        known = len(self._number)
        if held < call.keep:
            new.append(self._part(prompt, whole, call.keep - held, chains))
            if whole < len(prompt.numbers):  # else it is kept of what nobody here has said
                known = max(known, len(self._number))
        seen = whole + len([number for number in new if number < known])
        for key, tokens in spread(call.new):
            new.append(self._number_of((key ^ scope, tokens), tokens, chains))
            seen += new[-1] < known
        rest = call.input - call.keep - sum(run.tokens * run.times for run in call.new)
        if rest > 0:
            new.append(self._number_of(("own", scope, len(self._number)), rest, chains))
        numbers = np.concatenate((old, np.array(new, np.int64)))
        hit = self._touch(numbers, seen, at)
        prompt.numbers, prompt.chains = numbers, chains
        self.input += call.input
        self.ideal += hit
        self.pieces += len(numbers)
        self.seen_pieces += seen
        return hit

    def _part(self, prompt: Prompt, place: int, tokens: int, chains: list[int]) -> int:
        """The number of the first tokens of a piece, which were seen with it."""
        if place == len(prompt.numbers):  # more than was ever said: a trace that begins in the middle
            return self._number_of(("before", len(self._number)), tokens, chains)
        piece, known = int(prompt.numbers[place]), len(self._number)
        number = self._number_of(("part", piece), tokens, chains)
        if number == known:
            self._last[number] = self._last[piece]
            self._stack.add(int(self._last[piece]), tokens)
        return number

    def _number_of(self, what: tuple[object, ...], tokens: int, chains: list[int]) -> int:
        """The number of a piece after those in `chains`, which it joins."""
        chain = hash((chains[-1] if chains else 0, *what, tokens))
        chains.append(chain)
        number = self._number.setdefault(chain, len(self._number))
        if number == len(self._tokens):
            self._tokens = np.concatenate((self._tokens, np.zeros(number, np.int64)))
            self._last = np.concatenate((self._last, np.zeros(number, np.int64)))
        self._tokens[number] = tokens
        return number

    def _touch(self, numbers: Numbers, seen: int, at: float) -> int:
        """Use the pieces of a prompt, of which the first `seen` were used before; return their tokens."""
        last, tokens = self._last[numbers[:seen]], self._tokens[numbers[:seen]]
        cuts = np.flatnonzero(np.diff(last)) + 1
        for group in np.split(np.arange(seen), cuts) if seen else []:
            call, size = int(last[group[0]]), int(tokens[group].sum())
            hotter = self._stack.total - self._stack.until(call)
            self.by_size += np.clip(self._sizes - hotter, 0, size)
            self.by_lifetime += size * (at - self._times[call] <= self._lifetimes)
            self._stack.add(call, -size)
            self._stack.total += size  # until the whole prompt is added below, it is hotter than what follows
        self._stack.total -= int(tokens.sum())
        self._last[numbers] = len(self._times)
        self._times.append(at)
        self._stack.append(int(self._tokens[numbers].sum()))
        return int(tokens.sum())


class Fenwick:
    """Tokens by the call that used them last: sums over the first calls, in logarithmic time (Fenwick 1994)."""

    def __init__(self) -> None:
        self._tree = [0]
        self.total = 0

    def append(self, tokens: int) -> None:
        """The next call's."""
        i = len(self._tree)
        child, low = i - 1, i - (i & -i)
        value = tokens
        while child > low:
            value += self._tree[child]
            child -= child & -child
        self._tree.append(value)
        self.total += tokens

    def add(self, call: int, tokens: int) -> None:
        """Change one call's."""
        i = call + 1
        self.total += tokens
        while i < len(self._tree):
            self._tree[i] += tokens
            i += i & -i

    def until(self, call: int) -> int:
        """Of all calls up to and with this one."""
        i, total = call + 1, 0
        while i:
            total += self._tree[i]
            i -= i & -i
        return total
