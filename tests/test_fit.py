"""Fitting: a family is found in its own draws, an archetype in its own sessions, and recorded sessions in theirs."""

import os
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs
from pytest import approx

from agentload.errors import BadInput
from agentload.families import FAMILIES, digamma, fit, sample, trigamma
from agentload.fit import CLASS, Fit, fit_archetype
from agentload.spec import changed
from agentload.traces.analyse import analyse
from agentload.traces.detect import read
from agentload.traces.graph import Agent, Call, Gap, Session
from agentload.traces.source import Complaints
from agentload.tracing import fit as fit_command
from agents.archetypes import FIXED, SUPPORT, Archetype
from agents.draws import Draw, Gamma, LogNormal, Mixture, Quantiles, Tailed, Uniform, Weibull
from agents.kind import SimulatedTool
from tests.made_sessions import sessions

TRACES = os.environ.get("AGENTLOAD_TRACES")
P50, P90 = 2, 4


def back(toml: str) -> dict[str, Archetype]:
    """The archetypes of a piece of a spec."""
    plain = tomllib.loads(toml)["archetypes"]
    return {
        name: changed(name, FIXED, {field: value for field, value in fields.items() if field != "base"})
        for name, fields in plain.items()
    }


@pytest.mark.parametrize(
    ("family", "truth"),
    [
        ("lognormal", LogNormal(261.0, 0.9)),
        ("gamma", Gamma(2.5, 40.0)),
        ("weibull", Weibull(0.7, 90.0)),
        ("lognormal with a Pareto tail", Tailed(400.0, 0.6, 1_200.0, 0.1, 1.3)),
        ("two lognormals", Mixture([LogNormal(18_500.0, 0.25), LogNormal(105_000.0, 0.7)], [0.55, 0.45])),
    ],
)
def test_a_family_is_found_in_its_own_draws(family: str, truth: Draw) -> None:
    values = sample(truth, 3_000, np.random.default_rng(4))
    found = fit(values)

    assert found.family == family
    assert min(found.aic, key=lambda name: found.aic[name]) == family
    assert not found.poor
    assert np.quantile(sample(found.draw, 50_000, np.random.default_rng(5)), [0.5, 0.9]) == approx(
        np.quantile(values, [0.5, 0.9]), rel=0.05
    )


def test_parameters_come_back_within_their_standard_errors() -> None:
    rng, n = np.random.default_rng(6), 4_000
    normal, gamma, weibull = (FAMILIES[name] for name in ("lognormal", "gamma", "weibull"))

    found, _, _ = normal(np.exp(rng.normal(5.0, 0.8, n)))
    assert isinstance(found, LogNormal)
    assert np.log(found.median) == approx(5.0, abs=4 * 0.8 / np.sqrt(n))
    assert found.sigma == approx(0.8, abs=4 * 0.8 / np.sqrt(2 * n))
    found, _, _ = gamma(rng.gamma(2.0, 30.0, n))
    assert isinstance(found, Gamma)
    assert (found.shape, found.shape * found.scale) == (
        approx(2.0, abs=4 * np.sqrt(2.0 / (2.0 * trigamma(2.0) - 1) / n)),
        approx(60.0, abs=4 * 30 * np.sqrt(2.0 / n)),
    )
    found, _, _ = weibull(50 * rng.weibull(1.4, n))
    assert isinstance(found, Weibull)
    assert (found.shape, found.scale) == (
        approx(1.4, abs=4 * 0.78 * 1.4 / np.sqrt(n)),
        approx(50.0, abs=4 * 1.053 * 50 / 1.4 / np.sqrt(n)),
    )


def test_special_functions_have_their_known_values() -> None:
    assert digamma(1.0) == approx(-0.5772156649, abs=1e-8)
    assert trigamma(1.0) == approx(np.pi**2 / 6, abs=1e-8)


