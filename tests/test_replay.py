"""Replay: a recorded session is asked for again, as it was; against the box too, with sockets and a prefix cache."""

import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest import approx

from agentload.box.options import BoxOptions
from agentload.box.serve import BoxProcess
from agentload.traces.analyse import analyse, timed
from agentload.traces.detect import read
from agentload.traces.graph import Agent, Call, Gap, Piece, Session, Start, Thread, Tool, Tools, common
from agentload.traces.source import Complaints
from agents.chain import Chat, Outcome, Reply, Spawn, ToolCall, ToolResult, Wait
from agents.replay import FULL, Conversation, Pace, Way, World, mix, prompt, replay
from agents.text import Calibration, Encoder, Room
from collectors.load import Run
from tests.replayed import BOX, play

TRACES = os.environ.get("AGENTLOAD_TRACES")
ROOM = Room(1_000_000, BOX)
FAST = BoxOptions(speed=200.0, sigma=0.0, kv_tokens=2_000_000, context=200_000)


def made(seed: int, calls: int = 8) -> Session:
    """A session with a growing history of 64-token blocks, a rewrite, tools, pauses and two sub-agents at once."""
    rng = np.random.default_rng(seed)
    blocks = itertools.count(1)

    def agent(calls: int, first: int) -> Agent:
        thread, pieces, steps = Thread(), list[Piece](), list[Any]()
        for i in range(calls):
            if i == 5:
                pieces = pieces[:20]
            pieces = pieces + [(next(blocks), 64) for _ in range(int(rng.integers(5, 40)) + (first if not i else 0))]
            size = 64 * len(pieces) + int(rng.integers(64))
            if i:
                steps.append(Tools((Tool("sh", 0.05, 30),)) if i % 3 else Gap(30.0, person=True))
            steps.append(thread.call(pieces, size, int(rng.integers(5, 30)), seconds=0.1))
            if i == 2 and first > 50:
                steps.append(Start((agent(3, 10), Agent(agent(3, 20).steps, delay=0.05))))
        return Agent(tuple(steps))

    return Session(f"made-{seed}", agent(calls, 100))


def asks(chain: Any) -> list[Any]:
    found, answer = [], None
    while True:
        try:
            ask = chain.send(answer)
        except StopIteration as stop:
            found.append(stop.value)
            return found
        found.append(ask)
        match ask:
            case Chat():
                answer = Reply("ok", "x", output_tokens=ask.max_tokens, input_tokens=ask.wanted_input or 0)
            case Spawn():
                answer = [asks(child.chain)[-1] for child in ask.agents]
            case Wait():
                answer = None
            case _:
                answer = [ToolResult(call.tokens) for call in ask]


def test_a_session_is_asked_for_again_step_by_step() -> None:
    session = Session(
        "s",
        Agent((
            Call(1_000, 50), Tools((Tool("sh", 2.0, 40), Tool("rm", 1.0, 9, ok=False))), Call(1_200, 0, 1_000),
            Gap(3_600.0, person=True), Start((Agent((Call(300, 5),), "kid", delay=4.0),)), Call(900, 7),
        )),
    )  # fmt: skip
    agent = replay(session, Pace(longest_gap=10.0, speed=2.0), ROOM, Way(0))
    one, tools, two, wait, spawn, three, outcome = asks(agent.chain)

    assert [(chat.wanted_input, chat.max_tokens, chat.exact) for chat in (one, two, three)] == [
        (1_000, 50, True),
        (1_200, 1, True),
        (900, 7, True),
    ]
    assert tools == [ToolCall("sh", seconds=1.0, tokens=40), ToolCall("rm", seconds=0.5, tokens=9, ok=False)]
    assert wait == Wait(5.0)  # ten seconds at most, twice as fast
    assert spawn.agents[0].archetype == "kid"
    assert outcome == Outcome("done", 7, intents=2)
    (first, *_) = asks(replay(session, Pace(), ROOM, Way(0)).chain)
    assert isinstance(first, Chat)


