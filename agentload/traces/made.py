"""The graph of a chain: what an agent asks for when an obedient model answers it at once. No server, no text.

Prompts are known piece by piece, so the graph has the exact prefix structure that the agent would send.
"""

from typing import Any

from agentload.traces import graph
from agentload.traces.graph import Agent, Call, Gap, Piece, Session, Start, Step, Thread, Tool, Tools, identity
from agents import chain
from agents.chain import Chat, Join, Message, Note, Outcome, Reply, Spawn, ToolResult, Until, Wait
from agents.text import Calibration


def made(agent: chain.Agent, name: str) -> Session:
    """The session of an agent."""
    return Session(name, Builder(name).agent(agent)[0], shared=True)


TEMPLATE = Calibration()
"""What a chat template costs in a prompt that nobody sends."""


class Builder:
    """Runs chains and writes down what they ask for."""

    def __init__(self, session: str) -> None:
        self.session, self.replies = session, 0

    def agent(self, agent: chain.Agent) -> tuple[Agent, Outcome]:
        steps: list[Step] = []
        thread = Thread()
        answer: Any = None
        outcomes: list[Outcome] = []  # of its sub-agents
        clock = 0.0  # by its schedule
        while True:
            try:
                ask = agent.chain.send(answer)
            except StopIteration as stop:
                return Agent(tuple(steps), agent.archetype), stop.value
            match ask:
                case Chat():
                    steps.append(self.call(ask, thread))
                    answer = self.reply(ask)
                case Wait():
                    steps.append(Gap(ask.seconds, person=True))
                    answer = None
                case Until():
                    if ask.instant > clock:
                        steps.append(Gap(ask.instant - clock))
                    answer = clock = max(clock, ask.instant)
                case Note():
                    answer = None
                case Spawn():
                    ended = [self.agent(child) for child in ask.agents]
                    if ended:
                        steps.append(Start(tuple(child for child, _ in ended), ask.wait))
                    answer = [outcome for _, outcome in ended]
                    outcomes += answer
                case Join(numbers):
                    steps.append(graph.Join(numbers))
                    answer = [outcomes[n] for n in numbers] if numbers else outcomes
                case _:
                    if ask:
                        steps.append(Tools(tuple(Tool(c.name, c.seconds, c.tokens, c.ok) for c in ask)))
                    answer = [ToolResult(call.tokens, call.text, call.ok) for call in ask]

    def call(self, chat: Chat, thread: Thread) -> Call:
        opening = (identity("template"), round(TEMPLATE.per_request))
        pieces = [opening, *(piece for message in chat.context.messages for piece in pieces_of(message))]
        size = sum(tokens for _, tokens in pieces)
        return thread.call(pieces, max(size, chat.wanted_input or 0), chat.max_tokens)

    def reply(self, chat: Chat) -> Reply:
        """What was asked for, in a text that is only a name."""
        self.replies += 1
        text = f"{self.session} {self.replies}"
        return Reply(
            "ok", text, finish_reason="length", input_tokens=chat.wanted_input or 0, output_tokens=chat.max_tokens
        )


def pieces_of(message: Message) -> list[Piece]:
    if message.parts:
        return list(message.parts)
    key = message.key if message.text is None else identity(message.role, message.text)
    replied = message.role == "assistant" and message.text is not None
    template = round(TEMPLATE.per_message) if replied else 0  # other messages are sized with it
    return [(key, message.tokens + template)] if message.tokens + template else []
