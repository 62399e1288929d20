"""Agents of the user's own: found by name, driven like any other, and alone in what goes wrong with them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from agentload import commands
from agentload.errors import BadInput
from agentload.simulation import simulate
from agentload.sweep import Options, read, sweep
from agents.chain import Agent, Chat, Outcome, ToolCall, ToolResult, Wait
from agents.own import load, own
from collectors.load import load_run
from tests.test_chains import play
from tests.test_sessions import calls, drive, session
from tests.test_simulate import rows, virtual

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


def test_the_documents_show_the_example_as_it_is() -> None:
    page = (EXAMPLE.parent.parent / "docs" / "agents.md").read_text()

    assert f"```python\n{EXAMPLE.read_text()}```" in page


def test_the_example_runs_and_is_recorded_under_its_name() -> None:
    name = f"{EXAMPLE}:triage"
    records, _ = drive(own(name, load(name), np.random.default_rng(1)).chain)

    assert len(calls(records)) == session(records).steps >= 2
    assert session(records).outcome == "done"


def test_a_fault_ends_the_session_with_its_line(tmp_path: Path) -> None:
    chain = agent(tmp_path, "    yield Wait(0.0)\n    x = {}\n    yield Wait(x['seconds'])\n").chain

    assert play(chain)[1] == Outcome("broken", error="mine.py:6: KeyError: 'seconds'")


def test_what_is_nothing_to_ask_for_ends_the_session_with_its_line(tmp_path: Path) -> None:
    for wrong in ("5", "'hello'", "[1]", "None", "Wait(-1)", "Wait('2')", "Wait(1e999)", "Spawn((5,))", "Spawn([])"):
        outcome = play(agent(tmp_path, f"    yield Wait(0.0)\n    yield {wrong}\n").chain)[1]
        assert outcome.status == "broken"
        assert outcome.error.startswith("mine.py:5: yielded ")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("    yield [ToolCall(5)]\n", "mine.py:4: yielded [ToolCall(name=5"),
        ("    yield [ToolCall('t', seconds='long')]\n", "mine.py:4: yielded [ToolCall(name='t'"),
        ("    yield Join((0,))\n", "mine.py:4: Join of sub-agent 0, and 0 were started"),
        ("    yield Wait(0.0)\n    return Outcome(5)\n", "mine.py: returned Outcome(status=5"),
        ("    yield Wait(0.0)\n    raise SystemExit(3)\n", "mine.py:5: SystemExit: 3"),
        (
            "    try:\n        yield Wait(-1)\n    finally:\n        yield Wait(1)\n",
            "mine.py:5: yielded Wait(seconds=-1)",
        ),
    ],
)
def test_whatever_a_users_code_does_stays_in_its_session(body: str, says: str, tmp_path: Path) -> None:
    records, _ = drive(agent(tmp_path, body).chain)

    assert session(records).outcome == "broken"
    assert session(records).error.startswith(says)


def test_a_generator_that_does_not_let_itself_be_closed_harms_nobody(tmp_path: Path) -> None:
    body = "    try:\n        yield Wait(1)\n    finally:\n        yield Wait(1)\n"
    chain = agent(tmp_path, body).chain
    next(chain)
    chain.close()


def test_functions_of_ones_own_are_not_called_in_virtual_time(tmp_path: Path) -> None:
    agent(tmp_path, "    yield [ToolCall('look', run=len)]\n")
    run = virtual(tmp_path / "out", population=[{"archetype": f"{tmp_path}/mine.py:it"}], sessions=1)

    assert run.sessions.error.tolist() == ["tool 'look' runs in real time only"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("Chat('hello', 5)", "a Chat is of a Context and of max_tokens >= 1, got Chat(context='hello'"),
        ("Chat(Context([Message('user', 9)]), 0)", "a Chat is of a Context and of max_tokens >= 1"),
        ("Chat(Context(), 5)", "a Chat needs a Context with a Message in it"),
        ("Chat(Context(['hello']), 5)", "a Context holds Messages of 0 tokens or more, got 'hello'"),
        ("Chat(Context([Message('user', 2.5)]), 5)", "a Context holds Messages of 0 tokens or more, got Message("),
    ],
)
def test_a_model_call_that_cannot_be_made_is_explained(wrong: str, says: str, tmp_path: Path) -> None:
    outcome = play(agent(tmp_path, f"    yield {wrong}\n").chain)[1]

    assert outcome.error.startswith(f"mine.py:4: {says}")


def test_a_fault_in_a_sub_agent_ends_that_one_alone(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from agents.chain import *\n\ndef child(n):\n    yield Wait(0.01)\n    yield Wait(1 / n - 1)\n\n"
        "def it(rng):\n    ended = yield Spawn(tuple(Agent('child', child(n)) for n in (1, 0)))\n"
        "    return Outcome(ended[1].status)\n"
    )
    records, _ = drive(own(f"{path}:it", load(f"{path}:it"), np.random.default_rng(0)).chain)

    assert [session(records, str(n)).outcome for n in range(2)] == ["done", "broken"]
    assert session(records, "1").error == "mine.py:5: ZeroDivisionError: division by zero"
    assert session(records).outcome == "broken"  # as it said itself


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
        (
            "mine.py:it",
            "def it(a, b):\n    yield a\n",
            "it is called with a random generator: missing a required argument",
        ),
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


FAULTY = """
from agents.chain import Chat, Context, Message, Wait
from neighbour import SIZE

