"""Open loop: the instants at which sessions start, whatever the replies do.

Each profile is a point process. `arrivals(duration, rng, scale)` draws it on [0, duration) as a sorted float64 array of
seconds; `scale` multiplies its rate and leaves its shape alone (`scaled` in `loadprofiles.algebra` uses it).
`mean(duration, scale)` is its expected rate over that window, in sessions per second.

The run looks in on a process that has always been going on: random ones start in their stationary state, so the rate is
right from the first second. Nothing here rescales gaps to hit a count; what is named is what is drawn.
"""

import itertools
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, ClassVar, NoReturn, TypeAlias

import numpy as np
from msgspec import Meta, Struct
from numpy.random import Generator
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Seconds = Annotated[float, Meta(gt=0, lt=1e12)]
Instant = Annotated[float, Meta(ge=0, lt=1e12)]  # seconds after the profile's start
Rate = Annotated[float, Meta(gt=0, lt=1e12)]  # sessions, or events, per second
RateOrZero = Annotated[float, Meta(ge=0, lt=1e12)]
Variation = Annotated[float, Meta(gt=0, le=100)]  # standard deviation of the gaps over their mean

BURN_IN = 20.0
"""Relaxation times that a Hawkes process runs before zero: what is missing of the stationary rate is below e^-20."""

BINS = 256
"""Constant pieces per period under which a diurnal rate is thinned; even, so that peak and trough are both edges."""


class OpenLoop(Struct, frozen=True, forbid_unknown_fields=True):
    """Sessions that start at instants of their own."""

    closed: ClassVar[bool] = False

    def arrivals(self, duration: float, rng: Generator, scale: float = 1.0) -> Array:
        """Sorted start times in [0, duration), seconds."""
        raise NotImplementedError

    def population(self, duration: float, scale: float = 1.0) -> NoReturn:
        """Raises TypeError: nobody holds a population here."""
        raise TypeError(f"{type(self).__name__} is open loop: ask it for arrivals(), not for population()")

    def mean(self, duration: float, scale: float = 1.0) -> float:
        """Sessions per second, on average over [0, duration)."""
        raise NotImplementedError


class Constant(OpenLoop, frozen=True, tag="constant"):
    """One session every 1/rate seconds, the first at 0."""

    rate: Rate

    def arrivals(self, duration: float, rng: Generator, scale: float = 1.0) -> Array:
        """Multiples of the gap; `rng` is not used."""
        rate = self.rate * scale
        times = np.arange(math.ceil(rate * duration)) / rate
        return times[times < duration]  # rate * duration may round up to one too many

    def mean(self, duration: float, scale: float = 1.0) -> float:
        return self.rate * scale


class Poisson(OpenLoop, frozen=True, tag="poisson"):
    """Memoryless arrivals: gaps are exponential, counts have an index of dispersion of 1 at every window."""

    rate: Rate

    def arrivals(self, duration: float, rng: Generator, scale: float = 1.0) -> Array:
        return ordered_uniforms(rng.poisson(self.rate * scale * duration), duration, rng)

    def mean(self, duration: float, scale: float = 1.0) -> float:
        return self.rate * scale


class Gamma(OpenLoop, frozen=True, tag="gamma"):
    """Renewal process with gamma gaps: shape 1/cv², mean 1/rate. Bursty for cv > 1, paced for cv < 1.

    Stationary (equilibrium) renewal: the first arrival is a uniform part of a length-biased gap, which for a gamma is a
    gamma of shape + 1 (Cox, Renewal Theory, 1962, §5.2). An ordinary one would start (cv² - 1)/2 sessions too rich.
    """

    rate: Rate
    cv: Variation

    def arrivals(self, duration: float, rng: Generator, scale: float = 1.0) -> Array:
        rate = self.rate * scale
        shape = self.cv**-2
        first = rng.uniform() * rng.gamma(shape + 1.0, 1.0 / (rate * shape))
        return renewals(duration, rate, self.cv, first, lambda n: rng.gamma(shape, 1.0 / (rate * shape), n))

    def mean(self, duration: float, scale: float = 1.0) -> float:
        return self.rate * scale


