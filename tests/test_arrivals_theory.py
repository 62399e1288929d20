"""Arrival processes against their theory: counts, spacings, rates. Tolerances are five standard errors."""

import math

import numpy as np
import pytest
from numpy.random import Generator
from numpy.typing import NDArray
from pytest import approx

from loadprofiles import MMPP, Constant, Diurnal, Gamma, Hawkes, Piecewise, Poisson, Profile, Recorded, Weibull
from loadprofiles.arrivals import weibull_shape

Array = NDArray[np.float64]
RUNS = 3_000


@pytest.fixture
def rng() -> Generator:
    return np.random.default_rng(20_260_316)


def counts(profile: Profile, windows: list[float], rng: Generator, runs: int = RUNS) -> Array:
    """Arrivals in [0, w) for each window (columns) of independent runs (rows)."""
    return np.array([np.searchsorted(profile.arrivals(max(windows), r), windows) for r in rng.spawn(runs)], dtype=float)


def dispersion(n: Array) -> tuple[float, float]:
    """Index of dispersion of counts, and its standard error by the delta method."""
    mean, variance = n.mean(), n.var()
    influence = ((n - mean) ** 2 - variance) / mean - variance / mean**2 * (n - mean)
    return variance / mean, influence.std() / math.sqrt(n.size)


def assert_dispersion(n: Array, theory: float) -> None:
    index, error = dispersion(n)
    assert index == approx(theory, abs=5 * error)
    assert error < 0.05 * max(theory, 1.0)  # else this could not fail


def assert_mean(n: Array, theory: float) -> None:
    assert n.mean() == approx(theory, abs=5 * n.std() / math.sqrt(n.size))


def assert_ks(samples: Array, cdf: Array) -> None:
    """Kolmogorov-Smirnov at a level of one in a million (2.69 / sqrt n); `cdf` is the theory at the sorted samples."""
    n = samples.size
    steps = np.arange(n + 1) / n
    assert max((cdf - steps[:-1]).max(), (steps[1:] - cdf).max()) < 2.69 / math.sqrt(n)


def gaps(profile: Profile, n: int, rate: float, rng: Generator) -> Array:
    """The first n gaps after the first arrival, sorted; the window is far longer, so that no long gap is cut away."""
    times = profile.arrivals(4 * n / rate, rng)
    assert times.size > 2 * n
    return np.sort(np.diff(times[: n + 1]))


def gamma_cdf(x: Array, shape: float) -> Array:
    """Regularised lower incomplete gamma, by its series (Abramowitz and Stegun 6.5.29)."""
    term = np.exp(shape * np.log(x) - x - math.lgamma(shape + 1))
    total = term.copy()
    for k in range(1, 200):
        term = term * x / (shape + k)
        total += term
    return total


def test_poisson_counts_have_dispersion_one_at_every_window(rng: Generator) -> None:
    n = counts(Poisson(rate=20), [0.5, 5, 60], rng)

    for column, window in zip(n.T, [0.5, 5, 60], strict=True):
        assert_mean(column, 20 * window)
        assert_dispersion(column, 1.0)


def test_poisson_gaps_are_exponential(rng: Generator) -> None:
    x = gaps(Poisson(rate=4), 20_000, 4, rng)

    assert_ks(x, -np.expm1(-4 * x))


def test_poisson_counts_of_neighbouring_windows_are_independent(rng: Generator) -> None:
    n = counts(Poisson(rate=5), [10, 20], rng)

    assert abs(np.corrcoef(n[:, 0], n[:, 1] - n[:, 0])[0, 1]) < 5 / math.sqrt(RUNS)


def test_gamma_gaps_are_gamma(rng: Generator) -> None:
    x = gaps(Gamma(rate=4, cv=2), 20_000, 4, rng)

    assert_ks(x[x > 0], gamma_cdf(x[x > 0] * 4 * 0.25, 0.25))


def test_weibull_gaps_are_weibull(rng: Generator) -> None:
    x = gaps(Weibull(rate=4, cv=math.sqrt(5)), 20_000, 4, rng)  # shape 1/2: mean is 2 units

    assert_ks(x, -np.expm1(-np.sqrt(8 * x)))


