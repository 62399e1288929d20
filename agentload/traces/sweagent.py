"""SWE-agent trajectories (.traj): one JSON object, a history of messages or a list of steps.

Source: SWE-agent/SWE-agent docs and trajectories. The history is used where it has the model's messages; else each
step of the trajectory is a call whose prompt is everything before it. Tool times are `execution_time`, where there is
one; tokens are estimated from characters, since `model_stats` counts only the whole.
"""

from collections.abc import Iterator
from typing import Annotated, Any

from msgspec import Meta, Struct

from agentload.traces.conversation import Said, agent_of, plain
from agentload.traces.graph import Session
from agentload.traces.source import Damaged, Source


class Turn(Struct, frozen=True):
    """One step of the trajectory."""

    action: str = ""
    observation: Any = ""
    response: str = ""
    execution_time: Annotated[float, Meta(ge=0, le=1e9)] | None = None


class Trajectory(Struct, frozen=True):
    """The file."""

    trajectory: list[Turn]
    history: list[dict[str, Any]] = []
    environment: str = ""


def read(source: Source) -> Iterator[Session]:
    for number, row in source.values(Trajectory):
        try:
            spoken = any(message.get("role") == "assistant" for message in row.history)
            agent = agent_of(from_history(row) if spoken else from_steps(row), "trajectory")
        except Damaged as damage:
            source.complain(number, damage.field, damage.reason)
            continue
        yield Session(source.path.name.removesuffix(".traj")[:1000], agent, shared=True)


def from_history(row: Trajectory) -> list[Said]:
    """The history; what the user says after the model has acted is what its action gave."""
    messages: list[Said] = []
    action = ""
    times = [step.execution_time or 0.0 for step in row.trajectory]
    spoken = 0
    for i, message in enumerate(row.history):
        role = message.get("role")
        if not isinstance(role, str):
            raise Damaged(f"history[{i}].role", "is missing" if role is None else "must be text")
        text = plain(message.get("content"), f"history[{i}].content")
        if role == "assistant":
            name = message.get("action")
            action = name.split()[0] if isinstance(name, str) and name.split() else "shell"
            messages.append(Said(role, text, ((str(i), action),)))
            spoken += 1
        elif action and role in ("user", "tool"):
            took = times[spoken - 1] if 0 < spoken <= len(times) else 0.0
            messages.append(Said("tool", text, answers=str(i - 1), took=took))
        else:
            messages.append(Said(role, text))
    return messages


def from_steps(row: Trajectory) -> list[Said]:
    messages = [Said("system", row.environment or "an environment")]
    for i, step in enumerate(row.trajectory):
        name = (step.action.split() or ["shell"])[0]
        messages.append(Said("assistant", step.response or step.action, ((str(i), name),)))
        observed = step.observation if isinstance(step.observation, str) else ""
        messages.append(Said("tool", observed, answers=str(i), took=step.execution_time or 0.0))
    return messages
