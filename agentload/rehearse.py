"""Chains without an endpoint: answered at once by a model that does exactly as it is told."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from msgspec import structs

from agents.chain import Agent, Ask, Chain, Chat, Join, Note, Outcome, Reply, Spawn, ToolResult, Until, Wait
from agents.text import filler

FIRST_TOKEN, PER_TOKEN = 0.3, 0.02
"""Seconds that a model call is taken to last, and for each output token; ours, for estimates only."""


class Rehearsed(NamedTuple):
    """What one agent did, and how long it would have taken."""

    outcome: Outcome
    chats: list[Chat]
    seconds: float


def rehearse(agent: Agent, sums: list[Chat], most: int = 1_000, family: list[int] | None = None) -> Rehearsed:
    """Run one agent in no time; its model calls, and those of its sub-agents, are added to `sums`. Its session has at
    most `most` agents, and `family` counts them."""
    family = [1] if family is None else family
    answer: Any = None
    chats: list[Chat] = []
    children: list[Rehearsed] = []  # with when they ended, by their parent's clock
    seconds = 0.0
    while True:
        try:
            ask = agent.chain.send(answer)
        except StopIteration as stop:
            sums += chats
            return Rehearsed(stop.value, chats, max([seconds, *(child.seconds for child in children)]))
        match ask:
            case Chat():
                answer = obeyed(ask)
                chats.append(ask)
                seconds += FIRST_TOKEN + PER_TOKEN * ask.max_tokens
            case Wait():
                answer, seconds = None, seconds + ask.seconds
            case Until():
                answer = seconds = max(seconds, ask.instant)
            case Note():
                answer = None
            case Spawn():
                started = [born(child, sums, most, family) for child in ask.agents]
                started = [child._replace(seconds=seconds + child.seconds) for child in started]
                children += started
                seconds = max([seconds, *sorted(child.seconds for child in started)[: ask.wait]])
                answer = [child.outcome for child in started]
            case Join(numbers):
                joined = [children[n] for n in numbers] if numbers else children
                seconds = max([seconds, *sorted(child.seconds for child in joined)[: ask.wait]])
                answer = [child.outcome for child in joined]
            case _:
                answer = [ToolResult(call.tokens) for call in ask]
                seconds += max((call.seconds for call in ask), default=0.0)


def born(child: Agent, sums: list[Chat], most: int, family: list[int]) -> Rehearsed:
    """A sub-agent's run, if its session may have one more agent."""
    if family[0] >= most:
        return Rehearsed(Outcome("refused"), [], 0.0)
    family[0] += 1
    return rehearse(child, sums, most, family)


def obeyed(chat: Chat) -> Reply:
    """The reply that was asked for, with nothing in it."""
    return Reply("ok", finish_reason="length", input_tokens=chat.wanted_input or 0, output_tokens=chat.max_tokens)


def mid_session(agent: Agent, twin: Agent, rng: np.random.Generator, tell: Callable[[int, int], str] = filler) -> Agent:
    """The agent somewhere inside its session, with a past of filler; each of its model calls is as likely the next.

    `twin` is the same agent once more, used up to count the calls; `tell` makes a reply of the past from a number and
    its tokens. Sub-agents of the past have done their work.
    """
    skip = int(rng.integers(max(1, len(rehearse(twin, []).chats))))
    answer: Any = None
    past: list[Outcome] = []  # of its sub-agents
    clock = 0.0  # by its schedule
    while True:
        ask = agent.chain.send(answer)
        match ask:
            case Chat() if not skip:
                return structs.replace(agent, chain=resumed(ask, agent.chain, past, clock))
            case Chat():
                skip -= 1
                answer = structs.replace(obeyed(ask), text=tell(int(rng.integers(1 << 63)), ask.max_tokens))
            case Wait() | Note():
                answer = None
            case Until():
                answer = clock = max(clock, ask.instant)
            case Spawn():
                answer = [rehearse(child, []).outcome for child in ask.agents]
                past += answer
            case Join(numbers):
                answer = [past[n] for n in numbers] if numbers else past
            case _:
                answer = [ToolResult(call.tokens) for call in ask]


def resumed(ask: Ask, chain: Chain, past: list[Outcome], clock: float) -> Chain:
    """A chain that has begun, from the ask it is waiting with; sub-agents of its past have ended as `past` says, and
    its schedule has come to the instant `clock`."""
    while True:
        if isinstance(ask, Join) and past:
            later = tuple(n - len(past) for n in ask.agents if n >= len(past))
            found = iter((yield structs.replace(ask, agents=later)) if later or not ask.agents else [])
            answer = [past[n] if n < len(past) else next(found) for n in ask.agents] or [*past, *found]
        elif isinstance(ask, Until):
            answer = (yield Until(max(0.0, ask.instant - clock))) + clock
        else:
            answer = yield ask
        try:
            ask = chain.send(answer)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # a chain returns its Outcome