def test_numbers_of_no_family_are_taken_as_they_are() -> None:
    rng = np.random.default_rng(7)
    three = np.concatenate([rng.normal(m, 0.02 * m, 300) for m in (10.0, 1_000.0, 100_000.0)])

    assert fit(np.full(9, 4.0)).draw == 4.0
    assert fit(np.array([1.0, 2.0] * 40)).draw == Mixture([1.0, 2.0], [40.0, 40.0])
    assert fit(np.array([3.0, 1.0, 2.0])).draw == Quantiles([1.0, 2.0, 3.0])
    assert fit(three).family == "quantiles"
    half = fit(np.concatenate([np.zeros(500), rng.lognormal(3, 1, 500)]))
    assert half.family == "zero or lognormal"
    assert np.mean(sample(half.draw, 10_000, rng) == 0) == approx(0.5, abs=0.02)


def test_a_fit_is_a_piece_of_a_spec() -> None:
    made = fit_archetype(sessions({"support": SUPPORT}, "support", 60), "mine")

    kinds = back(made.toml())
    assert kinds["mine"].output_tokens == made.archetypes["mine"].output_tokens
    assert {tool.name for tool in kinds["mine"].tools} == {"get_reservation", "update_reservation"}
    assert sessions(kinds, "mine", 3)


KIND = Archetype(
    task_tokens=LogNormal(2_000, 0.4, low=200),
    steps=LogNormal(14, 0.5, low=3, high=60),
    growth_tokens=LogNormal(600, 0.7, low=60),
    output_tokens=LogNormal(90, 0.6, low=8),
    tool_calls=Mixture([1.0, 3.0], [0.8, 0.2]),
    tools=[SimulatedTool(name="sh", seconds=LogNormal(0.5, 1.0), tokens=50.0, weight=3.0),
           SimulatedTool(name="web", seconds=Uniform(1.0, 9.0), tokens=500.0)],
    pause=0.05, think_seconds=LogNormal(60, 0.8),
    at_limit="compact", compact_at=Uniform(9_000, 20_000), compact_to=0.3, rewrite=0.03, rewrite_keep=Uniform(0.1, 0.8),
    children=Mixture([0.0, 2.0], [0.8, 0.2]), child="kid",
)  # fmt: skip
KID = structs.replace(
    FIXED, task_tokens=LogNormal(500, 0.3), steps=LogNormal(5, 0.3, low=1), growth_tokens=LogNormal(200, 0.5),
    output_tokens=LogNormal(40, 0.5),
)  # fmt: skip


def figures(found: list[Session]) -> np.ndarray:  # type: ignore[type-arg]  # of floats
    stats = analyse(found)
    names = "calls_per_session input output new first think tool_seconds sub_agent_calls".split()
    return np.array(
        [getattr(stats, name)[i] for i in (P50, P90) for name in names]
        + [stats.growth or 0.0, stats.hit or 0.0, stats.in_out or 0.0]
    )  # fmt: skip


def test_fit_simulate_fit_again_agrees_within_sampling_error() -> None:
    """Figures of the data, of sessions drawn from its fit, and of sessions drawn from the fit of those. How far two
    samples of that size may lie apart is taken from four more samples of the truth."""
    truth = {"mine": KIND, "kid": KID}
    data = sessions(truth, "mine", 300, seed=1)
    once = back(fit_archetype(data, "mine").toml())
    drawn = sessions(once, "mine", 300, seed=2)
    twice = back(fit_archetype(drawn, "mine").toml())
    again = sessions(twice, "mine", 300, seed=3)

    spread = np.std([figures(sessions(truth, "mine", 300, seed=seed)) for seed in range(10, 14)], axis=0, ddof=1)
    first, second, third = (figures(found) for found in (data, drawn, again))
    allowed = np.maximum(0.12 * first, 6 * spread)
    assert (np.abs(second - first) < allowed).all(), (first, second)
    assert (np.abs(third - second) < allowed).all(), (second, third)
    assert once["mine"].pause == approx(0.05, abs=0.02)
    assert once["mine"].rewrite == approx(0.03, abs=0.015)
    assert once["mine"].child == "mine-child"


