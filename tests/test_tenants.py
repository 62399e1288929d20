"""Tenants: shares, quotas held before sending, retries of their own, several endpoints."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from test_run import QUICK, run

from agentload.box.serve import BoxProcess
from agentload.plan import interleave
from agentload.quota import Quota
from agents.chain import Chat, Context, Message


def waits(quota: Quota, calls: list[Chat]) -> list[float]:
    """When each of the calls got through, in seconds."""

    async def main() -> list[float]:
        loop, times = asyncio.get_running_loop(), []
        start = loop.time()
        for chat in calls:
            await quota.wait(chat)
            times.append(loop.time() - start)
        return times

    return asyncio.run(main())


def chat(tokens: int) -> Chat:
    return Chat(Context([Message("user", tokens)]), 0, wanted_input=tokens)


def test_a_request_quota_lets_so_many_through_in_any_window() -> None:
    times = np.array(waits(Quota(4, None, period=0.3), [chat(1)] * 12))

    assert (times[4:] - times[:-4] >= 0.3).all()
    assert times[-1] == pytest.approx(0.6, abs=0.15)


def test_a_token_quota_counts_tokens_and_a_call_larger_than_all_of_it_still_passes() -> None:
    times = waits(Quota(None, 1_000, period=0.3), [chat(500), chat(500), chat(500), chat(9_000)])

    assert times[1] < 0.1
    assert 0.3 <= times[2] < 0.45
    assert 0.6 <= times[3] < 0.9


def test_weights_are_kept_in_every_stretch() -> None:
    order = interleave({"a": 3.0, "b": 1.0, "c": 0.5})

    for size in (9, 18, 45):
        for begin in range(0, len(order) - size, 7):
            part = order[begin : begin + size]
            assert abs(part.count("a") - size * 3 / 4.5) <= 1
            assert abs(part.count("c") - size * 0.5 / 4.5) <= 1


def test_tenants_share_the_load_keep_their_quotas_and_are_told_apart(tmp_path: Path) -> None:
    spec = tmp_path / "tenants.toml"
    spec.write_text("""
duration = 3
drain = 0
profile = { type = "poisson", rate = 12.0 }
population = [{ archetype = "fixed" }]
[[tenants]]
name = "big"
weight = 2
[[tenants]]
name = "small"
requests_per_minute = 5
[archetypes.fixed]
steps = 1
output_tokens = 4
task_tokens = 50
""")
    with BoxProcess(QUICK) as a, BoxProcess(QUICK) as b:
        spec.write_text(f'urls = {{ "{a}" = 1.0, "{b}" = 1.0 }}\n' + spec.read_text())
        result = run(str(spec), out=tmp_path / "runs")
    calls = result.calls
    made = calls.session >= 0
    big, small = made & (calls.tenant == "big"), made & (calls.tenant == "small")
    summary = json.loads(next(tmp_path.glob("runs/*/summary.json")).read_text())

    assert set(calls.tenant[made].tolist()) == {"big", "small"}
    assert small.sum() == 5  # the rest wait for the minute to pass, and the run ends
    assert big.sum() > 10
    assert calls.throttled[big].max() == 0
    assert set(calls.endpoint[made].tolist()) == {a, b}
    both = [calls.endpoint[made & (calls.session == n)].tolist() for n in set(calls.session[made].tolist())]
    assert all(len(set(urls)) == 1 for urls in both)
    assert summary["tenants"]["small"]["calls"] == 5
    assert set(summary["endpoints"]) == {a, b}
