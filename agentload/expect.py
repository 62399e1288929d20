"""What a spec will cause, before anything is sent: its own chains, answered by a model that does as it is told."""

import numpy as np

from agentload.plan import Plan
from agentload.rehearse import rehearse
from agentload.spec import Spec
from agents.chain import Chat
from agents.sized import Room

SESSIONS = 200
"""Rehearsed of each archetype."""


def expect(spec: Spec, room: Room) -> dict[str, float] | None:
    """Sessions, calls and tokens of a run; None for live chains, where the model decides."""
    if spec.mode == "live":
        return None
    plan = Plan(spec, room, salt=0)
    level = spec.profile.mean(spec.duration) if spec.duration else 1.0
    shares = spec.shares()
    total = sum(shares.values())
    figures = dict.fromkeys(("sessions", "calls", "input_tokens", "output_tokens"), 0.0)
    for (_, name), weight in shares.items():
        chats: list[Chat] = []
        seconds = 0.0
        for rng in np.random.default_rng(spec.seed).spawn(SESSIONS):
            seconds += rehearse(plan.make(name, rng), chats).seconds
        sessions = level * weight / total  # a second, open loop
        if spec.profile.closed:
            sessions /= seconds / SESSIONS
        if spec.duration:
            sessions *= spec.duration
        sent, answered = sum(chat.wanted_input or 0 for chat in chats), sum(chat.max_tokens for chat in chats)
        for figure, total_ in zip(figures, (SESSIONS, len(chats), sent, answered), strict=True):
            figures[figure] += sessions * total_ / SESSIONS
    share = 1.0 if spec.sessions is None else spec.sessions / figures["sessions"]
    return {name: figure * (min(1.0, share) if spec.duration else share) for name, figure in figures.items()}