class Weibull(OpenLoop, frozen=True, tag="weibull"):
    """Renewal process with Weibull gaps of mean 1/rate, whose shape follows from the cv.

    Stationary like `Gamma`: if X is Weibull of shape k, the k-th power of its length-biased version is a gamma of shape
    1 + 1/k (put y = x^k in x f(x)).
    """

    rate: Rate
    cv: Variation

    def arrivals(self, duration: float, rng: Generator, scale: float = 1.0) -> Array:
        rate = self.rate * scale
        shape = weibull_shape(self.cv)
        unit = 1.0 / (rate * math.gamma(1.0 + 1.0 / shape))
        first = rng.uniform() * unit * rng.gamma(1.0 + 1.0 / shape) ** (1.0 / shape)

        def gaps(n: int) -> Array:
            return unit * rng.weibull(shape, n)

        return renewals(duration, rate, self.cv, first, gaps)

    def mean(self, duration: float, scale: float = 1.0) -> float:
        return self.rate * scale


class MMPP(OpenLoop, frozen=True, tag="mmpp"):
    """Two-state Markov-modulated Poisson process: calm and burst, say.

    In state i arrivals are Poisson at rates[i], and it lasts 1/switching[i] seconds on average (exponential). Starts in
    the stationary mix of states. With rates λ and switching r per second (Fischer and Meier-Hellstern 1993),
    IDC(∞) = 1 + 2(λ1 - λ2)² r1 r2 / ((r1 + r2)² (λ1 r2 + λ2 r1)).
    """

    rates: tuple[RateOrZero, RateOrZero]
    switching: tuple[Rate, Rate]

    def arrivals(self, duration: float, rng: Generator, scale: float = 1.0) -> Array:
        state = int(rng.uniform() >= self.switching[1] / sum(self.switching))
        stay = 1.0 / np.array([self.switching[state], self.switching[1 - state]])
        edges = np.zeros(1)
        while edges[-1] < duration:
            cycles = int(1.1 * (duration - edges[-1]) / stay.sum()) + 8
            dwells = rng.exponential(stay, (cycles, 2)).ravel()
            edges = np.concatenate([edges, edges[-1] + np.cumsum(dwells)])  # an even number more, so the phase is kept
        edges = np.append(edges[: np.searchsorted(edges, duration)], duration)
        levels = np.resize([self.rates[state], self.rates[1 - state]], edges.size - 1) * scale
        return inhomogeneous(np.repeat(edges, 2)[1:-1], np.repeat(levels, 2), rng)

    def mean(self, duration: float, scale: float = 1.0) -> float:
        (a, b), (leave_a, leave_b) = self.rates, self.switching
        return (a * leave_b + b * leave_a) / (leave_a + leave_b) * scale


class Hawkes(OpenLoop, frozen=True, tag="hawkes"):
    """Self-exciting arrivals: each session brings on `branching` others, on average, within about 1/decay seconds.

    λ(t) = μ + Σ n β exp(-β (t - tᵢ)) with n = branching, β = decay (per second), μ = rate (1 - n), so that `rate` is
    the long-run mean of all sessions (Hawkes 1971). IDC(∞) = 1/(1 - n)².
    """

    rate: Rate
    branching: Annotated[float, Meta(ge=0, lt=1)]
    decay: Rate

    def arrivals(self, duration: float, rng: Generator, scale: float = 1.0) -> Array:
        """Drawn as clusters (Hawkes and Oakes 1974), one generation at a time: immigrants are Poisson, each session has
        Poisson(n) children, each Exp(β) later. Begins empty `BURN_IN` / (β (1 - n)) seconds before zero."""
        calm = 1.0 - self.branching
        start = -BURN_IN / (self.decay * calm)
        count = rng.poisson(self.rate * scale * calm * (duration - start))
        generation = rng.uniform(start, duration, count)
        seen = [generation[generation >= 0.0]]
        while generation.size:
            parents = np.repeat(generation, rng.poisson(self.branching, generation.size))
            born = parents + rng.exponential(1.0 / self.decay, parents.size)
            generation = born[born < duration]  # what is born later has its children later still
            seen.append(generation[generation >= 0.0])
        return np.sort(np.concatenate(seen))

    def mean(self, duration: float, scale: float = 1.0) -> float:
        return self.rate * scale


