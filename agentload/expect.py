"""What a spec will cause, before anything is sent: its own chains, answered by a model that does as it is told."""

from typing import Any

import numpy as np

from agentload.plan import DEPTH, Plan
from agentload.spec import Spec
from agents.chain import Agent, Chat, Outcome, Reply, Spawn, ToolResult, Wait
from agents.sized import Room

SESSIONS = 200
"""Rehearsed of each archetype."""
FIRST_TOKEN, PER_TOKEN = 0.3, 0.02
"""Seconds that a model call is taken to last, and for each output token; ours, for the estimate only."""


class Expected:
    """Sums over sessions, sub-agents included."""

    def __init__(self) -> None:
        self.calls = self.input = self.output = 0
        self.seconds = 0.0

    def rehearse(self, agent: Agent) -> tuple[Outcome, float]:
        """Run one agent in no time; return its outcome and how long it would have taken."""
        answer: Any = None
        seconds = 0.0
        while True:
            try:
                ask = agent.chain.send(answer)
            except StopIteration as stop:
                return stop.value, seconds
            match ask:
                case Chat():
                    tokens = ask.wanted_input or 0
                    answer = Reply("ok", "", finish_reason="length", input_tokens=tokens, output_tokens=ask.max_tokens)
                    self.calls += 1
                    self.input += tokens
                    self.output += ask.max_tokens
                    seconds += FIRST_TOKEN + PER_TOKEN * ask.max_tokens
                case Wait():
                    answer, seconds = None, seconds + ask.seconds
                case Spawn():
                    ends = [self.rehearse(child) for child in ask.agents]
                    answer, seconds = [end for end, _ in ends], seconds + max((s for _, s in ends), default=0.0)
                case _:
                    answer = [ToolResult(call.tokens) for call in ask]
                    seconds += max((call.seconds for call in ask), default=0.0)


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
        sums = Expected()
        for rng in np.random.default_rng(spec.seed).spawn(SESSIONS):
            sums.seconds += sums.rehearse(plan.make(name, rng, DEPTH))[1]
        sessions = level * weight / total  # a second, open loop
        if spec.profile.closed:
            sessions /= sums.seconds / SESSIONS
        if spec.duration:
            sessions *= spec.duration
        for figure, sum_ in zip(figures, (SESSIONS, sums.calls, sums.input, sums.output), strict=True):
            figures[figure] += sessions * sum_ / SESSIONS
    share = 1.0 if spec.sessions is None else spec.sessions / figures["sessions"]
    return {name: figure * (min(1.0, share) if spec.duration else share) for name, figure in figures.items()}