def it(rng):
    size = int(rng.integers(1, 3))
    yield Chat(Context([Message("user", SIZE, key=size)]), 5)
    yield Wait(0.05 / (size - 1))
"""


ANY = "[[population]]\narchetype = 'fixed'\n"


def faulty(folder: Path) -> str:
    """An agent of which every other session fails, beside the module that it imports."""
    (folder / "neighbour.py").write_text("SIZE = 60\n")
    (folder / "faulty.py").write_text(FAULTY)
    return f"{folder}/faulty.py:it"


def test_the_same_sessions_run_on_workers_and_in_virtual_time_faults_and_all(tmp_path: Path) -> None:
    spec, agents = tmp_path / "spec.toml", [f"{EXAMPLE}:triage=2", faulty(tmp_path)]
    spec.write_text("salt = 1\nsessions = 12\nprofile = { type = 'held', agents = 4 }\n[box]\nspeed = 20\n" + ANY)
    command = [sys.executable, "-m", "agentload", "run", str(spec), "--workers", "2", "--out", str(tmp_path / "real")]
    given = ["--archetype", "fixed", *(word for agent in agents for word in ("--agent", agent))]
    ended = subprocess.run([*command, *given], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    real = load_run(next((tmp_path / "real").iterdir()))
    flags = {"agent": agents, "archetype": ["fixed"]}
    again = load_run(simulate(commands.resolve(spec, flags), tmp_path)[0])

    assert len(set(real.sessions.worker.tolist())) == 2
    assert rows(real) == rows(again)
    for run in (real, again):
        ways = set(zip(run.sessions.archetype, run.sessions.outcome, strict=True))
        assert ways == {("triage", "done"), ("fixed", "done"), ("it", "done"), ("it", "broken")}
    assert "× faulty.py:8: ZeroDivisionError: float division by zero" in ended.stdout


@pytest.mark.parametrize("body", ["    raise ValueError\n    yield\n", "    return\n    yield\n"])
def test_an_agent_that_fails_at_once_is_not_started_for_ever_in_one_instant(body: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(f"def it(rng):\n{body}")
    spec = {"population": [{"archetype": f"{tmp_path}/mine.py:it"}], "duration": 10.0}

    assert len(virtual(tmp_path / "out", **spec).sessions) == 10  # a second apart


def test_an_agent_of_ones_own_that_is_not_there_is_named_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"there is no file 'none\.py'"):
        commands.resolve(None, {"agent": ["none.py:it"], "agents": 2})
    with pytest.raises(BadInput, match="agents of your own begin at their beginning"):
        virtual(tmp_path, population=[{"archetype": f"{EXAMPLE}:triage"}], begin="mid-session", sessions=1)


def test_agents_of_ones_own_can_be_swept(tmp_path: Path) -> None:
    spec = commands.resolve(None, {"agent": [f"{EXAMPLE}:triage"], "agents": 2, "seed": 1})
    options = Options(values=(1, 4), measure=30.0, repeats=1, simulate=True)
    folder, code = sweep(spec, tmp_path, options)
    one, four = read(folder).points

    assert code == 0
    assert one.series == four.series == "triage"
    assert four.tokens.value > 2 * one.tokens.value
    with pytest.raises(BadInput, match="agents of your own have none"):
        sweep(spec, tmp_path, structs.replace(options, axis="steps"))


def test_a_dry_run_of_ones_own_agents_prints_a_spec(capsys: pytest.CaptureFixture[str]) -> None:
    spec = commands.resolve(None, {"agent": [f"{EXAMPLE}:triage"], "agents": 2})
    commands.print_expected(spec)

    assert f'archetype = "{EXAMPLE}:triage"' in capsys.readouterr().out
