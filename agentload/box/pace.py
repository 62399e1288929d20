"""How long steps take, in whole units of time: many add up in closed form to the last bit as one by one.

A step of D decodes that read K tokens of context takes `(fixed(D) + slope·K)·noise`, and the one after it, where
nothing began or ended, reads D tokens more. With the noise's running sums S₁(j) = Σ nᵢ and S₂(j) = Σ i·nᵢ over i < j,
the `count` steps from number p on take

    rate·ΔS₁ + slope·D·(ΔS₂ − p·ΔS₁),   where ΔS = S(p + count) − S(p)

which is exact in whole numbers, and costs the same for one step as for a thousand.
"""

import functools
from array import array
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agentload.box.gaps import Gaps
from agentload.box.presets import Preset
from agentload.box.request import Step

NOISE: Final = 2_048
"""Numbers of noise taken at a time: each step takes the next, whether it is alone or one of many."""
NUMBERS: Final = 16_384
"""Numbers of noise there are. They are the same for every engine, whose own chance decides where in them it reads."""
GRAIN: Final = 12
"""Bits of a number of noise after the point: a step is off by 1e-4 of itself, and by nothing on average."""
FINE: Final = 44
"""Bits of a second in which the formula's parts are counted, 0.06 ps: a step is right to 1e-6 of itself."""
BITS: Final = FINE + GRAIN
UNITS: Final = 2.0**BITS
"""Units of a second on the engine's clock."""
SECONDS: Final = 1.0 / UNITS
PART: Final = (1 << BITS) - 1
_NUMBERS: Final = np.arange(NOISE, dtype=np.float64)
PER_MS: Final = 1e-3 * 2.0**FINE
HALF: Final = 28
LOW: Final = (1 << HALF) - 1


class Noise:
    """Numbers of mean 1 whose logarithms have the standard deviation `sigma`, in units of 2^-`GRAIN`; they go round, so
    that `NOISE` of them can be read from any place."""

    __slots__ = ("moments", "numbers", "sums")

    def __init__(self, sigma: float) -> None:
        drawn = np.exp(sigma * np.random.default_rng(0).standard_normal(NUMBERS))
        numbers = np.rint(drawn / drawn.mean() * (1 << GRAIN)).astype(np.int64)
        self.numbers: NDArray[np.int64] = np.concatenate((numbers, numbers[:NOISE]))
        self.sums = running(self.numbers)
        self.moments = running(self.numbers * np.arange(NUMBERS + NOISE))


@functools.lru_cache(8)
def noise(sigma: float) -> Noise:
    return Noise(sigma)