def test_scale_makes_every_prompt_smaller_and_keeps_what_they_share() -> None:
    session, pace = made(3), Pace(scale=0.1)
    whole = [ask for ask in asks(replay(session, Pace(), ROOM, Way(0)).chain) if isinstance(ask, Chat)]
    small = [ask for ask in asks(replay(session, pace, ROOM, Way(0)).chain) if isinstance(ask, Chat)]

    assert [chat.wanted_input for chat in small] == approx([0.1 * (chat.wanted_input or 0) for chat in whole], rel=0.02)
    texts = ["".join(text(chat)) for chat in small]
    shared = [common(a, b) / len(a) for a, b in itertools.pairwise(texts)]
    assert min(shared[:4]) > 0.97  # all but the open last block


def text(chat: Chat) -> list[str]:
    return [Encoder(BOX).plain(message)["content"] for message in chat.context.messages]


def test_equal_pieces_are_equal_text_whoever_sends_them() -> None:
    """Blocks shared by two sessions, in prompts of other lengths and so in other messages."""
    head = [(n, 512) for n in range(20)]
    long = [*head, *((n, 512) for n in range(100, 120))]
    short = [*head, (900, 77)]
    a, b = ("\n".join(text(Chat(Conversation(1.0, ROOM).tell(pieces)[0], 1))) for pieces in (long, short))
    words = len(a[: common(a, b)].split()) - 1

    assert words >= 20 * 512 - 5 * (20 * 512 // FULL + 1)  # all of it, less what the template costs in messages


def test_a_rest_too_small_for_a_message_of_its_own_joins_the_last_one() -> None:
    head = [(n, 512) for n in range(8)]  # fills a message
    (alone,) = Conversation(1.0, ROOM).tell(head)[0].messages
    (joined,) = Conversation(1.0, ROOM).tell([*head, (99, 5)])[0].messages

    assert joined.tokens == alone.tokens + 5
    assert joined.parts[: len(head) - 1] == alone.parts[: len(head) - 1]


@pytest.mark.parametrize("scale", [1.0, 0.13])
def test_a_prompt_is_the_same_messages_whatever_was_told_before(scale: float) -> None:
    rng, told = np.random.default_rng(2), Conversation(scale, ROOM)
    pieces: list[tuple[int, int]] = []
    for _ in range(60):
        if rng.random() < 0.3:
            pieces = pieces[: int(rng.integers(len(pieces) + 1))]
        pieces = pieces + [(int(rng.integers(1 << 40)), int(rng.integers(1, 900))) for _ in range(rng.integers(1, 30))]
        context, tokens = told.tell(pieces)
        fresh, same = Conversation(scale, ROOM).tell(pieces)
        assert (context.messages, tokens) == (fresh.messages, same)
        assert tokens == approx(scale * sum(size for _, size in pieces), abs=1)


def test_a_session_that_begins_in_its_middle_asks_for_the_rest_with_the_same_prompts() -> None:
    session = made(3)
    whole = [ask for ask in asks(replay(session, Pace(), ROOM, Way(0)).chain) if isinstance(ask, Chat)]
    rest = asks(replay(session, Pace(), ROOM, Way(0, past=0.5, wait=3.0)).chain)

    assert rest[0] == Wait(3.0)
    assert isinstance(rest[1], Chat)  # four of eight calls are done, and what followed them
    assert [text(chat) for chat in rest if isinstance(chat, Chat)] == [text(chat) for chat in whole[4:]]
    assert not any(isinstance(ask, Spawn) for ask in rest)  # its sub-agents have done their work


@pytest.mark.parametrize("per_word", [1.0, 1.3, 2.7])
def test_shared_text_stays_shared_where_words_are_not_tokens(per_word: float) -> None:
    room = Room(1_000_000, Calibration(per_word, 7.0, 9.0, 5.0, counted=True))
    head = [(n, 64) for n in range(50)]
    prompts = [[*head, (1_000 + i, 10 + i)] for i in range(5)]
    texts = []
    for pieces in prompts:
        context, tokens = Conversation(1.0, room).tell(pieces)
        assert tokens == 50 * 64 + pieces[-1][1]
        texts.append(" ".join(Encoder(room.calibration).plain(message)["content"] for message in context.messages))
    for a, b in itertools.pairwise(texts):
        assert len(a[: common(a, b)].split()) * per_word >= 50 * 64 - 30


def test_copies_share_nothing_and_sessions_of_a_shared_trace_do() -> None:
    session = Session("s", Agent((Call(2_000, 5, 0, ((1, 100, 20),)),)), shared=True)  # type: ignore[arg-type]
    other = Session("t", session.root, shared=True)

    def sent(session: Session, copy: int = 0, salt: int = 4) -> str:
        return "".join(text(asks(replay(session, Pace(), ROOM, Way(salt, copy)).chain)[0]))

    assert sent(session) == sent(session) == sent(other)
    assert sent(Session("t", session.root)) != sent(Session("s", session.root))
    for another in (sent(session, copy=1), sent(session, salt=5)):
        assert common(another, sent(session)) < 100


def test_what_the_context_cannot_hold_ends_the_session_visibly() -> None:
    session = Session("s", Agent((Call(500, 50), Call(5_000, 50))))

    assert asks(replay(session, Pace(), Room(1_000, BOX), Way(0)).chain)[-1] == Outcome("context_limit", 50, intents=0)


def test_numbers_are_mixed_alike_everywhere() -> None:
    assert mix(0, 0) == mix(0, 0) != mix(0, 1)
    assert 0 <= mix(2**62, 2**62) < 2**63
    world = World(1, 2, Pace(), ROOM)
    kept = prompt([(7, 100)], Call(150, 1, keep=60), world, "x")
    assert kept[0] == (7, 60)
    assert sum(tokens for _, tokens in kept) == 150


def hit(run: Run) -> float:
    return float(run.calls.cached_tokens.sum() / run.calls.input_tokens.sum())


def wanted(sessions: list[Session]) -> list[int]:
    return sorted(one.call.input for session in sessions for one in timed(session))


def test_the_boxs_real_hit_rate_is_the_ideal_one_and_every_prompt_is_as_long_as_recorded() -> None:
    sessions = [made(seed) for seed in range(6)]
    with BoxProcess(FAST) as url:
        run = play(url, sessions, Pace(speed=100.0))

    assert set(run.calls.status) == {"ok"}
    assert sorted(run.calls.input_tokens.tolist()) == approx(wanted(sessions), rel=0.01)
    assert hit(run) == approx(analyse(sessions).hit, abs=0.01)
    outcomes = run.sessions.where(run.sessions.agent == "")
    assert set(outcomes.outcome) == {"done"}
    assert outcomes.children.tolist() == [2] * 6
    for number in range(6):
        first, second = (run.calls.where((run.calls.session == number) & (run.calls.agent == a)) for a in "01")
        assert second.sent.min() < first.end.max() and first.sent.min() < second.end.max()  # side by side


def test_a_small_cache_hits_less() -> None:
    sessions = [made(seed) for seed in range(6)]
    with BoxProcess(BoxOptions(speed=200.0, sigma=0.0, kv_tokens=30_000, context=29_000)) as url:
        run = play(url, sessions, Pace(speed=100.0))

    assert set(run.calls.status) == {"ok"}
    assert hit(run) < (analyse(sessions).hit or 1.0) - 0.1


@pytest.mark.skipif(not TRACES, reason="AGENTLOAD_TRACES names no folder with recorded traces")
def test_recorded_sessions_hit_as_the_analysis_says() -> None:
    sessions = list(read(Path(TRACES or "") / "kv_cache_tester_sample.jsonl", Complaints(fatal=True)))
    sessions = sorted(sessions, key=lambda session: sum(one.call.input for one in timed(session)))[:10]
    sessions += [s for s in read(Path(TRACES or "") / "kv_cache_tester_sample.jsonl", Complaints())
                 if s.id == "trace_0277"]  # fmt: skip
    box = BoxOptions(speed=400.0, sigma=0.0, kv_tokens=40_000_000, context=400_000)
    with BoxProcess(box) as url:
        run = play(url, sessions, Pace(speed=2_000.0))

    assert set(run.calls.status) == {"ok"}
    assert sorted(run.calls.input_tokens.tolist()) == approx(wanted(sessions), rel=0.01)
    assert hit(run) == approx(analyse(sessions).hit, abs=0.01)
    inner = run.calls.where(run.calls.session == len(sessions) - 1)
    assert {"0", "1", "2", "3"} <= set(inner.agent)
    spans = {agent: inner.where(inner.agent == agent) for agent in "012"}
    for a, b in itertools.combinations(spans.values(), 2):
        assert a.sent.min() < b.end.max() and b.sent.min() < a.end.max()
