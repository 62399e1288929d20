"""The built-in archetypes against the figures they imitate, and what an archetype can be told to do."""

import itertools
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec import structs
from pytest import approx

from agentload.traces.analyse import Stats, analyse
from agentload.traces.graph import Call, Gap, Start
from agents.archetypes import ARCHETYPES, CODER, FIXED, Archetype
from agents.chain import Chat, Note, Wait
from agents.dice import Dice, draw
from agents.draws import Gamma, LogNormal, Quantiles, Tailed, Uniform, Weibull, scaled
from agents.kind import Variant
from agents.sized import sized
from agents.text import Room
from tests.made_sessions import sessions
from tests.test_chains import obey, play

P10, P50, P90, MEAN = 0, 2, 4, 7


def stats(name: str, count: int = 200) -> Stats:
    return analyse(sessions(ARCHETYPES, name, count))


def one(kind: Archetype, seed: int = 0, context: int = 1_000_000) -> tuple[list[Any], Any]:
    return play(sized("one", kind, np.random.default_rng(seed), 0, Room(context)))


def inputs(asks: list[Any]) -> list[int]:
    return [ask.wanted_input or 0 for ask in asks if isinstance(ask, Chat)]


@pytest.mark.parametrize("name", ARCHETYPES)
def test_every_archetype_says_whom_it_imitates_and_survives_a_spec(name: str) -> None:
    kind = ARCHETYPES[name]

    assert len(kind.about) > 40
    assert msgspec.convert(msgspec.to_builtins(kind), Archetype) == msgspec.convert(
        msgspec.to_builtins(msgspec.convert(msgspec.to_builtins(kind), Archetype)), Archetype
    )
    assert not kind.child or kind.child in ARCHETYPES
    assert sessions(ARCHETYPES, name, 3)


def test_the_coder_is_like_the_recorded_ones() -> None:
    """kv-cache-tester: output p50 216 p90 899, in : out 281, ideal hit 96 %, calls p50 45, new p50 705 p90 4,064;
    a session's input grows with its calls to the power 1.01, of fresh ones 1.33."""
    found = stats("coder", 150)

    assert found.hit == approx(0.964, abs=0.012)
    assert [found.output[P50], found.output[P90]] == approx([216, 899], rel=0.1)
    assert found.calls_per_session[P50] == approx(45, rel=0.25)
    assert found.input[P50] == approx(105_000, rel=0.2)
    assert [found.new[i] for i in (P50, P90)] == approx([705, 4_064], rel=0.25)
    assert found.in_out == approx(281, rel=0.15)
    assert found.growth == approx(1.01, abs=0.1)
    assert found.growth_fresh == approx(1.33, abs=0.06)


def test_the_other_coder_has_the_hit_of_the_other_corpus() -> None:
    assert stats("coder-churn", 150).hit == approx(0.858, abs=0.02)


def test_the_researcher_is_like_open_deep_research() -> None:
    """TensorRT-LLM blog 27: output p50 632, ideal hit 47.8 %, 2-4 researchers side by side."""
    found = stats("researcher")

    assert found.hit == approx(0.478, abs=0.04)
    assert found.output[P50] == approx(632, rel=0.08)
    assert 2 <= found.fan_out[P10] <= found.fan_out[P90] <= 4
    assert found.sub_agent_calls[P50] == approx(12, abs=1)


def test_support_agents_are_like_tau_bench() -> None:
    """Calls p10 5, p50 11, p90 20, mean 12.3; output p50 53 p90 133 mean 71; in : out 39."""
    found = stats("support", 300)

    assert [found.calls_per_session[i] for i in (P50, P90, MEAN)] == approx([11, 20, 12.3], rel=0.1)
    assert [found.output[i] for i in (P50, P90, MEAN)] == approx([53, 133, 71], rel=0.06)
    assert found.in_out == approx(39, rel=0.15)
    assert found.hit is not None and 0.85 <= found.hit <= 0.95


def test_explorers_are_like_recorded_sub_agents() -> None:
    """Calls p50 11, p90 17; first input p50 10.3k, p90 12.3k; output p50 235, p90 529."""
    found = stats("explorer", 300)

    assert [found.calls_per_session[i] for i in (P50, P90)] == approx([11, 17], rel=0.1)
    assert [found.first[i] for i in (P50, P90)] == approx([10_300, 12_300], rel=0.1)
    assert [found.output[i] for i in (P50, P90)] == approx([235, 529], rel=0.06)


def test_orchestrators_multiply_their_calls() -> None:
    found = stats("orchestrator", 100)

    assert 2 <= found.sub_agents <= 10
    assert found.fan_out[P90] >= 4
    assert found.calls > 4 * found.sessions * found.calls_per_session[MEAN]


