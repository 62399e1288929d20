"""The search for a limit, against made-up servers whose limits are known."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from agentload.search import Probe, Search, bracket, next_load, search
from collectors.slo import Judged, verdict_of, wilson

Measure = Callable[[float, int], Probe]
AGENTS = Search(("slo",), start=8, most=100_000, whole=True)


def judged(share: float, n: float = 2_000, needed: float = 0.95) -> Judged:
    low, high = wilson(share, n)
    return Judged("ttft_p95", 1.0, 1.0, needed, share, low, high, int(n), n, 50, 0, verdict_of(low, high, needed))


def server(limit: float) -> Measure:
    """Holds its promise up to the limit and not beyond."""
    return lambda load, earlier: Probe(load, {"slo": [judged(0.99 if load <= limit else 0.6)]})


def noisy(limit: float, rng: np.random.Generator, calls: int = 400) -> Measure:
    """The share of good calls falls through 95 % at the limit, and a probe sees some of them."""

    def measure(load: float, earlier: int) -> Probe:
        n = calls * (earlier + 1)
        good = 1 / (1 + math.exp(60 * (load / limit - 1) + math.log(0.05 / 0.95)))
        return Probe(load, {"slo": [judged(rng.binomial(n, good) / n, n)]})

    return measure


@pytest.mark.parametrize("limit", [1, 2, 5, 7, 8, 9, 31, 64, 100, 333, 700, 1_000, 1_023])
def test_a_sharp_limit_is_found_within_5_percent_in_12_probes(limit: int) -> None:
    probes = search(server(limit), AGENTS)
    found = bracket(probes, "slo")

    assert len(probes) <= 12
    assert found.low <= limit < (found.high or 0)
    assert (found.high or 0) - found.low <= max(1, 0.05 * found.low)
    assert (found.sure_low, found.sure_high) == (found.low, found.high)


def test_every_limit_from_0_to_1023_is_found_so() -> None:
    for limit in range(1_024):
        probes = search(server(limit), AGENTS)
        found = bracket(probes, "slo")

        assert len(probes) <= 12, limit
        assert found.low <= limit < (found.high or 0) <= found.low + max(1, 0.05 * found.low), limit


@pytest.mark.parametrize("limit", [0.02, 0.5, 3.3, 40.0])
def test_a_rate_is_found_within_5_percent_too(limit: float) -> None:
    probes = search(server(limit), Search(("slo",), start=0.5, most=1_000, whole=False))
    found = bracket(probes, "slo")

    assert len(probes) <= 12
    assert found.low <= limit < (found.high or 0) <= 1.05 * found.low


def test_doubling_comes_first_and_then_bisection() -> None:
    loads = [probe.load for probe in search(server(50), AGENTS)]

    assert loads == [8, 16, 32, 64, 45, 54, 49, 51]


def test_under_noise_the_answer_is_close_and_lies_in_the_interval_of_a_second_search() -> None:
    errors, agree = [], 0
    for rng in np.random.default_rng(1).spawn(200):
        limit = float(rng.uniform(10, 900))
        first, second = (search(noisy(limit, rng), AGENTS) for _ in range(2))
        found, again = bracket(first, "slo"), bracket(second, "slo")
        errors.append(abs(found.low / limit - 1))
        agree += again.sure_low <= found.low <= (again.sure_high or math.inf)
        assert max(len(first), len(second)) <= 12

    assert np.quantile(errors, 0.9) < 0.05
    assert agree / 200 >= 0.95


def test_a_limit_that_noise_may_have_decided_is_measured_again() -> None:
    asked = []

    def measure(load: float, earlier: int) -> Probe:
        asked.append((load, earlier))
        share = 0.99 if load < 16 else 0.952 if load == 16 else 0.6
        return Probe(load, {"slo": [judged(share, 400 * (1 + earlier))]})

    search(measure, AGENTS)

    assert asked.count((16, 1)) == 1
    assert all(earlier < 2 for _, earlier in asked)


def test_a_server_without_a_limit_has_none_up_to_the_most_that_was_tried() -> None:
    plan = Search(("slo",), start=8, most=100, whole=True)

    probes = search(server(math.inf), plan)

    assert [probe.load for probe in probes] == [8, 16, 32, 64, 100]
    assert bracket(probes, "slo").high is None
    assert next_load(probes, "slo", plan) is None


def test_a_load_that_this_machine_cannot_make_is_never_taken_for_the_servers_limit() -> None:
    def measure(load: float, earlier: int) -> Probe:
        limited = ["limited by this machine: p99 send lag 90 ms"] if load > 40 else []
        return Probe(load, {"slo": [judged(0.1 if limited else 0.99)]}, limited)

    probes = search(measure, AGENTS)
    found = bracket(probes, "slo")

    assert found.high is None and found.sure_high is None
    assert found.wall is not None
    assert 38 <= found.low <= 40 < found.wall
    assert len(probes) <= 12


def test_a_passing_fault_of_this_machine_is_measured_again() -> None:
    def measure(load: float, earlier: int) -> Probe:
        return Probe(load, {"slo": [judged(0.99 if load <= 20 else 0.5)]}, ["busy"] if earlier == 0 else [])

    found = bracket(search(measure, Search(("slo",), 8, 1_000, True, probes=30)), "slo")

    assert (found.low, found.high, found.wall) == (20, 21, None)


def test_several_tiers_are_answered_by_the_same_probes() -> None:
    limits = {"strict": 12, "middle": 50, "loose": 70}

    def measure(load: float, earlier: int) -> Probe:
        return Probe(load, {name: [judged(0.99 if load <= limit else 0.5)] for name, limit in limits.items()})

    probes = search(measure, Search(tuple(limits), 8, 1_000, True, probes=22))
    found = {name: bracket(probes, name) for name in limits}

    assert {name: each.low for name, each in found.items()} == pytest.approx(limits, rel=0.05)
    assert len(probes) < sum(len(search(server(limit), AGENTS)) for limit in limits.values())


def test_the_search_ends_with_its_probes_whatever_it_is_told() -> None:
    for rng in np.random.default_rng(2).spawn(300):

        def measure(load: float, earlier: int, rng: np.random.Generator = rng) -> Probe:
            shares = rng.choice([0.5, 0.94, 0.95, 0.96, 1.0], 2)
            limited = ["busy"] if rng.random() < 0.3 else []
            return Probe(load, {"a": [judged(shares[0], 50)], "b": [judged(shares[1], 50)]}, limited)

        probes = search(measure, Search(("a", "b"), 8, 4_000, True, probes=17))

        assert 1 <= len(probes) <= 17
        assert all(1 <= probe.load <= 4_000 and probe.load == int(probe.load) for probe in probes)


def test_an_interrupted_probe_ends_the_search() -> None:
    def measure(load: float, earlier: int) -> Probe:
        return Probe(load, {"slo": [judged(0.99)]}, stopped="interrupted" if load == 16 else "")

    assert [probe.load for probe in search(measure, AGENTS)] == [8, 16]
