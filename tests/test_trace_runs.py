"""Our own run folders as traces: what agents of a run did comes back, call by call and at its time."""

from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from pytest import approx

from agentload import replaying
from agentload import spec as specs
from agentload.box.options import BoxOptions
from agentload.fit import fit_archetype
from agentload.simulation import simulate
from agentload.traces.analyse import timed
from agentload.traces.detect import format_of, read
from agentload.traces.graph import Agent, Gap, Join, Session, Start, Tools, agents
from agentload.traces.source import Complaints
from collectors.load import Run, load_run

LEAD: dict[str, Any] = {
    "base": "fixed", "task_tokens": 1_500.0, "growth_tokens": 300.0, "output_tokens": 40.0, "steps": 5, "children": 2,
    "child": "kid", "spawns": 2, "depth": 1, "pause": 0.3, "think_seconds": 7.0, "tool_calls": 2,
    "tools": [{"name": "sh", "seconds": 1.5, "tokens": 30}, {"name": "ls", "seconds": 0.2, "tokens": 5}],
}  # fmt: skip
KID = {
    "base": "fixed",
    "task_tokens": 700.0,
    "steps": 3,
    "output_tokens": 30.0,
    "growth_tokens": 100.0,
    "tool_calls": 0.0,
}


def folder_of(join: str, out: Path) -> Path:
    """A simulated run of sessions with sub-agents, tools and people."""
    plain = {
        "seed": 4, "salt": 1, "sessions": 4, "profile": {"type": "held", "agents": 2},
        "population": [{"archetype": "lead"}],
        "archetypes": {"kid": KID, "lead": LEAD | {"join": join, "losers": "go on"}},
    }  # fmt: skip
    return simulate(specs.decode(plain), out)[0]


def recorded(run: Run, number: int) -> list[tuple[str, int, int, float]]:
    c = run.calls.where(run.calls.session == number)
    rows = zip(c.agent.tolist(), c.input_tokens.tolist(), c.output_tokens.tolist(), c.sent.tolist(), strict=True)
    return sorted(rows, key=lambda row: row[3])


def in_graph(session: Session) -> list[tuple[str, int, int, float]]:
    start = session.start or 0.0
    return [(one.agent, one.call.input, one.call.output, start + one.begin) for one in timed(session)]


@pytest.mark.parametrize("join", ["all", "background"])
def test_a_run_comes_back_call_by_call_and_at_its_times(join: str, tmp_path: Path) -> None:
    folder = folder_of(join, tmp_path)
    run, sessions = load_run(folder), list(read(folder, Complaints(fatal=True)))

    assert format_of(folder) == "run"
    assert len(sessions) == 4
    waits: list[int | None] = []
    for number, session in enumerate(sessions):
        wanted, found = recorded(run, number), sorted(in_graph(session), key=lambda row: row[3])
        assert sorted(row[:3] for row in found) == sorted(row[:3] for row in wanted)
        if join == "all":
            assert [row[3] for row in found] == approx([row[3] for row in wanted], abs=0.01)
        starts = [step for step in session.root.steps if isinstance(step, Start)]
        assert [len(start.agents) for start in starts] == [2, 2]
        waits += [start.wait for start in starts]
        assert any(isinstance(step, Join) for step in session.root.steps) == (0 in [start.wait for start in starts])
        assert {step.person for step in session.root.steps if isinstance(step, Gap) and step.seconds > 5} <= {True}
    assert (0 in waits) == (join != "all")  # who had ended anyway has been waited for
    tools = [step for s in sessions for _, agent in agents(s.root) for step in agent.steps if isinstance(step, Tools)]
    assert sum(len(step.calls) for step in tools) == len(run.tools)
    assert {(tool.name, round(tool.seconds, 6), tool.tokens) for step in tools for tool in step.calls} == {
        ("sh", 1.5, 30), ("ls", 0.2, 5)}  # fmt: skip


def test_a_run_can_be_replayed_and_fitted(tmp_path: Path) -> None:
    folder = folder_of("all", tmp_path / "a")
    sessions = list(read(folder, Complaints(fatal=True)))
    spec = replaying.resolve(folder, {"longest_gap": 60.0}, {"agents": 2})
    again, _ = simulate(structs.replace(spec, box=BoxOptions(sigma=0.0)), tmp_path / "b")
    run, copy = load_run(folder), load_run(again)

    for number in range(4):
        wanted, found = recorded(run, number), recorded(copy, number)
        assert sorted(row[:3] for row in found) == sorted(row[:3] for row in wanted)
    kinds = fit_archetype(sessions, "mine").archetypes
    assert (kinds["mine"].children, kinds["mine"].spawns, kinds["mine"].join) == (2.0, 2.0, "all")
    assert {tool.name for tool in kinds["mine"].tools} == {"sh", "ls"}
    assert isinstance(sessions[0].root, Agent) and sessions[0].root.name == "lead"
