"""Chains, driven by hand with `next` and `send`."""

import itertools
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from agentload.plan import Plan
from agentload.rehearse import mid_session, rehearse
from agentload.spec import decode
from agents.archetypes import ARCHETYPES, CODER, FIXED, SUPPORT, Archetype, PythonTool, SimulatedTool
from agents.chain import Agent, Chain, Chat, Note, Outcome, Reply, Spawn, ToolCall, ToolResult, Until, Wait
from agents.dice import Dice, count, draw
from agents.draws import LogNormal, Mixture, scaled
from agents.live import live
from agents.sized import sized
from agents.text import Room
from agents.tools import Toolbox

ROOM = Room(200_000)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def obey(ask: Any) -> Any:
    """What an ideal world answers."""
    if isinstance(ask, Chat):
        return Reply("ok", "word " * ask.max_tokens, finish_reason="length", input_tokens=ask.wanted_input or 0,
                     output_tokens=ask.max_tokens)  # fmt: skip
    if isinstance(ask, Spawn):
        return [Outcome("done", 50) for _ in ask.agents]
    if isinstance(ask, Until):
        return ask.instant
    return None if isinstance(ask, Wait | Note) else [ToolResult(call.tokens) for call in ask]


def play(chain: Chain, answer: Any = obey) -> tuple[list[Any], Outcome]:
    asks, reply = [], None
    while True:
        try:
            ask = chain.send(reply)
        except StopIteration as stop:
            return asks, stop.value
        asks.append(ask)
        reply = answer(ask)


def test_a_fixed_session_has_the_lengths_it_was_given() -> None:
    kind = structs.replace(FIXED, task_tokens=500.0, output_tokens=20.0, growth_tokens=100.0, steps=4.0)

    asks, outcome = play(sized("fixed", kind, rng(), 0, ROOM))

    chats = [ask for ask in asks if isinstance(ask, Chat)]
    assert [chat.wanted_input for chat in chats] == pytest.approx([503, 603, 703, 803], abs=20)
    assert {chat.max_tokens for chat in chats} == {20}
    assert all(chat.exact for chat in chats)
    assert [type(ask) for ask in asks] == [Chat, list, Chat, list, Chat, list, Chat]
    assert outcome == Outcome("done", 20, intents=1)


def test_history_only_grows_and_holds_what_the_server_returned() -> None:
    seen: list[list[Any]] = []

    def answer(ask: Any) -> Any:
        if isinstance(ask, Chat):
            seen.append(list(ask.context.messages))
        return obey(ask)

    play(sized("fixed", structs.replace(FIXED, steps=3.0), rng(), 0, ROOM), answer)

    for before, after in itertools.pairwise(seen):
        assert after[: len(before)] == before
        assert after[len(before)].role == "assistant"
        assert after[len(before)].text.startswith("word word")


def test_a_count_that_drifts_is_corrected_in_the_next_step() -> None:
    def short(ask: Any) -> Any:
        if isinstance(ask, Chat):
            return structs.replace(obey(ask), input_tokens=(ask.wanted_input or 0) - 40)
        return obey(ask)

    kind = structs.replace(FIXED, steps=3.0, growth_tokens=300.0)
    asks, _ = play(sized("fixed", kind, rng(), 0, ROOM), short)
    chats = [ask for ask in asks if isinstance(ask, Chat)]
    first, second = chats[0].wanted_input or 0, chats[1].wanted_input or 0
    added = chats[1].context.messages[2].tokens

    assert second == first - 40 + chats[0].max_tokens + 4 + added


def test_the_same_seed_makes_the_same_session_and_another_seed_another() -> None:
    def plan(seed: int) -> list[tuple[int, int | None]]:
        asks, _ = play(sized("coder", CODER, rng(seed), 0, ROOM))
        return [(ask.max_tokens, ask.wanted_input) for ask in asks if isinstance(ask, Chat)]

    assert plan(1) == plan(1)
    assert plan(1) != plan(2)


