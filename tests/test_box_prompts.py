"""Prompts that are not text count, and share blocks, exactly as their texts do."""

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentload.box.options import BoxOptions, Habits
from agentload.box.prompts import CLOSE, OPEN, Prompt, Runs, said
from agentload.box.protocol import ChatAsk, message
from agentload.box.reply import reply_to
from agentload.box.sizes import thought_of
from agentload.box.words import Template
from agentload.simulation import CALIBRATION
from agents.chain import Message
from agents.text import Encoder

OPTIONS = BoxOptions(habits=Habits(reasoning=0.4))
TEMPLATE, ENCODER = Template(), Encoder(CALIBRATION)


def common(a: Any, b: Any) -> int:
    """Blocks from the start that two prompts share."""
    return next((i for i in range(min(len(a), len(b))) if int(a[i]) != int(b[i])), min(len(a), len(b)))


def user(key: int, size: int) -> Message:
    """A message of one piece, or of several: whatever begins with the same pieces has the same start."""
    if key <= 3:
        return Message("user", size, key=key)
    first = min(size, 16 * (key - 3))
    return Message("user", size, parts=((1, first), (key, size - first)) if size > first else ((1, first),))


def converse(turns: list[tuple[int, int]], system: tuple[int, int]) -> list[tuple[Any, Runs]]:
    """A conversation asked both ways: the blocks of every call, from its text and from its description."""
    head = Message("system", system[1], key=system[0])
    written, described, prompt, calls = [head], [head], Prompt(), []
    for key, size in turns:
        content = size - OPEN - CLOSE
        text = 1 if key > 3 and content <= 16 * (key - 3) else key  # its first piece alone is what (1, size) is
        output = 1 + (7 * text + size) % 47  # another length would be other words, which the text's answer is not
        for messages in (written, described):
            messages.append(user(key, size))
        plain = [ENCODER.plain(m) for m in written]
        asked = {"messages": plain, "max_tokens": output, "ignore_eos": True}
        script, request = reply_to(msgspec.convert(asked, ChatAsk), TEMPLATE, OPTIONS, 100_000)
        prompt.extend(described)
        assert prompt.size == request.prompt
        thought = thought_of(prompt.size, output, OPTIONS.seed, OPTIONS.habits.reasoning)
        assert thought == script.reasoning_tokens
        reply, runs = prompt.ask(output, thought)
        assert len(runs) == len(request.ids)
        calls.append((request.ids, runs))
        written.append(Message("assistant", output - thought, text=message(script)["content"] or ""))
        described.append(Message("assistant", output - thought, text=said(reply, output - thought)))
    return calls


turns = st.lists(
    st.tuples(st.integers(1, 5), st.sampled_from([6, 7, 20, 33, 64, 90])),
    min_size=1,
    max_size=4,
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(turns, st.tuples(st.integers(1, 2), st.sampled_from([9, 48, 100]))), min_size=2, max_size=3))
def test_described_prompts_share_blocks_exactly_where_texts_do(conversations):
    calls = [call for conversation in conversations for call in converse(*conversation)]
    for text_a, runs_a in calls:
        for text_b, runs_b in calls:
            assert common(runs_a, runs_b) == common(text_a, text_b)
            assert min(runs_a.agreed(runs_b), len(runs_a), len(runs_b)) == common(text_a, text_b)


def test_a_described_conversation_holds_no_real_text():
    with pytest.raises(TypeError, match="real text"):
        Prompt().extend([Message("user", 5, text="hello")])


def test_a_reply_put_back_goes_on_where_the_prompt_had_ended():
    prompt = Prompt()
    messages = [Message("user", 100, key=1)]
    prompt.extend(messages)
    reply, first = prompt.ask(50, 0)
    messages += [Message("assistant", 50, text=said(reply, 50)), Message("user", 100, key=2)]
    prompt.extend(messages)
    _, second = prompt.ask(10, 0)

    assert len(first) == (100 + 3 + 50) // 16
    assert common(first, second) == len(first)
    assert np.array([first[i] for i in range(len(first))]).dtype == np.int64
