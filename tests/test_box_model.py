"""The box's synthetic model: what it answers, how long, and with which tool calls."""

import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import structs
from pytest import approx

from agentload.box.arguments import arguments
from agentload.box.model import Offer, Question, ToolUse, Words, answer
from agentload.box.options import Habits
from agentload.box.protocol import deltas, message
from agentload.box.words import CALL_CLOSE, CALL_OPEN, tokenize

SCHEMA = {
    "type": "object",
    "properties": {
        "path": {"type": "string", "minLength": 3, "maxLength": 12},
        "line": {"type": "integer", "minimum": 5, "maximum": 9},
        "ratio": {"type": "number", "exclusiveMinimum": 0, "maximum": 2},
        "mode": {"type": "string", "enum": ["r", "w"]},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 4},
        "where": {"type": "object", "properties": {"deep": {"type": ["boolean", "null"]}}, "required": ["deep"]},
        "either": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "fixed": {"const": 42},
    },
    "required": ["path", "line", "ratio", "mode", "tags", "where", "fixed"],
}
TOOLS = (Offer("read_file", SCHEMA), Offer("list"))
QUESTION = Question(1, most=100_000)
ASKED = structs.replace(QUESTION, tools=TOOLS, choice="required")
SILENT = Habits(reasoning=0.0)


def many(question, habits=SILENT, count=2_000):
    return [answer(structs.replace(question, digest=i), habits) for i in range(count)]


def test_the_same_question_gets_the_same_reply_and_another_seed_another():
    assert message(answer(QUESTION, Habits())) == message(answer(QUESTION, Habits()))
    assert message(answer(structs.replace(QUESTION, seed=1), SILENT)) != message(answer(QUESTION, SILENT))


def test_lengths_are_lognormal_with_the_stated_median_and_sigma():
    lengths = np.log([len(script.tokens) for script in many(QUESTION)])

    assert np.median(lengths) == approx(np.log(261), abs=0.1)  # five standard errors: 1.25 · 0.9 / sqrt(2000) = 0.025
    assert np.std(lengths) == approx(0.9, abs=0.08)


def test_a_reply_put_back_into_the_history_has_the_same_tokens():
    for script in many(structs.replace(QUESTION, tools=TOOLS), count=50):
        said = message(script)
        back = list(tokenize(said["content"] or ""))
        for call in said.get("tool_calls", []):
            name, text = call["function"]["name"], call["function"]["arguments"]
            back += [*CALL_OPEN, *tokenize(name), *tokenize(text), *CALL_CLOSE]
        assert back == list(script.tokens)


def test_max_tokens_cuts_and_says_so():
    script = answer(structs.replace(QUESTION, most=7), SILENT)

    assert (len(script.tokens), script.finish_reason) == (7, "length")
    assert len(tokenize(message(script)["content"])) == 7


def test_ignore_eos_gives_exactly_the_tokens_asked_for_and_calls_nothing():
    script = answer(structs.replace(ASKED, most=1_500, exact=True), SILENT)

    assert (len(script.tokens), script.finish_reason) == (1_500, "length")
    assert "tool_calls" not in message(script)


@pytest.mark.parametrize("question", [QUESTION, ASKED])
def test_min_tokens_is_kept(question):
    assert all(len(script.tokens) >= 400 for script in many(structs.replace(question, least=400), count=50))


def test_a_quarter_of_replies_reason_and_count_it():
    scripts = many(QUESTION, Habits())
    reasoned = [script for script in scripts if script.reasoning_tokens]

    assert len(reasoned) / len(scripts) == approx(0.25, abs=0.05)
    for script in reasoned[:20]:
        said = message(script)
        assert len(tokenize(said["reasoning_content"])) == script.reasoning_tokens
        assert len(tokenize(said["content"] or "")) == len(script.tokens) - script.reasoning_tokens


def test_calls_fit_their_schema():
    calls = [part for script in many(ASKED, count=200) for part in script.parts if isinstance(part, ToolUse)]

    assert {call.name for call in calls} == {"read_file", "list"}
    for call in calls:
        made = json.loads(call.text)
        if call.name == "list":
            assert made == {}
            continue
        assert set(SCHEMA["required"]) <= set(made) <= set(SCHEMA["properties"])
        assert 3 <= len(made["path"]) <= 12
        assert made["line"] in range(5, 10)
        assert 0 < made["ratio"] <= 2
        assert made["mode"] in ("r", "w")
        assert 2 <= len(made["tags"]) <= 4
        assert made["where"]["deep"] in (True, False)
        assert made["fixed"] == 42


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=3) | st.integers(-5, 5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "type",
                        "properties",
                        "items",
                        "enum",
                        "anyOf",
                        "required",
                        "minimum",
                        "maxLength",
                        "object",
                        "string",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
@example({"properties": {"a": {}}, "required": [[]]})
def test_no_schema_however_odd_is_an_error(schema):
    json.dumps(arguments(schema, np.random.default_rng(0)))


def test_calls_grow_rarer_with_results_so_that_loops_end():
    def share(results):
        question = structs.replace(QUESTION, tools=TOOLS, results=results)
        return np.mean([script.finish_reason == "tool_calls" for script in many(question, count=1_000)])

    assert share(0) == approx(0.9, abs=0.05)
    assert share(5) == approx(0.9 * 0.85**5, abs=0.08)
    assert share(30) < 0.03


def test_several_tools_are_called_at_once_at_times():
    counts = [sum(isinstance(part, ToolUse) for part in script.parts) for script in many(ASKED, count=1_000)]

    assert np.mean(np.array(counts) > 1) == approx(0.25, abs=0.07)
    assert set(counts) == {1, 2, 3}


def test_tool_choice_is_obeyed():
    none, named = structs.replace(ASKED, choice="none"), structs.replace(ASKED, choice="list")

    assert all(script.finish_reason == "stop" for script in many(none, count=100))
    assert {part.name for script in many(named, count=100) for part in script.parts} == {"list"}


def test_mistakes_are_made_at_the_rates_asked_for():
    broken = [part.text for script in many(ASKED, Habits(reasoning=0, malformed=1.0), 20) for part in script.parts]
    strange = [part.name for script in many(ASKED, Habits(reasoning=0, unknown=1.0), 20) for part in script.parts]

    for text in broken:
        with pytest.raises(json.JSONDecodeError):
            json.loads(text)
    assert not {"read_file", "list"} & set(strange)


@given(st.integers(1, 80), st.integers(0, 50))
def test_every_token_has_its_delta_wherever_the_reply_is_cut(most, digest):
    script = answer(structs.replace(ASKED, most=most, digest=digest), Habits(reasoning=0.5))
    sent = [json.loads(delta) for delta in deltas(script) if delta]

    assert len(list(deltas(script))) == len(script.tokens) <= most
    said = message(script)
    assert "".join(delta.get("reasoning_content") or "" for delta in sent) == said.get("reasoning_content", "")
    pieces = [call for delta in sent for call in delta.get("tool_calls", [])]
    for i, call in enumerate(said.get("tool_calls", [])):
        mine = [piece for piece in pieces if piece["index"] == i]
        assert (mine[0]["id"], mine[0]["function"]) == (call["id"], {"name": call["function"]["name"]})
        assert "".join(piece["function"]["arguments"] for piece in mine[1:]) == call["function"]["arguments"]


def test_words_are_one_token_each():
    parts = answer(QUESTION, SILENT).parts

    assert all(isinstance(part, Words) and len(tokenize(piece)) == 1 for part in parts for piece in part.pieces)