def test_sessions_of_an_archetype_share_their_preamble_and_nothing_else() -> None:
    a, b = (next(sized("coder", CODER, rng(seed), 7, ROOM)) for seed in (1, 2))
    assert isinstance(a, Chat) and isinstance(b, Chat)

    assert a.context.messages[0] == b.context.messages[0]
    assert a.context.messages[1].key != b.context.messages[1].key


def test_another_salt_makes_other_text_of_the_same_sizes() -> None:
    a, b = (next(sized("coder", CODER, rng(1), salt, ROOM)) for salt in (1, 2))
    assert isinstance(a, Chat) and isinstance(b, Chat)

    assert [m.tokens for m in a.context.messages] == [m.tokens for m in b.context.messages]
    assert not {m.key for m in a.context.messages} & {m.key for m in b.context.messages}


@pytest.mark.parametrize("seed", range(20))
def test_no_call_passes_the_context_length(seed: int) -> None:
    room = Room(32_000)
    for name, kind in ARCHETYPES.items():
        asks, _ = play(sized(name, structs.replace(kind, steps=60.0), rng(seed), 0, room))
        for ask in asks:
            if isinstance(ask, Chat):
                assert (ask.wanted_input or 0) + ask.max_tokens <= 32_000


def test_at_its_limit_a_chain_compacts_or_ends_as_its_archetype_says() -> None:
    long = structs.replace(FIXED, task_tokens=6_000.0, growth_tokens=2_000.0, steps=12.0)
    room = Room(16_000)

    _, ended = play(sized("fixed", long, rng(), 0, room))
    asks, compacted = play(sized("fixed", structs.replace(long, at_limit="compact"), rng(), 0, room))

    assert (ended.status, ended.intents) == ("context_limit", 0)
    assert compacted.status == "done"
    assert asks.count(Note("compactions")) == 2
    inputs = [ask.wanted_input or 0 for ask in asks if isinstance(ask, Chat)]
    assert sum(b < a for a, b in itertools.pairwise(inputs)) == 2


def test_a_failed_call_ends_the_session_as_failed() -> None:
    _, outcome = play(sized("fixed", FIXED, rng(), 0, ROOM), lambda ask: Reply("http_500"))

    assert outcome.status == "failed"


def test_a_parent_spawns_its_children_once_and_joins_what_they_say() -> None:
    kind = structs.replace(FIXED, children=3.0, child="fixed", steps=4.0, growth_tokens=100.0)

    def child(name: str, r: np.random.Generator) -> Agent:
        return Agent(name, sized(name, FIXED, r, 0, ROOM))

    asks, _ = play(sized("fixed", kind, rng(), 0, ROOM, child))
    spawns = [ask for ask in asks if isinstance(ask, Spawn)]
    chats = [ask for ask in asks if isinstance(ask, Chat)]

    assert [len(spawn.agents) for spawn in spawns] == [3]
    grown = [(b.wanted_input or 0) - (a.wanted_input or 0) for a, b in itertools.pairwise(chats)]
    assert grown[0] - grown[1] == 150  # three children with 50 tokens each to tell


def test_scale_shrinks_tokens_and_leaves_calls_and_seconds() -> None:
    small = CODER.scaled(0.1)
    assert (small.system_tokens, small.schema_tokens) == (280, 1230)
    assert small.steps == CODER.steps
    assert [tool.seconds for tool in small.tools] == [tool.seconds for tool in CODER.tools]
    big = [draw(CODER.task_tokens, r) for r in rng(0).spawn(2000)]
    tenth = [draw(small.task_tokens, r) for r in rng(0).spawn(2000)]
    assert np.allclose(np.array(big) / 10, tenth)


