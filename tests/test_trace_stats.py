"""The offline analyser: against sums worked out by hand, a cache that moves single tokens, and published figures.

The recorded traces are not part of this repository: their tests run where AGENTLOAD_TRACES names a folder with
`AzureLLMInferenceTrace_code.csv`, `AzureLLMInferenceTrace_conv.csv`, `mooncake_conversation_first8000.jsonl`,
`kv_cache_tester_shape.csv` and `kv_cache_tester_sample.jsonl`.
"""

import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from pytest import approx

from agentload.traces.analyse import LIFETIMES, SIZES, analyse, dispersion, timed
from agentload.traces.detect import read
from agentload.traces.graph import Agent, Call, Gap, Join, Run, Session, Start, Tool, Tools, runs
from agentload.traces.sharing import Fenwick, Prompt, Sharing
from agentload.traces.source import Complaints

TRACES = os.environ.get("AGENTLOAD_TRACES")
recorded = pytest.mark.skipif(not TRACES, reason="AGENTLOAD_TRACES names no folder with recorded traces")


def trace(name: str) -> Path:
    return Path(TRACES or "") / name


def test_calls_happen_when_gaps_tools_and_joins_let_them() -> None:
    child = Agent((Call(10, 1, seconds=4.0), Call(20, 1, seconds=1.0)), delay=1.0)
    slow = Agent((Call(30, 1, seconds=50.0),))
    session = Session(
        "s",
        Agent((
            Call(100, 1, seconds=2.0), Tools((Tool(seconds=1.0), Tool(seconds=3.0))),
            Start((child, slow), wait=1), Call(200, 1, seconds=1.0), Join(), Gap(5.0), Call(300, 1),
        )),
    )  # fmt: skip

    assert [(one.agent, one.call.input, one.begin) for one in timed(session)] == [
        ("", 100, 0.0),
        ("1", 30, 5.0),
        ("0", 10, 6.0),
        ("0", 20, 10.0),
        ("", 200, 11.0),  # when the first of the two has ended
        ("", 300, 60.0),  # 5 + 50, and the gap
    ]


def test_the_ideal_hit_counts_what_any_earlier_call_had() -> None:
    first = Agent((Call(100, 5, 0, (Run(1, 10, 8),)), Call(150, 5, 100, (Run(50, 10, 5),))))
    second = Agent((Call(120, 5, 0, (Run(1, 10, 4), Run(90, 10, 4))),))
    alone = analyse([Session("a", first), Session("b", second)])
    shared = analyse([Session("a", first, shared=True), Session("b", second, shared=True)])

    assert alone.hit == approx(100 / 370)
    assert shared.hit == approx((100 + 40) / 370)
    assert alone.new == shared.new == [50.0] * 8
    assert (shared.sessions, shared.calls, shared.in_out) == (2, 3, 370 / 15)


def test_a_sub_agent_may_begin_with_its_parents_prompt() -> None:
    child = Agent((Call(130, 5, 100, (Run(7, 30),)),))
    stats = analyse([Session("a", Agent((Call(100, 5, 0, (Run(1, 100),)), Start((child,)))))])

    assert stats.hit == approx(100 / 230)
    assert (stats.sub_agents, stats.fan_out[2], stats.sub_agent_calls[2]) == (1.0, 1.0, 1.0)


def test_growth_is_the_exponent_of_input_against_calls() -> None:
    sessions = [Session(str(n), Agent(tuple(Call(1_000 * (i + 1), 1) for i in range(n)))) for n in range(50, 400, 10)]
    stats = analyse(sessions)

    assert stats.growth == approx(2.0, abs=0.02)  # n (n + 1) / 2
    assert stats.growth_fresh == stats.growth


