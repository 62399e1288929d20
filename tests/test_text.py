"""Filler and the JSON of messages."""

import json
import random

import numpy as np

from agents.chain import Message, ToolCall, ToolSchema
from agents.text import VOCABULARY, Calibration, Encoder, filler


def test_filler_has_exactly_the_words_asked_for_and_the_key_decides_which() -> None:
    for words in (1, 7, len(VOCABULARY), len(VOCABULARY) + 1, 5_000):
        assert len(filler(3, words).split(" ")) == words
    assert filler(3, 50) == filler(3, 50)
    assert filler(3, 50) != filler(4, 50)
    assert filler(3, 0) == ""


def test_keys_that_follow_each_other_begin_differently_and_any_word_may_stand_anywhere() -> None:
    texts = [filler(key, 40).split() for key in range(20_000)]

    assert len({tuple(text[:8]) for text in texts}) == len(texts)
    for place in (0, 7, 8, 39):
        counts = np.unique([text[place] for text in texts], return_counts=True)[1]
        chi = ((counts - len(texts) / len(VOCABULARY)) ** 2).sum() / (len(texts) / len(VOCABULARY))
        assert counts.size == len(VOCABULARY)
        assert chi < 330  # 233 degrees of freedom: above that in one of 25,000


def test_a_short_filler_is_the_start_of_a_longer_one() -> None:
    assert filler(5, 1_000).startswith(filler(5, 300) + " ")


def test_a_whole_round_of_filler_uses_every_word_once() -> None:
    assert sorted(filler(9, len(VOCABULARY)).split()) == sorted(VOCABULARY)


def test_where_words_cost_different_numbers_of_tokens_a_long_text_is_still_exact() -> None:
    cost = {word: random.Random(word).choice([1, 2, 3, 5]) for word in VOCABULARY}
    per_word = sum(cost.values()) / len(VOCABULARY)
    encoder = Encoder(Calibration(per_word, per_message=6, per_system=9))

    for key in range(50):
        text = encoder.plain(Message("user", 4_000, key=key))["content"]
        assert abs(sum(cost[word] for word in text.split()) + 6 - 4_000) < 0.01 * 4_000


def test_a_padded_message_keeps_its_text_and_grows_to_its_size() -> None:
    message = Encoder(Calibration()).plain(Message("user", 100, key=1, text="Find the bug.", pad=True))

    assert message["content"].startswith("Find the bug. ")
    assert 85 <= len(message["content"].split()) <= 100


def test_an_assistant_turn_goes_back_with_its_tool_calls_and_the_results_name_them() -> None:
    encoder = Encoder()
    turn = Message("assistant", 5, text="", tool_calls=(ToolCall("read", '{"path": "a"}', "c1"),))

    assert json.loads(encoder.encode(turn)) == {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "read", "arguments": '{"path": "a"}'}}],
    }
    assert encoder.plain(Message("tool", 1, text="ok", call_id="c1")) == {
        "role": "tool",
        "content": "ok",
        "tool_call_id": "c1",
    }


def test_tool_schemas_are_what_the_api_defines() -> None:
    tools = json.loads(Encoder().tools((ToolSchema("f", "does", {"type": "object", "properties": {}}),)))

    assert tools == [
        {
            "type": "function",
            "function": {"name": "f", "description": "does", "parameters": {"type": "object", "properties": {}}},
        }
    ]