class Diurnal(OpenLoop, frozen=True, tag="diurnal"):
    """Poisson arrivals whose rate swings with the time of day.

    rate(t) = rate · exp(κ cos(2π (t - peak_at)/period)) / I₀(κ), the bell on a circle (von Mises), since measured days
    peak at 1.9 to 3.3 times their mean (ServeGen) and a plain sine ends at 2. κ follows from `peak`.
    """

    rate: Rate  # mean over a whole period
    peak: Annotated[float, Meta(ge=1, le=20)] = 2.0  # highest rate over mean rate
    period: Seconds = 86_400.0
    peak_at: Instant = 43_200.0  # seconds after the start

    def arrivals(self, duration: float, rng: Generator, scale: float = 1.0) -> Array:
        """Drawn by thinning (Lewis and Shedler 1979) under a staircase close to the curve, so few are drawn in vain."""
        if duration <= 0.0:
            return np.empty(0)
        step = self.period / BINS
        start = self.peak_at % step - step  # edges fall on peaks and troughs, so the curve is monotone between two
        edges = start + step * np.arange(math.ceil((duration - start) / step) + 1, dtype=np.float64)
        curve = self.rate_at(edges) * scale
        ceiling = np.maximum(curve[1:], curve[:-1])
        times = inhomogeneous(np.repeat(edges, 2)[1:-1], np.repeat(ceiling, 2), rng)
        times = times[np.searchsorted(times, 0.0) : np.searchsorted(times, duration)]
        bins = np.minimum(((times - start) / step).astype(np.intp), ceiling.size - 1)
        return times[rng.uniform(size=times.size) * ceiling[bins] < self.rate_at(times) * scale]

    def rate_at(self, times: Array) -> Array:
        """Sessions per second at each of `times`."""
        kappa = von_mises_kappa(self.peak)
        phase = (times - self.peak_at) * (2.0 * math.pi / self.period)
        level: Array = np.exp(kappa * np.cos(phase)) * (self.rate / np.i0(kappa))
        return level

    def mean(self, duration: float, scale: float = 1.0) -> float:
        """Whole periods exactly, the rest by the midpoint rule."""
        rest = duration % self.period
        middles = (np.arange(4096, dtype=np.float64) + 0.5) * (rest / 4096)
        in_rest = float(self.rate_at(middles).mean()) * rest
        return (self.rate * (duration - rest) + in_rest) / duration * scale


class Piecewise(OpenLoop, frozen=True, tag="piecewise"):
    """Poisson arrivals whose rate runs in straight lines through (seconds, sessions per second) points.

    Before the first and after the last point the rate is theirs; two points at one instant are a jump.
    """

    points: Annotated[tuple[tuple[Instant, RateOrZero], ...], Meta(min_length=1)]

    def __post_init__(self) -> None:
        require_order(self.points)

    def arrivals(self, duration: float, rng: Generator, scale: float = 1.0) -> Array:
        times, rates = self.curve(duration)
        return inhomogeneous(times, rates * scale, rng)

    def curve(self, duration: float) -> tuple[Array, Array]:
        """The points that draw the rate over [0, duration], both ends included."""
        times, rates = np.array([(0.0, self.points[0][1]), *self.points]).T
        inside = int(np.searchsorted(times, duration))
        end = rates[-1]
        if 0 < inside < times.size:
            end = np.interp(duration, times[inside - 1 : inside + 1], rates[inside - 1 : inside + 1])
        return np.append(times[:inside], duration), np.append(rates[:inside], end)

    def mean(self, duration: float, scale: float = 1.0) -> float:
        times, rates = self.curve(duration)
        return float(np.trapezoid(rates, times)) / duration * scale


class Recorded(OpenLoop, frozen=True, tag="recorded"):
    """Sessions start when they did in a recording, `speed` times as fast; the first starts at 0.

    `times` are seconds on any clock, in any order. A recording named by `file` is put into `times` by
    `loadprofiles.load`; nothing here opens a file.
    """

    times: tuple[float, ...] = ()
    file: str = ""
    speed: Rate = 1.0  # times as fast as it was
    repeat: bool = False  # start over when it ends, one mean gap after its last session

    def __post_init__(self) -> None:
        if not self.times and not self.file:
            raise ValueError("times must hold one session start or more, got none; list them or name a `file`")
        if not all(map(math.isfinite, self.times)):
            raise ValueError("times must be finite seconds, got inf or nan among them; remove those")
        if self.repeat and self.times and min(self.times) == max(self.times):
            raise ValueError(f"repeat needs two different times, got only {self.times[0]:g}; add one or drop repeat")

    def arrivals(self, duration: float, rng: Generator, scale: float = 1.0) -> Array:
        """The recording itself; `rng` is not used. `scale` plays it that much faster."""
        if not self.times:
            raise ValueError(f"recorded: file {self.file!r} has not been read yet; loadprofiles.load reads it")
        speed = self.speed * scale
        times = np.sort(np.array(self.times))
        times -= times[0]
        if self.repeat:
            period = times[-1] * times.size / (times.size - 1)
            times = (times + period * np.arange(math.ceil(duration * speed / period))[:, np.newaxis]).ravel()
        times /= speed
        return times[times < duration]

    def mean(self, duration: float, scale: float = 1.0) -> float:
        return self.arrivals(duration, np.random.default_rng(0), scale).size / duration


