"""What a spec will cause, before anything is sent: its own chains, answered by a model that does as it is told."""

import numpy as np

from agentload.plan import Plan
from agentload.recorded import Totals
from agentload.rehearse import rehearse
from agentload.spec import REPLAY, Spec, Traced
from agents.chain import Chat
from agents.text import Room

SESSIONS = 200
"""Rehearsed of each archetype."""


def expect(spec: Spec, room: Room) -> dict[str, float] | None:
    """Sessions, calls and tokens of a run; None where the model decides (live chains), or the user's own code."""
    if spec.mode == "live" or spec.own_agents():
        return None
    plan = Plan(spec, room, salt=0)
    if isinstance(spec.profile, Traced):
        level = len(plan.arrivals()) / (spec.duration or 1.0)
    else:
        level = spec.profile.mean(spec.duration) if spec.duration else 1.0
    shares = spec.shares()
    total = sum(shares.values())
    figures = dict.fromkeys(("sessions", "calls", "input_tokens", "output_tokens"), 0.0)
    for (_, name), weight in shares.items():
        made = plan.trace.totals if name == REPLAY and plan.trace else rehearsed(plan, name)
        sessions = level * weight / total  # a second, open loop
        if spec.profile.closed:
            sessions /= made.seconds / made.sessions
        if spec.duration:
            sessions *= spec.duration
        for figure, sum_ in zip(figures, (made.sessions, made.calls, made.input, made.output), strict=True):
            figures[figure] += sessions * sum_ / made.sessions
    share = 1.0 if spec.sessions is None or not figures["sessions"] else spec.sessions / figures["sessions"]
    return {name: figure * (min(1.0, share) if spec.duration else share) for name, figure in figures.items()}


def rehearsed(plan: Plan, name: str) -> Totals:
    """What some sessions of an archetype ask for."""
    chats: list[Chat] = []
    made = Totals(SESSIONS)
    for rng in np.random.default_rng(plan.spec.seed).spawn(SESSIONS):
        made.seconds += rehearse(plan.make(name, rng), chats, plan.spec.max_agents_per_session).seconds
    made.calls = len(chats)
    made.input = sum(chat.wanted_input or 0 for chat in chats)
    made.output = sum(chat.max_tokens for chat in chats)
    return made
