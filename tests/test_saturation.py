"""Where a series saturates and what is to blame, on points made for each case."""

import numpy as np
import pytest

from collectors.saturation import Cluster, closed_loop, saturation
from collectors.steady import CannotSay
from tests.sweep_made import made_point

FLAT = [(1, 100.0), (2, 200.0), (4, 400.0), (8, 700.0), (16, 720.0), (32, 725.0)]


def judged(
    kv_tokens: int | None = None, last: dict[str, object] | None = None, curve: object = None
) -> tuple[str, str]:
    """The cause and the sentence for a curve whose points beyond 8 agents have other fields."""
    points = [made_point(n, x, **((last or {}) if n > 8 else {})) for n, x in (curve or FLAT)]  # type: ignore[attr-defined]
    found = saturation(points, Cluster(4, kv_tokens), np.random.default_rng(0))
    return found.cause, found.says


def test_a_hit_rate_that_falls_because_contexts_do_not_fit_is_the_cache() -> None:
    cause, says = judged(500_000, {"hit": 0.4, "held": 2e6})

    assert cause == "kv cache"
    assert "2.00M" in says and "500k" in says and "from 80% to 40%" in says


def test_contexts_that_fit_are_not_blamed() -> None:
    assert judged(50_000_000, {"hit": 0.4, "held": 2e6})[0] == "compute"


def test_calls_in_flight_that_fill_the_cache_are_the_cache_too() -> None:
    cause, says = judged(500_000, {"running": 480_000.0, "ttft_p50": 9.0})

    assert cause == "kv cache"
    assert "others queue" in says


def test_accelerators_that_are_full_of_prefill_are_compute() -> None:
    cause, says = judged(None, {"busy": {"prefill": 0.8, "reading contexts": 0.1, "decoding": 0.1}})

    assert cause == "compute"
    assert "80% of it with prefill" in says


def test_without_saturation_it_is_said_what_agents_wait_for() -> None:
    line = [(n, 100.0 * n) for n in (1, 2, 4, 8, 16)]
    people = {"model": 0.05, "tool": 0.05, "wait": 0.9}

    assert judged(curve=line)[0] == "tool time"
    assert "40% of their time in tools" in judged(curve=line)[1]
    points = [made_point(n, x, time_share=people) for n, x in line]
    assert saturation(points, Cluster(), np.random.default_rng(0)).cause == "people"


def test_the_bounds_of_a_closed_loop_are_read_from_its_points() -> None:
    points = [made_point(n, x) for n, x in FLAT]  # the first: 0.2 calls/s of 2 s each by one agent, so Z is 3 s
    found = closed_loop(points)

    assert found is not None
    assert found.knee == pytest.approx(5.0 * 725 / 500)
    assert found.throughput[0] == pytest.approx(0.2)
    assert found.throughput[-1] == pytest.approx(1.45)


def test_one_point_alone_says_nothing() -> None:
    with pytest.raises(CannotSay, match="a sweep of one point"):
        saturation([made_point()], Cluster(), np.random.default_rng(0))