def test_people_who_chat_are_like_azures() -> None:
    """Input p50 1,020, p90 2,735 of first messages; output p50 129, p90 424."""
    found, long = stats("chat", 500), stats("chat-long", 500)

    assert [found.first[i] for i in (P50, P90)] == approx([1_020, 2_200], rel=0.12)
    assert [found.output[i] for i in (P50, P90)] == approx([129, 424], rel=0.1)
    assert [long.first[P50], long.output[P50]] == approx([6_909, 350], rel=0.12)


def test_a_rag_session_is_a_search_and_an_answer_and_a_batch_wakes_again() -> None:
    rag, batch = stats("rag", 100), sessions(ARCHETYPES, "batch", 20)

    assert rag.calls == 200
    for session in batch:
        gaps = [step.seconds for step in session.root.steps if isinstance(step, Gap)]
        assert len(gaps) == 5 and gaps[0] <= 2.0  # at the minute, or up to two seconds later
        assert all(58.0 < gap < 62.0 for gap in gaps[1:])


def test_variants_keep_together_what_goes_together() -> None:
    kind = structs.replace(
        FIXED,
        variants=[
            Variant(weight=3.0, task_tokens=100.0, steps=9.0),
            Variant(weight=1.0, task_tokens=5_000.0, steps=2.0),
        ],
    )
    shapes = [(inputs(one(kind, seed)[0])[0] > 4_000, len(inputs(one(kind, seed)[0]))) for seed in range(400)]

    assert set(shapes) == {(False, 9), (True, 2)}
    assert sum(large for large, _ in shapes) == approx(100, abs=4 * np.sqrt(400 * 0.25 * 0.75))
    assert kind.scaled(0.5).variants[1].task_tokens == 2_500.0


def test_first_steps_may_grow_more_than_later_ones() -> None:
    kind = structs.replace(FIXED, steps=8.0, opening_steps=3, opening_tokens=2_000.0, growth_tokens=200.0)
    grown = [b - a for a, b in itertools.pairwise(inputs(one(kind)[0]))]

    assert grown == approx([2_000] * 3 + [200] * 4, abs=10)


def test_a_reply_is_part_of_the_growth_and_pairs_with_one_that_holds_it() -> None:
    """Both are drawn by themselves and keep their distributions, though no reply is larger than its step's growth."""
    kind = structs.replace(
        FIXED, steps=400.0, output_tokens=LogNormal(200, 0.8, low=1), growth_tokens=LogNormal(600, 1.0, low=30)
    )
    asks, _ = one(kind, context=10_000_000)
    grown = np.diff(inputs(asks))
    outputs = np.array([ask.max_tokens for ask in asks if isinstance(ask, Chat)])[:-1]

    assert np.median(grown) == approx(600, rel=0.15)
    assert np.median(outputs) == approx(200, rel=0.12)
    assert np.mean(outputs > grown) < 0.01


def test_a_rewrite_loses_what_follows_and_keeps_the_size() -> None:
    kind = structs.replace(FIXED, task_tokens=4_000.0, steps=30.0, rewrite=1.0, rewrite_keep=0.5, growth_tokens=200.0)
    (session,) = sessions({"fixed": kind}, "fixed", 1)
    calls = [step for step in session.root.steps if isinstance(step, Call)]

    for before, call in itertools.pairwise(calls):
        assert call.input == approx(before.input + 200, abs=20)
        assert call.keep == approx(0.5 * call.input, rel=0.03)


def test_a_reset_forgets_most_of_the_history() -> None:
    kind = structs.replace(FIXED, task_tokens=4_000.0, steps=40.0, reset=0.2, reset_to=0.5, growth_tokens=500.0)
    sizes = inputs(one(kind, seed=3)[0])
    falls = [b / a for a, b in itertools.pairwise(sizes) if b < a]

    assert len(falls) == approx(0.2 * 39, abs=4 * np.sqrt(39 * 0.16))
    assert falls == approx([0.5] * len(falls), abs=0.1)


def test_sessions_compact_where_their_harness_does_and_each_at_its_own_size() -> None:
    kind = structs.replace(
        FIXED, steps=60.0, growth_tokens=500.0, at_limit="compact", compact_to=0.3, compact_at=Uniform(5_000, 20_000)
    )
    peaks = []
    for seed in range(30):
        asks, outcome = one(kind, seed)
        sizes = inputs(asks)
        peaks += [a for a, b in itertools.pairwise(sizes) if b < a]
        assert outcome.status == "done" and Note("compactions") in asks
    assert min(peaks) < 8_000 and max(peaks) > 17_000 and max(peaks) <= 20_000