def test_the_coder_matches_the_sessions_it_imitates() -> None:
    """kv-cache-tester: calls per session p10 7, p25 18, p50 45, p75 94, p90 156, mean 68.5; output per call p50 216,
    p90 899, p99 3,663, mean 439; new tokens of later calls p25 372, p50 705, p75 1,672, p90 4,064 (those that a change
    of the history costs included)."""
    dice = Dice(rng(1))
    steps = np.array([count(CODER.for_session(dice).steps, dice, 1) for _ in range(20_000)])
    output = np.array([draw(CODER.output_tokens, dice) for _ in range(20_000)])
    growth = np.array([draw(CODER.growth_tokens, dice) for _ in range(20_000)])

    assert np.quantile(steps, [0.25, 0.5, 0.75, 0.9]) == pytest.approx([18, 45, 94, 156], rel=0.08)
    assert np.mean(steps) == pytest.approx(68.5, rel=0.05)
    assert np.quantile(output, [0.5, 0.9, 0.99]) == pytest.approx([216, 899, 3_663], rel=0.05)
    assert np.mean(output) == pytest.approx(439, rel=0.03)
    assert np.quantile(growth, [0.25, 0.5, 0.75, 0.9]) == pytest.approx([372, 705, 1_672, 4_064], rel=0.15)


def test_support_makes_the_calls_of_the_trajectories_it_imitates() -> None:
    """tau-bench: calls per session p50 11, mean 12.3; total output p50 762 tokens."""
    runs = [play(sized("support", SUPPORT, r, 0, ROOM))[0] for r in rng(3).spawn(1500)]
    calls = np.array([sum(isinstance(ask, Chat) for ask in asks) for asks in runs])
    output = np.array([sum(ask.max_tokens for ask in asks if isinstance(ask, Chat)) for asks in runs])

    assert np.mean(calls) == pytest.approx(12.3, rel=0.1)
    assert np.median(calls) == pytest.approx(11, abs=1.5)
    assert np.median(output) == pytest.approx(762, rel=0.15)


def test_mixtures_draw_their_parts_by_weight_and_lognormals_keep_their_bounds() -> None:
    mixture = Mixture([1.0, LogNormal(100, 3.0, low=50, high=200)], [3.0, 1.0])
    values = np.array([draw(mixture, r) for r in rng(4).spawn(8_000)])
    heavy = values[values != 1.0]

    assert heavy.size / values.size == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / 8_000))
    assert heavy.min() == 50
    assert heavy.max() == 200
    assert draw(scaled(mixture, 0.5), rng(0)) <= 100


def add(a: int, b: int = 1) -> int:
    """Add two numbers.

    More words that a model need not read.
    """
    return a + b


LIVE = Archetype(
    task_tokens=20.0,
    output_tokens=10.0,
    tools=[SimulatedTool(name="search", parameters={"query": "what"}, seconds=0.5, tokens=40.0, failure=0.0)],
    python_tools=[PythonTool(f"{__name__}:add")],
    max_steps=3,
    task_texts=["Do it."],
)


def start(kind: Archetype = LIVE) -> Chain:
    return live("t", kind, Toolbox(kind), rng(), 0, ROOM)


def says(*calls: ToolCall) -> Reply:
    return Reply("ok", "", tool_calls=calls, finish_reason="tool_calls", input_tokens=100, output_tokens=10)


def test_a_live_chain_sends_its_schemas_and_ends_when_the_model_answers() -> None:
    chain = start()
    chat = next(chain)
    assert isinstance(chat, Chat)

    assert [schema.name for schema in chat.context.tools] == ["search", "add"]
    assert chat.context.tools[1].description == "Add two numbers."
    assert chat.context.tools[1].parameters == {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a"],
    }
    with pytest.raises(StopIteration) as stop:
        chain.send(Reply("ok", "Done.", finish_reason="stop", input_tokens=30, output_tokens=2))
    assert stop.value.value == Outcome("done", 2, "Done.", intents=1)


