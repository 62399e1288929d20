"""What an agent is known to have done, in real and in virtual time."""

from agents.chain import Note, Outcome
from collectors.records import Call, Session


class Tally:
    """What one agent has done so far; becomes its Session record."""

    __slots__ = ("agent", "archetype", "arguments", "cached", "calls", "children", "due", "error", "input", "join",
                 "model", "noted", "output", "reasoning", "refused", "session", "start", "steps", "tenant",
                 "tool_calls", "tools", "wait")  # fmt: skip

    def __init__(self, agent: str, archetype: str, session: int, due: float, start: float, tenant: str = "") -> None:
        self.tenant = tenant
        self.session, self.agent, self.archetype, self.due, self.start = session, agent, archetype, due, start
        self.steps = self.calls = self.tool_calls = self.children = self.refused = 0
        self.input = self.cached = self.output = self.reasoning = self.arguments = 0
        self.model = self.tools = self.wait = self.join = 0.0
        self.error = ""  # of the last call
        self.noted: dict[str, int] = {}

    def count(self, call: Call) -> None:
        self.calls += 1
        self.input += call.input_tokens
        self.cached += call.cached_tokens
        self.output += call.output_tokens
        self.reasoning += call.reasoning_tokens
        self.arguments += call.argument_tokens
        self.model += call.end - call.sent

    def note(self, note: Note) -> None:
        self.noted[note.what] = self.noted.get(note.what, 0) + note.times

    def record(self, end: float, outcome: Outcome) -> Session:
        return Session(
            session=self.session,
            agent=self.agent,
            archetype=self.archetype,
            due=self.due,
            start=self.start,
            end=end,
            outcome=outcome.status,
            intents=outcome.intents,
            steps=self.steps,
            calls=self.calls,
            tool_calls=self.tool_calls,
            children=self.children,
            compactions=self.noted.get("compactions", 0),
            input_tokens=self.input,
            cached_tokens=self.cached,
            output_tokens=self.output,
            reasoning_tokens=self.reasoning,
            argument_tokens=self.arguments,
            model_seconds=self.model,
            tool_seconds=self.tools,
            wait_seconds=self.wait,
            join_seconds=self.join,
            tenant=self.tenant,
            error=outcome.error or self.error,
            resets=self.noted.get("resets", 0),
            rewrites=self.noted.get("rewrites", 0),
            missed=self.noted.get("missed", 0),
            refused=self.refused,
        )