def test_a_person_may_be_asked_between_two_steps_and_is_counted() -> None:
    kind = structs.replace(FIXED, steps=200.0, pause=0.1, think_seconds=90.0, longest_wait=60.0, growth_tokens=100.0)
    asks, outcome = one(kind)
    waits = [ask for ask in asks if isinstance(ask, Wait)]

    assert set(waits) == {Wait(60.0)} if waits else False
    assert outcome.intents == len(waits) + 1
    assert len(waits) == approx(20, abs=4 * np.sqrt(18))


def test_sub_agents_are_started_as_often_as_the_archetype_says() -> None:
    kinds = {
        "lead": structs.replace(FIXED, steps=6.0, children=2.0, child="kid", spawns=3.0, growth_tokens=200.0),
        "kid": structs.replace(FIXED, steps=2.0, children=1.0, child="kid"),
    }
    (session,) = sessions(kinds, "lead", 1, depth=3)

    starts = [step for step in session.root.steps if isinstance(step, Start)]
    assert [len(start.agents) for start in starts] == [2, 2, 2]
    found = analyse([session])
    assert found.sub_agents == 6 * 3  # each child has a child, and that one another, and no deeper


@pytest.mark.parametrize(
    "what",
    [
        Gamma(2.0, 50.0, low=10, high=400),
        Weibull(0.8, 100.0, low=10, high=800),
        Tailed(300.0, 0.7, 900.0, 0.1, 1.5, low=20, high=50_000),
        Quantiles([1.0, 10.0, 100.0, 1_000.0]),
    ],
)
def test_draws_scale_and_keep_their_bounds(what: Any) -> None:
    whole = np.array([draw(what, r) for r in np.random.default_rng(0).spawn(3_000)])
    tenth = np.array([draw(scaled(what, 0.1), r) for r in np.random.default_rng(0).spawn(3_000)])

    assert tenth == approx(whole / 10)
    low, high = (what.values[0], what.values[-1]) if isinstance(what, Quantiles) else (what.low, what.high)
    assert low <= whole.min() and whole.max() <= high


def test_a_tail_has_its_share_and_its_exponent() -> None:
    what = Tailed(300.0, 0.7, 900.0, 0.1, 1.5)
    values = np.array([draw(what, r) for r in np.random.default_rng(1).spawn(20_000)])
    tail = values[values > 900]

    assert tail.size / values.size == approx(0.1, abs=4 * np.sqrt(0.09 / 20_000))
    assert tail.size / np.log(tail / 900).sum() == approx(1.5, rel=4 / np.sqrt(tail.size))
    below = values[values <= 900]
    assert np.median(below) == approx(300 * np.exp(0.7 * -0.081), rel=0.03)  # the median of a normal cut at 1.57


def test_a_table_of_quantiles_is_drawn_as_it_is() -> None:
    values = np.array([draw(Quantiles([1.0, 10.0, 100.0]), r) for r in np.random.default_rng(2).spawn(8_000)])

    assert np.quantile(values, [0.25, 0.5, 0.75]) == approx([np.sqrt(10), 10, 10 * np.sqrt(10)], rel=0.08)
    with pytest.raises(ValueError, match="in rising order"):
        Quantiles([2.0, 1.0])


def test_coders_resume_and_begin_anew() -> None:
    dice = Dice(np.random.default_rng(0))
    first = np.array([draw(CODER.for_session(dice).task_tokens, dice) for _ in range(4_000)])
    assert np.mean(first < 25_000) == approx(0.55, abs=0.03)


def test_reasoning_is_a_share_of_each_reply_and_does_not_stay_in_the_history() -> None:
    kind = structs.replace(FIXED, reasoning=Uniform(0.2, 0.6), output_tokens=100.0, growth_tokens=150.0, steps=40.0)

    def thinks(ask: Any) -> Any:
        reply = obey(ask)
        return structs.replace(reply, reasoning_tokens=ask.reasoning) if isinstance(ask, Chat) else reply

    asks, _ = play(sized("one", kind, np.random.default_rng(0), 0, Room(1_000_000)), thinks)
    chats = [ask for ask in asks if isinstance(ask, Chat)]

    assert all(20 <= (chat.reasoning or 0) <= 60 for chat in chats)
    assert np.mean([chat.reasoning for chat in chats]) == approx(40, abs=4 * 40 / np.sqrt(12 * 40))
    assert set(np.diff(inputs(asks)).tolist()) == {154}  # what is stated, whatever was thought, and the template's 4
    assert {chat.reasoning for chat in play(sized("one", FIXED, np.random.default_rng(0), 0, Room(9_999)))[0]
            if isinstance(chat, Chat)} == {None}  # fmt: skip