def test_the_models_tool_calls_drive_a_live_chain_and_its_mistakes_are_answered() -> None:
    chain = start()
    chat = next(chain)
    assert isinstance(chat, Chat)
    tools = chain.send(
        says(
            ToolCall("search", '{"query": "x"}', "1"),
            ToolCall("add", '{"a": 2}', "2"),
            ToolCall("fly", "{}", "3"),
            ToolCall("search", '{"query":', "4"),
            ToolCall("search", "[1]", "5"),
            ToolCall("search", "{}", "6"),
        )
    )
    assert isinstance(tools, list)

    assert [tool.kind for tool in tools] == ["simulated", "python", "unknown", "malformed", "malformed", "malformed"]
    assert (tools[0].seconds, tools[0].tokens) == (0.5, 40)
    assert tools[1].run is add
    assert tools[2].text == "Error: there is no tool named 'fly'. Tools: search, add."
    again = chain.send([ToolResult(tool.tokens, tool.text, tool.ok) for tool in tools])
    assert isinstance(again, Chat)
    assert [m.call_id for m in again.context.messages if m.role == "tool"] == ["1", "2", "3", "4", "5", "6"]


def test_a_live_chain_lets_its_model_correct_itself_but_not_for_ever() -> None:
    wrong, right = says(ToolCall("search", "{}", "1")), says(ToolCall("search", '{"query": "x"}', "1"))
    kind = structs.replace(LIVE, max_mistakes=3, max_steps=50)

    def replies(*turns: Reply) -> tuple[list[Any], Outcome]:
        left = iter(turns)
        return play(start(kind), lambda ask: next(left, wrong) if isinstance(ask, Chat) else obey(ask))

    asks, outcome = replies(wrong, wrong, right, wrong, wrong, right, Reply("ok", "Done.", output_tokens=2))
    assert outcome.status == "done"
    asks, outcome = replies(right)
    assert outcome.status == "failed"
    assert sum(isinstance(ask, Chat) for ask in asks) == 4


def test_a_live_chain_stops_at_its_step_limit() -> None:
    def loop(ask: Any) -> Any:
        return says(ToolCall("search", '{"query": "x"}', "1")) if isinstance(ask, Chat) else obey(ask)

    asks, outcome = play(start(), loop)

    assert sum(isinstance(ask, Chat) for ask in asks) == 3
    assert outcome.status == "step_limit"


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("json", "must be named module:function, got 'json'"),
        ("no_such_module:f", "cannot be loaded: No module named 'no_such_module'"),
        ("json:nothing", "cannot be loaded: module 'json' has no attribute 'nothing'"),
        ("math:pi", "is not a function"),
    ],
)
def test_a_python_tool_that_is_none_is_named(name: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Toolbox(structs.replace(LIVE, python_tools=[PythonTool(name)]))


def test_an_agent_can_begin_mid_session_with_the_past_it_would_have_had() -> None:
    kind = structs.replace(FIXED, steps=20.0, growth_tokens=200.0)

    def agent() -> Agent:
        return Agent("fixed", sized("fixed", kind, rng(3), 0, ROOM))

    whole = [ask for ask in play(agent().chain)[0] if isinstance(ask, Chat)]
    begun = []
    for seed in range(200):
        asks, outcome = play(mid_session(agent(), agent(), rng(seed)).chain)
        chats = [ask for ask in asks if isinstance(ask, Chat)]
        assert [chat.wanted_input for chat in chats] == [chat.wanted_input for chat in whole[-len(chats) :]]
        assert outcome.status == "done"
        begun.append(20 - len(chats))
        text = chats[0].context.messages[1].text if begun[-1] else "word"
        assert text is not None and text.split()

    assert np.mean(begun) == pytest.approx(9.5, abs=4 * np.sqrt(399 / 12 / 200))
    assert (min(begun), max(begun)) == (0, 19)


@pytest.mark.parametrize(("depth", "agents"), [(0, 1), (1, 3), (2, 7)])
def test_sub_agents_start_sub_agents_to_the_depth_that_their_root_says(depth: int, agents: int) -> None:
    kind = {"base": "fixed", "steps": 2, "children": 2, "child": "lead", "depth": depth}
    plain = {"sessions": 1, "population": [{"archetype": "lead"}], "profile": {"type": "held", "agents": 1}}
    plan = Plan(decode(plain | {"archetypes": {"lead": kind}}), ROOM, salt=0)
    calls: list[Chat] = []

    rehearse(plan.agent(0), calls)

    assert len(calls) == 2 * agents
