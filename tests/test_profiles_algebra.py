"""Profiles made of profiles, and how they are read from a spec."""

import math

import msgspec
import numpy as np
import pytest
from numpy.random import Generator
from pytest import approx

from loadprofiles import (
    Clipped,
    Constant,
    Diurnal,
    Hawkes,
    Held,
    Part,
    Piecewise,
    Poisson,
    Population,
    Profile,
    Ramp,
    Recorded,
    Scaled,
    Sequence,
    Steps,
    Sum,
    load,
)


@pytest.fixture
def rng() -> Generator:
    return np.random.default_rng(11)


def steps(profile: Profile, duration: float) -> list[tuple[float, int]]:
    times, counts = profile.population(duration)
    return list(zip(times.tolist(), counts.tolist(), strict=True))


def decode(toml: str) -> Profile:
    profile: Profile = msgspec.toml.decode(toml, type=Profile)
    return profile


def test_a_sum_merges_what_its_parts_draw_from_spawned_generators(rng: Generator) -> None:
    poisson, hawkes = Poisson(3), Hawkes(2, branching=0.5, decay=1)

    both = Sum((poisson, hawkes)).arrivals(100, rng)

    first, second = np.random.default_rng(11).spawn(2)
    assert both.tolist() == sorted([*poisson.arrivals(100, first), *hawkes.arrivals(100, second)])
    assert Sum((poisson, hawkes)).mean(100) == 5


def test_a_part_added_to_a_sum_leaves_the_others_as_they_were() -> None:
    two = Sum((Poisson(3), Poisson(1))).arrivals(50, np.random.default_rng(5))
    three = Sum((Poisson(3), Poisson(1), Constant(1))).arrivals(50, np.random.default_rng(5))

    assert set(two) <= set(three)
    assert three.size == two.size + 50


def test_populations_add_up_agent_by_agent() -> None:
    profile = Sum((Steps((1, 3), each=10), Population(((10.0, 2), (20.0, 0)))))

    assert steps(profile, 40) == [(0, 1), (10, 5), (20, 3)]
    assert profile.mean(40) == (10 * 1 + 10 * 5 + 20 * 3) / 40


def test_steps_that_cancel_in_a_sum_are_no_step() -> None:
    assert steps(Sum((Steps((1, 3), each=10), Steps((3, 1), each=10))), 40) == [(0, 4)]


def test_a_sequence_gives_each_part_its_own_clock_and_cuts_it_off(rng: Generator) -> None:
    profile = Sequence((Part(Constant(1), 2.5), Part(Constant(2), 1.0), Part(Constant(1))))

    assert profile.arrivals(6, rng).tolist() == [0, 1, 2, 2.5, 3.0, 3.5, 4.5, 5.5]
    assert profile.mean(6) == (2.5 + 2 + 2.5) / 6
    assert profile.arrivals(2, rng).tolist() == [0, 1]


def test_after_a_sequence_comes_nothing(rng: Generator) -> None:
    assert Sequence((Part(Constant(1), 2.0),)).arrivals(60, rng).tolist() == [0, 1]
    assert steps(Sequence((Part(Held(3), 2.0), Part(Held(5), 3.0))), 60) == [(0, 3), (2, 5), (5, 0)]
    assert Sequence((Part(Held(3), 2.0), Part(Held(5), 3.0))).mean(60) == 21 / 60


def test_a_ramp_in_a_sequence_takes_its_part_s_duration() -> None:
    profile = Sequence((Part(Ramp(3, start=0), 6.0), Part(Held(3))))

    assert steps(profile, 60) == [(0, 0), (1, 1), (3, 2), (5, 3)]


def test_a_sequence_draws_each_part_from_its_own_generator(rng: Generator) -> None:
    times = Sequence((Part(Poisson(5), 10.0), Part(Poisson(5), 10.0))).arrivals(20, rng)

    first, second = np.random.default_rng(11).spawn(2)
    expected = [*Poisson(5).arrivals(10, first), *(10 + Poisson(5).arrivals(10, second))]
    assert times.tolist() == expected


def test_stretching_time_delays_every_instant(rng: Generator) -> None:
    profile = Scaled(Hawkes(3, branching=0.5, decay=1), time=4)

    assert np.array_equal(
        profile.arrivals(100, np.random.default_rng(3)),
        4 * Hawkes(3, branching=0.5, decay=1).arrivals(25, np.random.default_rng(3)),
    )
    assert profile.mean(100) == 3 / 4
    assert steps(Scaled(Steps((1, 2), each=5), time=4), 100) == [(0, 1), (20, 2)]
    assert Scaled(Steps((1, 2), each=5), time=4).mean(40) == 1.5