def ordered_uniforms(n: int, high: float, rng: Generator) -> Array:
    """`n` uniform draws from [0, high), sorted, without sorting.

    Exact: sums of n + 1 exponential gaps over their total are distributed as the order statistics of n uniforms
    (Devroye, Non-Uniform Random Variate Generation, 1986, ch. V, theorem 2.2). Five times faster than sorting.
    """
    sums: Array = np.cumsum(rng.standard_exponential(n + 1))
    sums *= high / sums[-1]
    return sums[:-1]


def renewals(duration: float, rate: float, cv: float, first: float, gaps: Callable[[int], Array]) -> Array:
    """`first` and then one arrival after each gap, up to `duration`; `gaps(n)` draws n gaps with mean 1/rate."""
    times, last = [np.array([first])], first
    while last < duration:
        expected = rate * (duration - last)
        more = np.cumsum(gaps(16 + int(expected + 4.0 * cv * math.sqrt(expected) + cv * cv)))
        more += last
        times.append(more)
        last = float(more[-1])
    joined = np.concatenate(times)
    return joined[: np.searchsorted(joined, duration)]


def inhomogeneous(times: Array, rates: Array, rng: Generator) -> Array:
    """Poisson arrivals whose rate is linear between the points (times, rates); two points at one time are a jump.

    Exact, by inverting the integrated rate Λ (Çinlar, Introduction to Stochastic Processes, 1975, ch. 4.7): arrivals
    of a unit-rate process on [0, Λ(end)) are mapped back. On a piece with starting rate a and slope b, a residue u of Λ
    lies 2u / (a + sqrt(a² + 2bu)) seconds in, the form of the root that does not cancel.
    """
    widths = np.diff(times)
    slopes = np.divide(np.diff(rates), widths, out=np.zeros(widths.size), where=widths > 0.0)
    integrated = np.append(0.0, np.cumsum(0.5 * (rates[1:] + rates[:-1]) * widths))
    residue = ordered_uniforms(rng.poisson(integrated[-1]), float(integrated[-1]), rng)
    counts = np.diff(np.searchsorted(residue, integrated))
    residue -= np.repeat(integrated[:-1], counts)
    start_rates = np.repeat(rates[:-1], counts)
    root = np.sqrt(np.maximum(start_rates**2 + 2.0 * np.repeat(slopes, counts) * residue, 0.0))
    inside: Array = 2.0 * residue / (start_rates + root)
    return np.repeat(times[:-1], counts) + np.minimum(inside, np.repeat(widths, counts))


def weibull_shape(cv: float) -> float:
    """The shape k of a Weibull with this cv: CV² = Γ(1+2/k)/Γ(1+1/k)² - 1, which falls in k."""

    def squared_cv(k: float) -> float:
        return math.expm1(math.lgamma(1.0 + 2.0 / k) - 2.0 * math.lgamma(1.0 + 1.0 / k))

    return bisect(lambda log_k: cv * cv - squared_cv(math.exp(log_k)), math.log(0.05), math.log(1e7), math.exp)


@lru_cache(maxsize=64)  # solved once for each ratio, not once for each draw
def von_mises_kappa(peak: float) -> float:
    """The concentration κ of a von Mises bell whose peak is `peak` times its mean: exp(κ)/I₀(κ), which rises in κ."""
    return bisect(lambda kappa: math.exp(kappa) / float(np.i0(kappa)) - peak, 0.0, 100.0, float)


def bisect(f: Callable[[float], float], low: float, high: float, result: Callable[[float], float]) -> float:
    """`result` of the zero of the rising function `f` between `low` and `high`, to the last bits."""
    for _ in range(80):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if f(middle) < 0.0 else (low, middle)
    return result(0.5 * (low + high))


def require_order(points: tuple[tuple[float, float], ...]) -> None:
    """Raise ValueError unless the points' instants never go back."""
    for (before, _), (after, _) in itertools.pairwise(points):
        if after < before:
            raise ValueError(f"points must be in order of time: {after:g} s comes after {before:g} s; sort them")