@pytest.mark.parametrize(("join", "quorum"), [("all", 0.5), ("first", 0.5), ("quorum", 0.6), ("background", 0.5)])
def test_fan_out_and_joins_come_back(join: Any, quorum: float) -> None:
    lead = structs.replace(KIND, children=Mixture([3.0, 5.0], [0.5, 0.5]), spawns=Mixture([0.0, 2.0], [0.4, 0.6]),
                           join=join, quorum=quorum, depth=1)  # fmt: skip
    kinds = back(fit_archetype(sessions({"mine": lead, "kid": KID}, "mine", 25, depth=1), "mine").toml())
    rng, found = np.random.default_rng(1), kinds["mine"]

    assert (found.join, found.depth, found.child) == (join, 1, "mine-child")
    assert sample(found.children, 4_000, rng).mean() == approx(4.0, rel=0.1)
    assert sample(found.spawns, 4_000, rng).mean() == approx(1.2, abs=4 * 0.98 / 5)  # four standard errors
    if join == "quorum":
        assert found.quorum == approx(np.mean([2 / 3, 3 / 5]), abs=0.02)


def test_gaps_that_nobody_explains_take_their_time_as_a_tool() -> None:
    steps = (
        Call(100, 5),
        Gap(5.0),
        Call(200, 5, 100),
        Gap(90.0, person=True),
        Call(300, 5, 200),
        Gap(7.0),
        Call(400, 5, 300),
    )
    kind = fit_archetype([Session(str(n), Agent(steps)) for n in range(50)], "mine").archetypes["mine"]

    (tool,) = kind.tools
    assert tool.name == "unexplained"
    assert sample(tool.seconds, 2_000, np.random.default_rng(1)).mean() == approx(6.0, rel=0.05)
    assert sample(kind.tool_calls, 2_000, np.random.default_rng(1)).mean() == approx(2 / 3, rel=0.1)
    assert kind.pause == approx(1 / 3, abs=0.01)


def test_few_sessions_and_poor_fits_are_said(tmp_path: Path) -> None:
    made = fit_archetype([Session("s", Agent((Call(100, 5), Call(160, 5, 100))))], "tiny")

    assert made.warnings[0].startswith("tiny: only 1 sessions")
    assert len(made.archetypes["tiny"].variants) == 0 < CLASS
    with pytest.raises(BadInput, match="no call"):
        fit_archetype([], "none")
    with pytest.raises(BadInput, match="letters, digits"):
        fit_command(tmp_path / "t", tmp_path / "o.toml", "two words")


def test_the_command_writes_toml_and_charts_without_a_network(tmp_path: Path) -> None:
    from agentload.traces import own

    own.save(sessions({"support": SUPPORT}, "support", 50), tmp_path / "t.jsonl")
    made, says = fit_command(tmp_path / "t.jsonl", tmp_path / "agent.toml", "mine")

    assert isinstance(made, Fit)
    assert back((tmp_path / "agent.toml").read_text())["mine"].steps == made.archetypes["mine"].steps
    page = (tmp_path / "agent.html").read_text()
    assert "http://" not in page.split("<script>")[0] and "qq0" in page
    assert str(tmp_path / "agent.html") in says


@pytest.mark.skipif(not TRACES, reason="AGENTLOAD_TRACES names no folder with recorded traces")
def test_a_fit_of_recorded_coding_agents_makes_sessions_like_them() -> None:
    data = list(read(Path(TRACES or "") / "kv_cache_tester_shape.csv", Complaints(fatal=True)))
    kinds = back(fit_archetype(data, "coder").toml())
    ours, theirs = analyse(sessions(kinds, "coder", 1_500, seed=5)), analyse(data)

    for name in ("calls_per_session", "input", "output", "new"):
        a, b = getattr(ours, name), getattr(theirs, name)
        assert [a[P50], a[P90]] == approx([b[P50], b[P90]], rel=0.1), name
    assert ours.growth_fresh == approx(1.33, abs=0.05)
    assert ours.hit == approx(0.964, abs=0.01)