def test_scaling_the_rate_keeps_the_shape(rng: Generator) -> None:
    assert Scaled(Constant(2), rate=3).arrivals(0.5, rng).tolist() == approx([0, 1 / 6, 1 / 3])
    same_as = [
        (Scaled(Poisson(2), rate=3), Poisson(6)),
        (Scaled(Hawkes(2, branching=0.8, decay=0.3), rate=3), Hawkes(6, branching=0.8, decay=0.3)),
        (Scaled(Diurnal(2, period=60), rate=3), Diurnal(6, period=60)),
        (Scaled(Piecewise(((0, 1), (9, 2))), rate=3), Piecewise(((0, 3), (9, 6)))),
    ]
    for scaled, plain in same_as:
        expected = plain.arrivals(30, np.random.default_rng(8))
        assert scaled.arrivals(30, np.random.default_rng(8)) == approx(expected)
        assert scaled.mean(30) == approx(plain.mean(30))


def test_scaling_reaches_through_sums_sequences_and_scales() -> None:
    profile = Scaled(Sequence((Part(Sum((Held(1), Scaled(Held(1), rate=2))), 10.0), Part(Held(4)))), rate=2, time=2)

    assert steps(profile, 60) == [(0, 6), (20, 8)]


def test_clipping_lets_a_window_through(rng: Generator) -> None:
    profile = Clipped(Constant(1), start=2, stop=5)

    assert profile.arrivals(60, rng).tolist() == [2, 3, 4]
    assert profile.arrivals(4, rng).tolist() == [2, 3]
    assert profile.mean(60) == 3 / 60
    assert profile.mean(1) == 0
    assert steps(Clipped(Held(3), start=2, stop=5), 60) == [(0, 0), (2, 3), (5, 0)]
    assert Clipped(Held(3), start=2, stop=5).mean(6) == 1.5


def test_clipping_holds_a_population_between_bounds() -> None:
    profile = Clipped(Steps((1, 5, 9, 0), each=10), at_least=2, at_most=6)

    assert steps(profile, 60) == [(0, 2), (10, 5), (20, 6), (30, 2)]


def test_closed_says_which_kind_it_is() -> None:
    assert [p.closed for p in (Poisson(1), Sum((Poisson(1),)), Scaled(Poisson(1)), Clipped(Poisson(1)))] == [False] * 4
    assert [p.closed for p in (Held(1), Sequence((Part(Held(1)),)), Scaled(Held(1)), Clipped(Held(1)))] == [True] * 4


def test_the_wrong_question_is_refused(rng: Generator) -> None:
    with pytest.raises(TypeError, match="Held is a population"):
        Sum((Held(1),)).arrivals(10, rng)
    with pytest.raises(TypeError, match="Poisson is open loop"):
        Scaled(Poisson(1)).population(10)


