"""An archetype as sized chains have it: what each step draws from is read once, and not again in every session."""

from typing import Final

from agents.chain import ToolCall
from agents.dice import Dice, pick, rounded, source, whole
from agents.kind import Archetype, SimulatedTool

PAIRING: Final = 20
"""Tries to find a step that an output can change places with."""


class Tool:
    """A simulated tool."""

    def __init__(self, tool: SimulatedTool) -> None:
        self.name, self.failure = tool.name, tool.failure
        self.seconds, self.tokens = source(tool.seconds), source(tool.tokens)


class Sort:
    """One sort of session of an archetype."""

    def __init__(self, a: Archetype) -> None:
        self.archetype = a
        self.patience, self.longest_wait = a.patience, a.longest_wait
        self.task_tokens, self.turns, self.steps = source(a.task_tokens), source(a.turns), source(a.steps)
        self.turn_tokens, self.think_seconds, self.pause = source(a.turn_tokens), source(a.think_seconds), a.pause
        self.opening_steps, self.opening_tokens = a.opening_steps, source(a.opening_tokens)
        self.growth_tokens, self.output_tokens = source(a.growth_tokens), source(a.output_tokens)
        self.reasoning = None if a.reasoning is None else source(a.reasoning)
        self.reset, self.reset_to = a.reset, source(a.reset_to)
        self.rewrite, self.rewrite_keep = a.rewrite, source(a.rewrite_keep)
        self.tool_calls = source(a.tool_calls)
        self.tools, self.weights = [Tool(tool) for tool in a.tools], [tool.weight for tool in a.tools]

    def lengths(self, step: int, steps: int, dice: Dice) -> tuple[list[int], list[int]]:
        """Output and growth of each of a turn's steps. The reply is part of the growth, so the two go together: drawn
        each by itself, they are paired such that the growth holds the reply, wherever two steps can change places for
        it."""
        outputs = [whole(self.output_tokens(dice), 1) for _ in range(steps)]
        growths = [
            whole(self.opening_tokens(dice) if i < self.opening_steps else self.growth_tokens(dice))
            for i in range(step, step + steps)
        ]
        for i in range(steps):
            for _ in range(PAIRING if outputs[i] > growths[i] else 0):
                j = int(dice.random() * steps)
                if outputs[i] <= growths[j] and outputs[j] <= growths[i]:
                    outputs[i], outputs[j] = outputs[j], outputs[i]
                    break
        return outputs, growths

    def use_tools(self, dice: Dice) -> list[ToolCall]:
        """The tools of one step, drawn by weight; they run in parallel."""
        if not self.tools:
            return []
        picked = [self.tools[pick(self.weights, dice.random())] for _ in range(whole(self.tool_calls(dice)))]
        return [
            ToolCall(
                tool.name,
                seconds=min(tool.seconds(dice), self.longest_wait),
                tokens=whole(tool.tokens(dice)),
                ok=dice.random() >= tool.failure,
            )
            for tool in picked
        ]

    def thought(self, output: int, dice: Dice) -> int | None:
        """How much of a reply is to be reasoning; None where the model decides."""
        return None if self.reasoning is None else rounded(min(1.0, self.reasoning(dice)) * output)