@pytest.mark.parametrize(("cv", "shape"), [(1.0, 1.0), (math.sqrt(5), 0.5), (math.sqrt(4 / math.pi - 1), 2.0)])
def test_weibull_shape_is_solved_from_the_cv(cv: float, shape: float) -> None:
    assert weibull_shape(cv) == approx(shape, rel=1e-9)


def test_weibull_shape_holds_its_equation_from_paced_to_wild() -> None:
    for cv in (0.01, 0.3, 3.0, 13.0, 100.0):
        k = weibull_shape(cv)

        assert math.expm1(math.lgamma(1 + 2 / k) - 2 * math.lgamma(1 + 1 / k)) == approx(cv**2, rel=1e-6)


def test_gamma_counts_disperse_as_equilibrium_erlang_theory_says_at_every_window(rng: Generator) -> None:
    windows = [0.1, 0.5, 2.0, 20.0]
    stage = 2 * 5.0  # gamma of cv 1/√2 is Erlang-2: two stages of rate 10 make a mean of 1/5 s

    n = counts(Gamma(rate=5, cv=math.sqrt(0.5)), windows, rng)

    for column, w in zip(n.T, windows, strict=True):
        assert_mean(column, 5 * w)
        assert_dispersion(column, (stage * w / 4 - math.expm1(-2 * stage * w) / 8) / (stage * w / 2))


@pytest.mark.parametrize(
    ("profile", "third"),
    [
        (Gamma(rate=5, cv=2), 2 / 0.25**2),
        (Weibull(rate=5, cv=math.sqrt(5)), 720 / 8 - 3 * 6 + 2),  # shape 1/2: raw moments of gap/mean are 1, 6, 90
    ],
)
def test_bursty_renewals_disperse_by_cv_squared(profile: Gamma | Weibull, third: float, rng: Generator) -> None:
    n = counts(profile, [1.0, 200.0], rng)

    assert_mean(n[:, 0], 5)  # an ordinary renewal process would have (cv² - 1)/2 more
    assert_mean(n[:, 1], 1_000)
    constant = 1 / 6 + profile.cv**4 / 2 - third / 3  # Cox 1962, §4.5, for the equilibrium process
    assert_dispersion(n[:, 1], profile.cv**2 + constant / 1_000)


def test_first_gamma_arrival_is_in_equilibrium(rng: Generator) -> None:
    profile = Gamma(rate=5, cv=math.sqrt(0.5))

    x = np.sort([profile.arrivals(20, r)[0] for r in rng.spawn(RUNS)])

    assert_ks(x, 1 - np.exp(-10 * x) * (1 + 5 * x))


def test_first_weibull_arrival_is_in_equilibrium(rng: Generator) -> None:
    profile = Weibull(rate=5, cv=math.sqrt(5))

    x = np.sort([profile.arrivals(100, r)[0] for r in rng.spawn(RUNS)])

    s = np.sqrt(x * 10)
    assert_ks(x, 1 - (1 + s) * np.exp(-s))


def test_mmpp_counts_disperse_as_theory_says_at_every_window(rng: Generator) -> None:
    (a, b), (leave_a, leave_b), windows = (2.0, 30.0), (0.5, 2.0), [0.1, 1.0, 10.0, 100.0]
    total = leave_a + leave_b
    mean = (a * leave_b + b * leave_a) / total
    limit = 2 * (a - b) ** 2 * leave_a * leave_b / (total**2 * (a * leave_b + b * leave_a))

    n = counts(MMPP((a, b), (leave_a, leave_b)), windows, rng, 6_000)

    for column, w in zip(n.T, windows, strict=True):
        assert_mean(column, mean * w)
        assert_dispersion(column, 1 + limit * (1 + math.expm1(-total * w) / (total * w)))