def test_dispersion_of_even_clumped_and_random_starts() -> None:
    rng = np.random.default_rng(3)
    assert dispersion(np.arange(1_000.0), 10) == 0.0
    assert dispersion(np.repeat(np.arange(0, 1_000.0, 20), 20), 10) == approx(10.0, rel=0.05)  # 0 or 20
    assert dispersion(np.sort(rng.uniform(0, 10_000, 50_000)), 10) == approx(1.0, abs=4 * np.sqrt(2 / 1_000))
    assert dispersion(np.array([1.0, 2.0]), 10) is None


def test_cache_size_and_lifetime_are_those_of_a_cache_that_moves_single_pieces() -> None:
    """Against an LRU of single pieces, the end of a prompt before its start, at every size."""
    rng = np.random.default_rng(11)
    sizes, ages = (40, 100, 250, 600, 2_000), (3.0, 10.0, 40.0)
    sharing = Sharing(sizes, ages)
    prompts = {agent: Prompt() for agent in range(6)}
    texts: dict[int, list[tuple[int, int]]] = {agent: [] for agent in prompts}
    caches: list[OrderedDict[tuple[tuple[int, int], ...], int]] = [OrderedDict() for _ in sizes]
    used: dict[tuple[tuple[int, int], ...], float] = {}
    hits, young = np.zeros(len(sizes)), np.zeros(len(ages))
    for now in range(400):
        agent = int(rng.integers(6))
        before = texts[agent]
        kept = before[: int(rng.integers(len(before) + 1))] if rng.random() < 0.3 else before[:60]
        more = [(int(rng.integers(3)), 1) for _ in range(int(rng.integers(1, 9)))]
        text = texts[agent] = kept + more
        keep = sum(tokens for _, tokens in kept)
        sharing.add(prompts[agent], Call(keep + sum(t for _, t in more), 1, keep, runs(more)), now, 0)
        heads = [tuple(text[: i + 1]) for i in range(len(text))]
        for k, limit in enumerate(sizes):
            for head in heads:
                if head not in caches[k]:
                    break
                hits[k] += head[-1][1]
            for head in reversed(heads):  # the end is used first, so it is the older
                caches[k].pop(head, None)
                caches[k][head] = head[-1][1]
            while sum(caches[k].values()) > limit:
                caches[k].popitem(last=False)
        for k, age in enumerate(ages):
            young[k] += sum(h[-1][1] for h in heads if h in used and now - used[h] <= age)
        used |= dict.fromkeys(heads, float(now))

    assert sharing.by_lifetime == approx(young)
    assert sharing.by_size.tolist() == hits.tolist()
    assert sharing.ideal >= sharing.by_size[-1] > sharing.by_size[0]


def test_a_memory_that_begins_anew_forgets_the_prompts_of_those_who_go_on() -> None:
    whole, small = Sharing((10,), (1.0,)), Sharing((10,), (1.0,), most=40)
    for sharing in (whole, small):
        prompts = [Prompt() for _ in range(5)]
        for step in range(20):
            for agent, prompt in enumerate(prompts):
                call = Call(10 * (step + 1), 1, 10 * step, (Run(1_000 * agent + step, 10),))
                sharing.add(prompt, call, step, 0)

    assert whole.ideal == 5 * sum(10 * step for step in range(20))
    assert 0.5 * whole.ideal < small.ideal < whole.ideal
    assert small.input == whole.input


def test_what_is_kept_of_what_nobody_said_was_not_seen() -> None:
    """A trace that begins in the middle."""
    stats = analyse([Session("a", Agent((Call(100, 5, 80), Call(150, 5, 100))))])

    assert stats.hit == approx(100 / 250)


def test_sums_over_calls_are_those_of_a_list() -> None:
    rng, sums, plain = np.random.default_rng(5), Fenwick(), list[int]()
    for _ in range(300):
        if plain and rng.random() < 0.4:
            where, change = int(rng.integers(len(plain))), int(rng.integers(-5, 6))
            sums.add(where, change)
            plain[where] += change
        else:
            plain.append(int(rng.integers(10)))
            sums.append(plain[-1])
        where = int(rng.integers(len(plain)))
        assert sums.until(where) == sum(plain[: where + 1])
        assert sums.total == sum(plain)


