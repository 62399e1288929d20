"""Profiles by name, for the command line, and how a schedule is drawn."""

import msgspec
import numpy as np
import pytest
from pytest import approx

from loadprofiles import PROFILES, Constant, Held, Poisson, Profile, Ramp, Steps, draw, from_name, levels, sparkline
from loadprofiles.names import OPEN_LOOP, POPULATIONS


@pytest.mark.parametrize("name", OPEN_LOOP)
@pytest.mark.parametrize("duration", [30.0, 86_400.0])
def test_an_open_loop_profile_by_name_has_the_rate_asked_for(name: str, duration: float) -> None:
    profile = from_name(name, rate=2.5, duration=duration)

    assert type(profile) is PROFILES[name]
    assert not profile.closed
    assert profile.mean(duration) == approx(2.5)
    assert msgspec.convert(msgspec.to_builtins(profile), Profile) == profile


@pytest.mark.parametrize("name", POPULATIONS)
@pytest.mark.parametrize("agents", [1, 2, 5, 50])
def test_a_population_by_name_reaches_the_agents_asked_for_and_no_more(name: str, agents: int) -> None:
    profile = from_name(name, agents=agents, duration=600)

    _, counts = profile.population(600)
    assert type(profile) is PROFILES[name]
    assert profile.closed
    assert counts.max() == agents
    assert msgspec.convert(msgspec.to_builtins(profile), Profile) == profile


def test_the_plain_names_are_what_they_say() -> None:
    assert from_name("poisson", rate=2, duration=60) == Poisson(2)
    assert from_name("constant", rate=2, duration=60) == Constant(2)
    assert from_name("held", agents=9, duration=60) == Held(9)
    assert from_name("ramp", agents=50, duration=60) == Ramp(50, start=1)
    assert from_name("steps", agents=50, duration=60) == Steps((10, 20, 30, 40, 50))


@pytest.mark.parametrize(
    ("name", "agents", "rate", "duration", "says"),
    [
        ("poisson", None, None, 60, "poisson needs a rate and got none; add --rate"),
        ("poisson", None, -2, 60, "rate must be > 0 sessions per second and finite, got -2"),
        ("poisson", None, float("nan"), 60, "rate must be > 0 sessions per second and finite, got nan"),
        ("poisson", 5, None, 60, "poisson is open loop and takes --rate, got --agents 5"),
        ("ramp", None, None, 60, "ramp needs a number of agents and got none; add --agents"),
        ("ramp", 0, None, 60, "agents must be >= 1 and <= 10000000, got 0"),
        ("ramp", None, 2, 60, "ramp is a population and takes --agents, got --rate 2"),
        ("ramp", 5, None, 0, "duration must be > 0 seconds and finite, got 0"),
        ("recorded", None, 2, 60, 'recorded cannot be given by name alone; write it in a spec: .* type = "recorded"'),
        ("burst", None, 2, 60, "there is no load profile 'burst'; it must be one of constant, poisson, "),
        ("hawks", None, 2, 60, "there is no load profile 'hawks'; did you mean hawkes?"),
    ],
)
def test_a_bad_choice_gets_one_clear_line(
    name: str, agents: int | None, rate: float | None, duration: float, says: str
) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        from_name(name, agents=agents, rate=rate, duration=duration)

    assert "\n" not in str(caught.value)


def test_a_sparkline_goes_from_zero_to_the_highest() -> None:
    assert sparkline(np.array([0.0, 1.0, 2.0, 4.0, 8.0])) == " ▁▂▄█"
    assert sparkline(np.array([0.001, 1_000.0])) == "▁█"  # little is not nothing
    assert sparkline(np.zeros(3)) == "   "
    assert sparkline(np.empty(0)) == ""


def test_levels_are_rates_or_mean_agents_in_each_bin() -> None:
    rng = np.random.default_rng(1)

    assert levels(Constant(2), 10, rng, 5).tolist() == [2, 2, 2, 2, 2]
    assert levels(Steps((1, 3), each=5), 10, rng, 4).tolist() == approx([1, 1, 3, 3])
    assert levels(Steps((1, 3), each=5), 12, rng, 2).tolist() == approx([(5 + 3) / 6, 3])


def test_a_drawing_says_its_scale() -> None:
    line = draw(Steps((1, 4), each=30), 60, np.random.default_rng(1), width=8)

    assert line == "▂▂▂▂████  0 to 4 agents (mean 2.5) in 60 s"
    assert "sessions/s (mean 2)" in draw(Constant(2), 60, np.random.default_rng(1), width=8)