def test_interrupted_poisson_gaps_are_hyperexponential(rng: Generator) -> None:
    on, leave_on, leave_off = 10.0, 1.0, 0.25
    both = on + leave_on + leave_off  # Kuczura 1973
    root = math.sqrt(both**2 - 4 * on * leave_off)
    fast, slow = (both + root) / 2, (both - root) / 2
    share = (on - slow) / (fast - slow)

    x = gaps(MMPP((0.0, on), (leave_off, leave_on)), 20_000, 2.0, rng)

    assert_ks(x, 1 - share * np.exp(-fast * x) - (1 - share) * np.exp(-slow * x))


def test_hawkes_disperses_by_one_over_one_minus_n_squared_at_sixty_seconds(rng: Generator) -> None:
    n = counts(Hawkes(rate=20, branching=0.6, decay=20), [60.0], rng)

    assert_mean(n[:, 0], 1_200)
    assert_dispersion(n[:, 0], 6.25)


def test_hawkes_counts_disperse_as_theory_says_at_every_window(rng: Generator) -> None:
    branching, decay, windows = 0.6, 1.0, [0.5, 2.0, 10.0, 60.0]
    calm = decay * (1 - branching)
    limit = branching * (2 - branching) / (1 - branching) ** 2  # Hawkes 1971, for an exponential kernel

    n = counts(Hawkes(rate=5, branching=branching, decay=decay), windows, rng)

    for column, w in zip(n.T, windows, strict=True):
        assert_mean(column, 5 * w)  # also in the first half second: it starts stationary
        assert_dispersion(column, 1 + limit * (1 + math.expm1(-calm * w) / (calm * w)))


def test_hawkes_in_its_own_time_is_poisson(rng: Generator) -> None:
    rate, n, beta = 5.0, 0.7, 0.5
    times = Hawkes(rate=rate, branching=n, decay=beta).arrivals(5_000, rng)
    excited, compensator = 0.0, []

    for gap in np.diff(times):  # integrated intensity between arrivals (time rescaling theorem)
        excited += n
        after = excited * math.exp(-beta * gap)
        compensator.append(rate * (1 - n) * gap + excited - after)
        excited = after

    x = np.sort(compensator[500:])  # by then what came before zero is forgotten
    assert_ks(x, -np.expm1(-x))


def test_hawkes_without_children_is_poisson(rng: Generator) -> None:
    x = gaps(Hawkes(rate=4, branching=0, decay=1), 20_000, 4, rng)

    assert_ks(x, -np.expm1(-4 * x))


def test_diurnal_rate_follows_its_curve_over_a_day_and_a_bit(rng: Generator) -> None:
    day, peak_at, kappa = 1_000.0, 300.0, 1.2
    peak = math.exp(kappa) / float(np.i0(kappa))
    duration = 1.37 * day
    edges = np.linspace(0, duration, 41)
    t = (np.arange(40 * 500) + 0.5) * (duration / 20_000)
    rate = 3_000 * np.exp(kappa * np.cos(2 * math.pi * (t - peak_at) / day)) / np.i0(kappa)
    expected = rate.reshape(40, 500).sum(axis=1) * (duration / 20_000)
    profile = Diurnal(rate=3_000, peak=peak, period=day, peak_at=peak_at)  # so many that 0.5 % off would show

    observed = np.histogram(profile.arrivals(duration, rng), edges)[0]

    chi_square = ((observed - expected) ** 2 / expected).sum()
    assert chi_square == approx(40, abs=5 * math.sqrt(2 * 40))
    assert profile.mean(duration) == approx(expected.sum() / duration, rel=1e-6)
    assert profile.mean(3 * day) == approx(3_000, rel=1e-9)


def test_diurnal_peaks_at_its_ratio() -> None:
    rates = Diurnal(rate=10, peak=3.3, period=100, peak_at=25).rate_at(np.arange(100.0))

    assert rates.max() == rates[25] == approx(33)
    assert rates.min() == rates[75]
    assert rates.mean() == approx(10)


def test_flat_diurnal_is_poisson(rng: Generator) -> None:
    x = gaps(Diurnal(rate=4, peak=1, period=100), 20_000, 4, rng)

    assert_ks(x, -np.expm1(-4 * x))