def test_a_spec_names_profiles_by_type() -> None:
    profile = decode(
        """
        type = "sequence"
        parts = [
            { duration = 60, profile = { type = "poisson", rate = 2 } },
            { duration = 600, profile = { type = "sum", parts = [
                { type = "diurnal", rate = 1.5, period = 300 },
                { type = "scaled", rate = 0.5, profile = { type = "hawkes", rate = 2, branching = 0.6, decay = 0.1 } },
            ] } },
            { profile = { type = "clipped", stop = 30, profile = { type = "recorded", times = [0, 1.5] } } },
        ]
        """
    )

    assert profile == Sequence(
        (
            Part(Poisson(2), 60),
            Part(Sum((Diurnal(1.5, period=300), Scaled(Hawkes(2, branching=0.6, decay=0.1), rate=0.5))), 600),
            Part(Clipped(Recorded((0, 1.5)), stop=30)),
        )
    )
    assert msgspec.convert(msgspec.to_builtins(profile), Profile) == profile


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ('type = "poisson"\nrate = -2', r"Expected `float` > 0.0 - at `\$.rate`"),
        ('type = "poisson"\nrate = inf', r"at `\$.rate`"),
        ('type = "poisson"', "missing required field `rate`"),
        ('type = "poisson"\nrate = 1\nrat = 2', "unknown field `rat`"),
        ('type = "gamma"\nrate = 1\ncv = 0', r"Expected `float` > 0.0 - at `\$.cv`"),
        ('type = "weibull"\nrate = 1\ncv = -1', r"Expected `float` > 0.0 - at `\$.cv`"),
        ('type = "hawkes"\nrate = 1\nbranching = 1\ndecay = 1', r"Expected `float` < 1.0 - at `\$.branching`"),
        ('type = "mmpp"\nrates = [1, -2]\nswitching = [1, 1]', r">= 0.0 - at `\$.rates\[1\]`"),
        ('type = "diurnal"\nrate = 1\npeak = 0.5', r">= 1.0 - at `\$.peak`"),
        ('type = "piecewise"\npoints = []', "length >= 1"),
        ('type = "piecewise"\npoints = [[5, 1], [2, 1]]', "points must be in order of time: 2 s comes after 5 s"),
        ('type = "recorded"', "times must hold one session start or more, got none"),
        ('type = "recorded"\ntimes = [0, nan]', "times must be finite"),
        ('type = "recorded"\ntimes = [1, 1]\nrepeat = true', "repeat needs two different times, got only 1"),
        ('type = "held"\nagents = 0', r"Expected `int` >= 1 - at `\$.agents`"),
        ('type = "ramp"\nagents = 2.5', "Expected `int`"),
        ('type = "sine"\nagents = 3\namplitude = 4\nperiod = 9', r"amplitude must be <= agents \(3\), got 4"),
        ('type = "exponential"\nagents = 3\nstart = 4\ndoubling = 9', r"start must be <= agents \(3"),
        ('type = "sum"\nparts = []', "length >= 1"),
        (
            'type = "sum"\nparts = [{type = "poisson", rate = 1}, {type = "held", agents = 1}]',
            r"got poisson \(open loop\) and held \(population\)",
        ),
        (
            'type = "sequence"\nparts = [{profile = {type = "poisson", rate = 1}}, '
            '{profile = {type = "poisson", rate = 1}}]',
            r"parts\[0\].duration is missing",
        ),
        (
            'type = "clipped"\nstart = 5\nstop = 5\nprofile = {type = "held", agents = 1}',
            r"stop must be > start \(5 s\)",
        ),
        ('type = "clipped"\nat_most = 5\nprofile = {type = "poisson", rate = 1}', "this profile is open loop"),
        ('type = "clipped"\nat_least = 6\nat_most = 5\nprofile = {type = "held", agents = 1}', "at_most must be >="),
        ('type = "poison"\nrate = 1', "Invalid value 'poison'"),
    ],
)
def test_a_bad_profile_gets_one_clear_line(toml: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        decode(toml)

    assert "\n" not in str(caught.value)


def test_a_recording_is_read_from_its_file_wherever_it_stands() -> None:
    texts = {"a.csv": "# seconds, tokens\n3.5,100\n\n1,200  # late\n", "b.txt": "7\n"}
    recorded = Recorded(file="a.csv", speed=2)
    profile = Sum((Sequence((Part(Scaled(recorded, rate=3), 5.0),)), Clipped(Recorded(file="b.txt")), Poisson(1)))

    loaded = load(profile, texts.__getitem__)

    a, b = Recorded((3.5, 1.0), speed=2), Recorded((7.0,))
    assert loaded == Sum((Sequence((Part(Scaled(a, rate=3), 5.0),)), Clipped(b), Poisson(1)))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1\nsoon\n", "trace.csv:2 must start with a time in seconds, got 'soon'"),
        ("# nothing\n", "trace.csv must hold one start time"),
        ("nan\n", "times must be finite"),
    ],
)
def test_a_bad_recording_gets_one_clear_line(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        load(Recorded(file="trace.csv"), lambda _: text)


def test_a_recording_that_was_not_read_says_so(rng: Generator) -> None:
    with pytest.raises(ValueError, match="has not been read yet"):
        Recorded(file="trace.csv").arrivals(10, rng)


def test_superposed_hawkes_keeps_its_dispersion(rng: Generator) -> None:
    profile = Sum((Hawkes(5, branching=0.5, decay=20), Hawkes(5, branching=0.5, decay=20)))

    n = np.array([profile.arrivals(60, r).size for r in rng.spawn(2_000)])

    assert n.var() / n.mean() == approx(4, abs=5 * 4 * math.sqrt(2 / 2_000))
