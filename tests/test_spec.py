"""Specs: what is refused, in which words, and that a resolved spec is a spec."""

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentload import spec as specs
from agentload.commands import draw, resolve
from agentload.errors import BadInput
from agentload.expect import expect
from agents.archetypes import CODER
from agents.text import Room
from loadprofiles import Held, Poisson

GOOD = """
duration = 5
population = [{ archetype = "coder" }]
[profile]
type = "held"
agents = 3
"""


def flags(**given: Any) -> specs.Spec:
    return resolve(None, given)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("durration = 3", "unknown field `durration`; did you mean `duration`?"),
        ("seed = -1", "`seed` must be a whole number >= 0, got -1"),
        ('mode = "sizes"', "`mode` cannot be 'sizes'; did you mean `sized`?"),
        ("scale = 0", "`scale` must be a number > 0.0, got 0"),
        ("[endpoint]\nurll = 'x'", "unknown field `urll` in `endpoint`; did you mean `url`?"),
        ("[endpoint]\nclient = 'curl'", "`endpoint.client` cannot be 'curl'; it can be sdk, wire"),
        ("[endpoint.timeouts]\nfirst_token = 0", "`endpoint.timeouts.first_token` must be a number > 0.0, got 0"),
        ("[retry]\nattempts = 0", "`retry.attempts` must be a whole number >= 1, got 0"),
        ("[limits]\nerror_rate = 2", "`limits.error_rate` must be a number <= 1.0, got 2"),
        ("[archetypes.coder]\nstepz = 3", "archetype 'coder': unknown field `stepz`; did you mean `steps`?"),
        ("[archetypes.coder]\nsteps = -3", "archetype 'coder': `steps` must be a number >= 0.0, got -3"),
        (
            "[archetypes.coder]\nsteps = { type = 'lognormal', median = -3, sigma = 1 }",
            "archetype 'coder': `steps.median` must be a number > 0.0, got -3",
        ),
        (
            "[archetypes.coder]\nsteps = { type = 'lognormale', median = 3, sigma = 1 }",
            "archetype 'coder': `steps.type` cannot be 'lognormale'; did you mean `lognormal`?",
        ),
        (
            "[archetypes.mine]\nbase = 'codr'",
            "base 'codr' is not an archetype; did you mean `coder`?",
        ),
        ("[archetypes.coder]\nchildren = 2\nchild = 'imp'", "archetype 'imp' does not exist"),
    ],
)
def test_a_bad_field_is_named_with_its_value_and_the_fix(tmp_path: Path, change: str, complaint: str) -> None:
    file = tmp_path / "spec.toml"
    top, table, rest = change.partition("[")
    file.write_text(f"{top}\n{GOOD}\n{table}{rest}")

    with pytest.raises(BadInput) as error:
        resolve(file, {})

    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"archetype": ["codr"]}, "archetype 'codr' does not exist; did you mean `coder`?"),
        ({"archetype": ["coder=much"]}, "--archetype 'coder=much': the weight must be a number, as in coder=2"),
        ({"archetype": ["coder=0"]}, "`population[0].weight` must be a number > 0.0, got 0.0"),
        ({"agents": 0}, "agents must be >= 1"),
        ({"rate": -1.0}, "rate must be > 0"),
        ({"agents": 3, "rate": 1.0}, "open loop and takes --rate"),
        ({"profile": "wierd", "agents": 3}, "there is no load profile 'wierd'"),
        ({"max_error_rate": 1.5}, "`limits.error_rate` must be a number <= 1.0, got 1.5"),
        ({"duration": 0.0}, "`duration` must be a number > 0.0, got 0.0"),
    ],
)
def test_a_bad_flag_is_named(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(BadInput) as error:
        flags(**given)

    assert complaint in str(error.value)


def test_a_file_that_is_missing_or_no_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nope.toml' does not exist"):
        resolve(tmp_path / "nope.toml", {})
    (tmp_path / "bad.toml").write_text("a = = 3")
    with pytest.raises(BadInput, match="is not TOML: Invalid value"):
        resolve(tmp_path / "bad.toml", {})


def test_a_spec_without_an_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(GOOD.replace("duration = 5", ""))
    with pytest.raises(BadInput, match="a run needs an end: give duration, or sessions, or both"):
        resolve(tmp_path / "s.toml", {})


def test_flags_override_the_file(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(GOOD)
    spec = resolve(
        tmp_path / "s.toml", {"agents": 9, "url": "http://x/v1", "seed": 4, "archetype": ["chat=2", "fixed"]}
    )

    assert spec.profile == Held(9, stagger=9 / 500)
    assert (spec.endpoint.url, spec.seed, spec.duration) == ("http://x/v1", 4, 5.0)
    assert [(group.archetype, group.weight) for group in spec.population] == [("chat", 2.0), ("fixed", 1.0)]


def test_lengths_on_the_command_line_make_the_fixed_archetype() -> None:
    spec = flags(input_tokens=700, output_tokens=30, steps=2, rate=4.0, duration=10.0)
    fixed = spec.kinds()["fixed"]

    assert (fixed.task_tokens, fixed.output_tokens, fixed.steps) == (700.0, 30.0, 2.0)
    assert spec.profile == Poisson(4.0)
    assert [group.archetype for group in spec.population] == ["fixed"]


def test_a_new_archetype_starts_from_its_base(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(
        GOOD.replace('"coder"', '"mine"') + "[archetypes.mine]\nbase = 'coder'\nsystem_tokens = 10\n"
    )
    mine = resolve(tmp_path / "s.toml", {}).kinds()["mine"]

    assert (mine.system_tokens, mine.output_tokens) == (10, CODER.output_tokens)


def test_what_a_spec_states_holds_for_all_sorts_of_session_of_an_archetype() -> None:
    plain = tomllib.loads(GOOD) | {"archetypes": {"coder": {"steps": 3, "task_tokens": 9_000}}}
    coder = specs.decode(plain).kinds()["coder"]

    assert len(coder.variants) == len(CODER.variants) > 1
    assert all(coder.for_session(r).steps == 3.0 for r in np.random.default_rng(0).spawn(20))
    assert all(coder.for_session(r).task_tokens == 9_000.0 for r in np.random.default_rng(0).spawn(20))
    assert [v.compact_at for v in coder.variants] == [v.compact_at for v in CODER.variants]


def test_the_resolved_spec_has_sub_agents_of_sub_agents() -> None:
    kinds = {"a": {"base": "fixed", "child": "b"}, "b": {"base": "fixed", "child": "c"}, "c": {"base": "fixed"}}
    spec = specs.decode(tomllib.loads(GOOD) | {"archetypes": kinds, "population": [{"archetype": "a"}]})

    assert set(tomllib.loads(specs.encode(spec))["archetypes"]) == {"a", "b", "c"}


@pytest.mark.parametrize("given", [{}, {"archetype": ["coder"], "rate": 2.0}, {"sessions": 7, "mode": "live"}])
def test_the_resolved_spec_is_a_spec_that_means_the_same(given: dict[str, Any]) -> None:
    spec = flags(**given)
    again = specs.decode(tomllib.loads(specs.encode(spec)))

    assert specs.encode(again) == specs.encode(spec)
    used = {group.archetype for group in spec.population}
    assert {name: again.kinds()[name] for name in used} == {name: spec.kinds()[name] for name in used}


def test_a_dry_run_expects_what_fixed_sessions_will_be() -> None:
    spec = flags(input_tokens=500, output_tokens=10, steps=3, rate=2.0, duration=50.0)
    figures = expect(spec, Room(100_000))

    assert figures is not None
    assert figures == {
        "sessions": pytest.approx(100),
        "calls": pytest.approx(300),
        "input_tokens": pytest.approx(100 * (500 + 628 + 756), rel=0.02),
        "output_tokens": pytest.approx(3_000),
    }


PHASED = """
population = [{ archetype = "coder" }]
phases = [
    { name = "fill", seconds = 10, counted = false, profile = { type = "ramp", agents = 8 } },
    { name = "hold", seconds = 30, profile = { type = "held", agents = 8 } },
]
"""


def test_phases_make_the_profile_and_the_duration_and_say_what_counts(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(PHASED)
    spec = resolve(tmp_path / "s.toml", {})
    times, counts = spec.profile.population(40.0)

    assert spec.duration == 40
    assert counts[times < 10].max() <= 8
    assert set(counts[times >= 10].tolist()) <= {8}
    assert spec.windows() == [
        ("fill", 0.0, 10.0, False),
        ("hold", 10.0, 40.0, True),
        ("drain", 40.0, None, False),
    ]
    assert specs.encode(specs.decode(tomllib.loads(specs.encode(spec)))) == specs.encode(spec)


def test_a_warm_up_is_a_phase_that_does_not_count() -> None:
    assert flags(warmup=5.0, duration=20.0).windows() == [
        ("warm-up", 0.0, 5.0, False),
        ("measurement", 5.0, 20.0, True),
        ("drain", 20.0, None, False),
    ]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("duration = 33", "duration and phases contradict each other; leave out duration, the phases make it"),
        ("profile = { type = 'held', agents = 3 }", "profile and phases contradict each other"),
        ("warmup = 3", "warmup is a phase of its own where there are phases"),
    ],
)
def test_phases_that_contradict_the_rest_are_refused(tmp_path: Path, change: str, complaint: str) -> None:
    (tmp_path / "s.toml").write_text(f"{change}\n{PHASED}")
    with pytest.raises(BadInput, match=complaint):
        resolve(tmp_path / "s.toml", {})
    (tmp_path / "s.toml").write_text(PHASED.replace(', profile = { type = "ramp", agents = 8 }', ""))
    with pytest.raises(BadInput, match="1 of 2 phases have a profile; give one to each, or to none"):
        resolve(tmp_path / "s.toml", {})


def test_a_profile_is_drawn_before_anything_is_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(None, {"profile": "ramp", "agents": 50, "duration": 60.0}, tmp_path / "p.html")

    assert "0 to 49.6 agents (mean 25.5) in 60 s" in capsys.readouterr().out
    assert "Population: at most 50 agents, 25.5 on average." in (tmp_path / "p.html").read_text()
    with pytest.raises(BadInput, match="branching"):
        decode_profile('{ type = "hawkes", rate = 1, branching = 1.2, decay = 1 }')


def decode_profile(text: str) -> specs.Spec:
    return specs.decode(tomllib.loads(f'duration = 5\npopulation = [{{archetype = "chat"}}]\nprofile = {text}'))