def test_piecewise_arrivals_follow_ramps_jumps_and_pauses(rng: Generator) -> None:
    profile = Piecewise(((0, 0), (10, 400), (20, 400), (20, 0), (30, 0), (30, 200)))

    times = profile.arrivals(40, rng)

    ramp = np.sort(times[times < 10])
    assert ramp.size == approx(2_000, abs=5 * math.sqrt(2_000))
    assert_ks(ramp, (ramp / 10) ** 2)
    flat = times[(times >= 10) & (times < 20)]
    assert flat.size == approx(4_000, abs=5 * math.sqrt(4_000))
    assert_ks(flat, (flat - 10) / 10)
    assert not np.any((times >= 20) & (times < 30))
    assert np.sum(times >= 30) == approx(2_000, abs=5 * math.sqrt(2_000))
    assert profile.mean(40) == approx(8_000 / 40)
    assert profile.mean(5) == approx(100)  # cut on the ramp: 0 to 200


def test_constant_starts_at_zero_and_keeps_its_gap(rng: Generator) -> None:
    assert Constant(rate=2).arrivals(2.4, rng).tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert Constant(rate=2).arrivals(2.0, rng).tolist() == [0.0, 0.5, 1.0, 1.5]


def test_recording_starts_at_zero_and_is_played_at_its_speed(rng: Generator) -> None:
    recorded = Recorded(times=(1_000.0, 1_008.0, 1_002.0, 1_100.0), speed=2)

    assert recorded.arrivals(40, rng).tolist() == [0.0, 1.0, 4.0]
    assert recorded.mean(40) == 3 / 40


def test_recording_repeats_after_one_mean_gap(rng: Generator) -> None:
    assert Recorded(times=(5, 6, 9), repeat=True).arrivals(13, rng).tolist() == [0, 1, 4, 6, 7, 10, 12]


ALL = [
    Constant(3.0),
    Poisson(3.0),
    Gamma(3.0, cv=3),
    Weibull(3.0, cv=0.2),
    MMPP((1.0, 9.0), (0.1, 0.3)),
    Hawkes(3.0, branching=0.9, decay=1.0),
    Diurnal(3.0, period=10, peak_at=3),
    Piecewise(((2, 0), (4, 9))),
    Recorded((3.0, 1.0, 2.0), repeat=True),
]
by_name = pytest.mark.parametrize("profile", ALL, ids=lambda profile: type(profile).__name__)


@by_name
def test_arrivals_are_sorted_floats_inside_the_window(profile: Profile, rng: Generator) -> None:
    for duration in (0.0, 0.01, 7.0, 400.0):
        times = profile.arrivals(duration, rng)

        assert times.dtype == np.float64
        assert np.all(np.diff(times) >= 0)
        assert np.all((times >= 0) & (times < duration))


@by_name
def test_mean_rate_is_the_rate_drawn_also_when_scaled(profile: Profile, rng: Generator) -> None:
    for scale in (1.0, 2.5):
        n = np.array([profile.arrivals(7.0, r, scale).size for r in rng.spawn(1_000)], dtype=float)

        rounding = 1.0 if isinstance(profile, Constant) else 0.0  # it starts at 0, so there may be one more
        assert n.mean() / 7.0 == approx(profile.mean(7.0, scale), abs=(5 * n.std() / math.sqrt(1_000) + rounding) / 7)


@by_name
def test_a_seed_decides_everything(profile: Profile) -> None:
    first, again = (profile.arrivals(50, np.random.default_rng(7)) for _ in range(2))

    assert np.array_equal(first, again)


@pytest.mark.parametrize("profile", ALL[1:8], ids=lambda profile: type(profile).__name__)
def test_seeds_are_independent(profile: Profile, rng: Generator) -> None:
    pairs = np.array(
        [[profile.arrivals(10, r).size for r in parent.spawn(2)] for parent in rng.spawn(1_000)], dtype=float
    )

    assert abs(np.corrcoef(pairs.T)[0, 1]) < 5 / math.sqrt(1_000)
    assert pairs.std() > 0
