"""How long steps take, in whole units of time: many add up in closed form to the last bit as one by one.

A step of D decodes that read K tokens of context takes `(fixed(D) + slope·K)·noise`, and the one after it, where
nothing began or ended, reads D tokens more. With the noise's running sums S₁(j) = Σ nᵢ and S₂(j) = Σ i·nᵢ over i < j,
the `count` steps from number p on take

    rate·ΔS₁ + slope·D·(ΔS₂ − p·ΔS₁),   where ΔS = S(p + count) − S(p)

which is exact in whole numbers, and costs the same for one step as for a thousand.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from agentload.box.gaps import Gaps
from agentload.box.presets import Preset
from agentload.box.request import Step

NOISE: Final = 2_048
"""Numbers of noise drawn at a time: each step takes the next, whether it is alone or one of many."""
GRAIN: Final = 16
"""Bits of a number of noise after the point: a step is off by 1e-5 of itself at most, and by nothing on average."""
FINE: Final = 44
"""Bits of a second in which the formula's parts are counted, 0.06 ps: a step is right to 1e-6 of itself."""
UNITS: Final = 2.0 ** (FINE + GRAIN)
"""Units of a second on the engine's clock."""
SECONDS: Final = 1.0 / UNITS


class Pace:
    """The clock of one engine, and the noise of its steps.

    `sigma` is the standard deviation of the logarithm of a step's time (mean kept); 0 makes it exact. The time of each
    step that has passed goes to `gaps`, once for each request that decoded in it.
    """

    def __init__(self, preset: Preset, rng: np.random.Generator, sigma: float, gaps: Gaps) -> None:
        self.preset, self.gaps = preset, gaps
        self._rng, self._sigma = rng, sigma
        self._slope = units(preset.context_ms)
        self._fixed: list[int] = []  # by decodes
        self._clock = 0  # when the last step ended
        self._ended = -1.0  # the same in seconds
        self._passed: list[float] = []  # in this noise, one after the other: steps, the first's rate, growth, decodes
        self._spent = self._folded = 0
        self._draw()

    @property
    def left(self) -> int:
        """Steps that can be taken together at most, as far as noise goes: one or more."""
        return NOISE - self._spent

    def take(self, step: Step, count: int, extra: float = 0.0) -> None:
        """Say when a step ends that begins at `step.start`, or `count` in a row; `extra` seconds know no noise."""
        decodes, fixed = step.decodes, self._fixed
        while len(fixed) <= decodes:
            fixed.append(units(self.preset.base_ms + self.preset.decode_ms * len(fixed)))
        rate = fixed[decodes] + self._slope * step.context
        if step.prefill or step.attention:
            rate += units(self.preset.prefill_ms * step.prefill + self.preset.attention_ms * step.attention)
        step.rate, step.growth = rate, self._slope * decodes
        step.extra = int(extra * UNITS)
        step.begun = (self._clock if step.start == self._ended else int(step.start * UNITS)) + step.extra
        self._keep(step, count)

    def at(self, step: Step, count: int) -> float:
        """When so many of a step's have ended (seconds)."""
        return (step.begun + self._sum(step, count)) * SECONDS

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
            rate += step.extra / self._each[self._spent]
            step.extra = 0
        self._passed += [count, rate, step.growth, step.decodes]
        if count == step.count:
            self._clock, self._ended = step.over, step.end
        else:
            step.begun += self._sum(step, count)
            step.start, step.count = step.begun * SECONDS, step.count - count
            step.rate += count * step.growth
            step.context += count * step.decodes
        self._spent += count
        if self._spent == NOISE:
            self.fold()
            self._draw()

    def fold(self) -> None:
        """Give `gaps` what has passed."""
        if not self._passed:
            return
        counts, rates, growths, decodes = np.array(self._passed, np.float64).reshape(-1, 4).T
        repeats = counts.astype(np.int64)
        stop = self._spent
        nth = np.arange(self._folded, stop) - np.repeat(self._folded + repeats.cumsum() - repeats, repeats)
        seconds = np.repeat(rates, repeats) + nth * np.repeat(growths, repeats)
        seconds *= self._noise[self._folded : stop]
        seconds *= SECONDS
        self.gaps.add(seconds, np.repeat(decodes, repeats))
        self._passed, self._folded = [], stop

    def _keep(self, step: Step, count: int) -> None:
        step.count, step.over = count, step.begun + self._sum(step, count)
        step.end = step.over * SECONDS

    def _sum(self, step: Step, count: int) -> int:
        """Units that the first `count` of a step's take."""
        spent = self._spent
        if count == 1:
            return step.rate * self._each[spent]
        sums, moments = self._sums, self._moments
        noise = sums[spent + count] - sums[spent]
        return step.rate * noise + step.growth * (moments[spent + count] - moments[spent] - spent * noise)

    def _first(self, step: Step, instant: float) -> int:
        """The first of a step's that does not end before an instant which is before the end of the last."""
        count = max(1, int(step.count * (instant - step.start) / (step.end - step.start)))  # near it
        while self.at(step, count) < instant:
            count += 1
        while count > 1 and self.at(step, count - 1) >= instant:
            count -= 1
        return count

    def _draw(self) -> None:
        """Have new noise."""
        noise = np.full(NOISE, 1 << GRAIN, np.int64)
        if self._sigma:
            drawn = self._rng.standard_normal(NOISE)
            noise = np.rint(np.exp(self._sigma * (drawn - 0.5 * self._sigma)) * (1 << GRAIN)).astype(np.int64)
        self._noise, self._each = noise, memoryview(noise.data)  # read one by one, it is twice as fast as an array
        self._sums, self._moments = running(noise), running(noise * _NUMBERS)
        self._spent = self._folded = 0


_NUMBERS: Final = np.arange(NOISE)


def running(numbers: NDArray[np.int64]) -> memoryview:
    """Sums of the first 0, 1, 2, … of some numbers."""
    sums = np.zeros(len(numbers) + 1, np.int64)
    numbers.cumsum(out=sums[1:])
    return memoryview(sums.data)


def units(ms: float) -> int:
    """Milliseconds in units of `FINE`."""
    return round(1e-3 * ms * 2.0**FINE)