@recorded
def test_azure_is_as_published() -> None:
    code = analyse(read(trace("AzureLLMInferenceTrace_code.csv"), Complaints(fatal=True)))
    conv = analyse(read(trace("AzureLLMInferenceTrace_conv.csv"), Complaints(fatal=True)))

    assert code.sessions == 8_819 and conv.sessions == 19_366
    assert [code.span, conv.span] == approx([3_436, 3_502], abs=0.5)
    assert [code.rate, conv.rate] == approx([2.57, 5.53], abs=0.005)
    assert [code.input[2], code.input[7], code.output[2], code.output[4], code.output[7]] == approx(
        [1_469, 2_048, 13, 55, 28], abs=0.5
    )
    assert code.input[4] == approx(5_194, rel=0.002)  # another definition of the quantile
    assert [conv.input[2], conv.input[4], conv.input[7], conv.output[2], conv.output[4], conv.output[7]] == approx(
        [1_020, 2_735, 1_155, 129, 424, 211], abs=0.51
    )
    assert [code.in_out, conv.in_out] == approx([73.5, 5.5], abs=0.06)
    assert [code.gap_cv, conv.gap_cv] == approx([13.2, 1.09], abs=0.055)
    assert list(code.dispersion.values()) == approx([13, 72, 164], abs=0.5)
    assert list(conv.dispersion.values()) == approx([1.4, 3.9, 16], rel=0.03)
    assert code.hit is None


@recorded
def test_mooncake_is_as_published() -> None:
    """The first 8,000 of 12,031 lines: shares and sizes of the whole are near."""
    stats = analyse(read(trace("mooncake_conversation_first8000.jsonl"), Complaints(fatal=True)))

    assert stats.sessions == 8_000
    assert stats.rate == approx(3.40, rel=0.05)
    assert [stats.input[2], stats.input[4], stats.input[7]] == approx([6_909, 27_367, 12_035], rel=0.05)
    assert [stats.output[2], stats.output[4], stats.output[7]] == approx([350, 597, 343], rel=0.03)
    assert stats.in_out == approx(35.1, rel=0.03)
    assert [stats.dispersion["10"], stats.dispersion["60"]] == approx([2.1, 2.9], abs=0.15)
    assert [stats.piece_hit, stats.hit] == approx([0.366, 0.374], abs=0.02)


@recorded
def test_kv_cache_tester_is_as_published() -> None:
    stats = analyse(read(trace("kv_cache_tester_shape.csv"), Complaints(fatal=True)))

    assert (stats.sessions, stats.calls) == (710, 49_334)
    assert stats.growth_fresh == approx(1.33, abs=0.005)
    assert stats.growth_error == approx(0.03, abs=0.005)
    assert stats.growth == approx(1.01, abs=0.005)
    assert stats.hit == approx(0.9636, abs=0.001)
    published = {
        "calls_per_session": [7, 18, 45, 94, 156, 232, 330, 68.5],
        "first": [15.5e3, 18.6e3, 24.5e3, 104e3, 259e3, 378e3, 716e3, 91e3],
        "input": [43e3, 68e3, 105e3, 139e3, 236e3, 302e3, 500e3, 123e3],
        "output": [105, 137, 216, 429, 899, 1_544, 3_663, 439],
        "new": [230, 372, 705, 1_672, 4_064, 7_894, 61e3, 3_205],
    }
    for name, wanted in published.items():
        assert getattr(stats, name) == approx(wanted, rel=0.02), name
    assert stats.sub_agents == approx(0.089, abs=0.0005)
    assert [stats.sub_agent_calls[2], stats.sub_agent_calls[4]] == [11, 17]


def test_the_curves_cover_what_servers_have() -> None:
    assert SIZES[0] < 20_000 and SIZES[-1] > 1e9
    assert {60.0, 300.0, 480.0, 3_600.0} <= set(LIFETIMES)