class Pace:
    """The clock of one engine, and the noise of its steps.

    `sigma` is the standard deviation of the logarithm of a step's time (mean kept); 0 makes it exact. The time of each
    step that has passed goes to `gaps`, once for each request that decoded in it.
    """

    def __init__(self, preset: Preset, rng: np.random.Generator, sigma: float, gaps: Gaps) -> None:
        self.preset, self.gaps = preset, gaps
        self._rng, self._noise = rng, noise(sigma)
        self._sums, self._moments = self._noise.sums, self._noise.moments
        self._sum_before = self._moment_before = 0  # of what is spent
        self._prefill_ms, self._attention_ms = preset.prefill_ms, preset.attention_ms
        self._slope = units(preset.context_ms)
        self._fixed: list[int] = []  # by decodes
        self._second = 0.0  # the whole one that the clock counts from: its numbers stay small, and are fast
        self._clock = 0  # when the last step ended
        self._ended = -1.0  # the same in seconds
        self._spent = self._folded = self._stop = 0  # in the noise: the next number, the next for `fold`, the end
        self._passed: list[float] = []  # since the last `fold`, one after the other: steps, the first's rate, decodes
        self._draw()

    @property
    def left(self) -> int:
        """Steps that can be taken together at most, as far as noise goes: one or more."""
        return self._stop - self._spent

    def take(self, step: Step, count: int, extra: float = 0.0) -> None:
        """Say when a step ends that begins at `step.start`, or `count` in a row; `extra` seconds know no noise."""
        decodes, fixed = step.decodes, self._fixed
        while len(fixed) <= decodes:
            fixed.append(units(self.preset.base_ms + self.preset.decode_ms * len(fixed)))
        rate = fixed[decodes] + self._slope * step.context
        if step.prefill or step.attention:
            rate += units(self._prefill_ms * step.prefill + self._attention_ms * step.attention)
        step.rate, step.growth = rate, self._slope * decodes
        step.extra = int(extra * UNITS)
        if step.start != self._ended:
            second = int(step.start)
            self._second, self._clock = float(second), int((step.start - second) * UNITS)
        step.begun = self._clock + step.extra
        self._keep(step, count)

    def at(self, step: Step, count: int) -> float:
        """When so many of a step's have ended (seconds)."""
        return self._seconds(step.begun + self._sum(step, count))

    def shorten(self, step: Step, instant: float) -> None:
        """Let a step that is several in a row end at the first of its ends that is not before `instant`."""
        if instant < step.end:
            self.cut(step, self._first(step, instant))

    def ended(self, step: Step, instant: float) -> int:
        """How many of a step's have ended at an instant."""
        if instant >= step.end:
            return step.count
        count = self._first(step, instant)
        return count if self.at(step, count) <= instant else count - 1

    def cut(self, step: Step, count: int) -> None:
        """Keep the first `count` of a step's, one or more."""
        if count < step.count:
            self._keep(step, count)

    def passed(self, step: Step, count: int) -> None:
        """The first `count` of a step's are over; it goes on with the rest, if there is one."""
        rate = float(step.rate)
        if step.extra:  # before the first: counted as if noise had been in it
            rate += step.extra / (self._sums[self._spent + 1] - self._sum_before)
            step.extra = 0
        self._passed += [count, rate, step.decodes]
        if count == step.count:
            self._second += step.over >> BITS
            self._clock, self._ended = step.over & PART, step.end
        else:
            step.begun += self._sum(step, count)
            step.start, step.count = self._seconds(step.begun), step.count - count
            step.rate += count * step.growth
            step.context += count * step.decodes
        self._spend(self._spent + count)
        if self._spent == self._stop:
            self.fold()
            self._draw()

    def fold(self) -> None:
        """Give `gaps` what has passed."""
        if not self._passed:
            return
        counts, rates, decodes = np.frombuffer(array("d", self._passed)).reshape(-1, 3).T
        repeats, stop = counts.astype(np.int64), self._spent
        growths = SECONDS * self._slope * decodes
        rates = SECONDS * rates - (counts.cumsum() - counts) * growths  # as if there had been no step before the first
        seconds = _NUMBERS[: stop - self._folded] * np.repeat(growths, repeats)
        seconds += np.repeat(rates, repeats)
        seconds *= self._noise.numbers[self._folded : stop]
        self.gaps.add(seconds, np.repeat(decodes, repeats))
        self._passed, self._folded = [], stop

    def _keep(self, step: Step, count: int) -> None:
        step.count, step.over = count, step.begun + self._sum(step, count)
        step.end = self._seconds(step.over)

    def _seconds(self, units: int) -> float:
        """The clock's units as seconds: rounded the same, however many whole seconds are among them."""
        return self._second + (units >> BITS) + (units & PART) * SECONDS

    def _sum(self, step: Step, count: int) -> int:
        """Units that the first `count` of a step's take."""
        spent = self._spent
        noise = self._sums[spent + count] - self._sum_before
        taken = times(step.rate, noise)
        if count > 1:
            taken += step.growth * (self._moments[spent + count] - self._moment_before - spent * noise)
        return taken

    def _first(self, step: Step, instant: float) -> int:
        """The first of a step's that does not end before an instant which is before the end of the last."""
        count = max(1, int(step.count * (instant - step.start) / (step.end - step.start)))  # near it
        while self.at(step, count) < instant:
            count += 1
        while count > 1 and self.at(step, count - 1) >= instant:
            count -= 1
        return count

    def _draw(self) -> None:
        """Read noise from another place."""
        self._folded = int(self._rng.integers(NUMBERS))
        self._stop = self._folded + NOISE
        self._spend(self._folded)

    def _spend(self, place: int) -> None:
        """What comes before that place in the noise is over."""
        self._spent, self._sum_before, self._moment_before = place, self._sums[place], self._moments[place]


def running(numbers: NDArray[np.int64]) -> "array[int]":
    """Sums of the first 0, 1, 2, … of some numbers. In an array: those of a list lie all over the memory."""
    return array("q", np.concatenate(([0], numbers.cumsum())).tobytes())


def times(large: int, small: int) -> int:
    """Their product, in two: compiled, one of numbers beyond 2^30 costs ten times as much."""
    return ((large >> HALF) * small << HALF) + (large & LOW) * small


def units(ms: float) -> int:
    """Milliseconds, 0 or more, in units of `FINE`."""
    return int(ms * PER_MS + 0.5)
