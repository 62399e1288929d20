"""Agents of the user's own: found by name, driven like any other, and alone in what goes wrong with them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.chain import Agent, Chat, Outcome, ToolCall, ToolResult, Wait
from agents.own import load, own
from tests.test_chains import play
from tests.test_sessions import calls, drive, session

EXAMPLE = Path(__file__).parent.parent / "examples" / "my_agents.py"


def agent(folder: Path, body: str) -> Agent:
    path = folder / "mine.py"
    path.write_text(f"from agents.chain import *\n\ndef it(rng):\n{body}")
    return own(f"{path}:it", load(f"{path}:it"), np.random.default_rng(0))


def test_the_example_is_short_and_does_what_it_says() -> None:
    source = EXAMPLE.read_text().splitlines()
    name = f"{EXAMPLE}:triage"
    asks, outcome = play(own(name, load(name), np.random.default_rng(3)).chain)

    assert len(source[source.index("def triage(rng):") :]) <= 20
    chats = [ask for ask in asks if isinstance(ask, Chat)]
    assert len(chats) >= 2
    assert asks[-1] == Wait(0.5)
    assert {ask[0].name for ask in asks if isinstance(ask, list)} == {"search_issues"}
    assert (outcome.status, outcome.intents) == ("done", 1)


def test_the_example_runs_and_is_recorded_under_its_name() -> None:
    name = f"{EXAMPLE}:triage"
    records, _ = drive(own(name, load(name), np.random.default_rng(1)).chain)

    assert len(calls(records)) == session(records).steps >= 2
    assert session(records).outcome == "done"


def test_a_fault_ends_the_session_with_its_line(tmp_path: Path) -> None:
    chain = agent(tmp_path, "    yield Wait(0.0)\n    x = {}\n    yield Wait(x['seconds'])\n").chain

    assert play(chain)[1] == Outcome("failed", text="mine.py:6: KeyError: 'seconds'")


def test_what_is_nothing_to_ask_for_ends_the_session_with_its_line(tmp_path: Path) -> None:
    for wrong in ("5", "'hello'", "[1]", "None"):
        outcome = play(agent(tmp_path, f"    yield Wait(0.0)\n    yield {wrong}\n").chain)[1]
        assert outcome.status == "failed"
        assert outcome.text is not None and outcome.text.startswith("mine.py:5: yielded ")


def test_an_agent_need_not_say_how_it_ended(tmp_path: Path) -> None:
    assert play(agent(tmp_path, "    yield Wait(0.0)\n").chain)[1] == Outcome("done", intents=1)


def test_closing_a_session_closes_the_users_generator(tmp_path: Path) -> None:
    done = tmp_path / "done"
    chain = agent(
        tmp_path, f"    try:\n        yield Wait(1.0)\n    finally:\n        open({str(done)!r}, 'w').close()\n"
    )
    next(chain.chain)
    chain.chain.close()

    assert done.exists()


def test_answers_reach_the_users_generator(tmp_path: Path) -> None:
    body = "    (r,) = yield [ToolCall('t', tokens=7)]\n    return Outcome('done', r.tokens)\n"

    def answer(ask: Any) -> Any:
        assert ask == [ToolCall("t", tokens=7)]
        return [ToolResult(9)]

    assert play(agent(tmp_path, body).chain, answer)[1] == Outcome("done", 9)


@pytest.mark.parametrize(
    ("name", "source", "complaint"),
    [
        ("mine:it", "", "an agent of your own is named file.py:function, got"),
        ("none.py:it", None, "there is no file"),
        ("mine.py:it", "def other(rng):\n    yield 1\n", "has no 'it'"),
        ("mine.py:it", "def it(rng):\n    return 1\n", "it must be a generator function: a def with a yield in it"),
        ("mine.py:it", "import nothing_like_it\n", "mine.py:1: ModuleNotFoundError: No module named 'nothing_like_it'"),
        ("mine.py:it", "def it(rng:\n    yield\n", "mine.py:1: SyntaxError: "),
    ],
)
def test_an_agent_that_cannot_be_loaded_is_named(name: str, source: str | None, complaint: str, tmp_path: Path) -> None:
    if source is not None:
        (tmp_path / "mine.py").write_text(source)
    with pytest.raises(ValueError) as error:
        load(f"{tmp_path}/{name}")
    assert complaint in str(error.value)
