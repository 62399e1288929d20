"""TensorRT-LLM agent traces: one JSON object for each job, a list of events with the branch each belongs to.

Source: NVIDIA/TensorRT-LLM, tech blog 27. A conversation's prompt is its messages so far; an assistant message is a
call that states `prompt_tokens` and `completion_tokens`. Identities of messages are (conversation, index), and
(system prompt id) where there is one, so conversations with the same system prompt share it. Branches that run in
parallel become sub-agents, joined where `parallel_end` says; after `drop_kv_cache` nothing of the prompt is shared with
calls before it. Gaps other than tool times are not recorded.
"""

from collections.abc import Iterator
from typing import Annotated, Any

from msgspec import Meta, Struct, structs

from agentload.traces.graph import Agent, Piece, Session, Start, Step, Text, Thread, Tokens, Tool, Tools, identity
from agentload.traces.source import Source


class Event(Struct, frozen=True):
    """One event."""

    event_type: str
    branch_path: list[int | str] = []
    conversation_id: int | str | None = None
    role: str = ""
    message_index: int | None = None
    system_prompt_id: int | str | None = None
    tokens: Tokens | None = None
    prompt_tokens: Tokens | None = None
    completion_tokens: Tokens | None = None
    reasoning_tokens: Tokens | None = None
    tool_name: Text | None = None
    duration_ms: Annotated[float, Meta(ge=0, le=1e13)] | None = None


class Trace(Struct, frozen=True):
    """One job."""

    trace_id: str | int
    events: list[Event]


class Branch:
    """One agent in the making."""

    def __init__(self, conversations: dict[Any, list[Piece]]) -> None:
        self.steps: list[Step] = []
        self.tools: list[Tool] = []
        self.parallel: dict[int | str, Branch] = {}
        self.conversations = conversations  # of the whole job
        self.thread = Thread()
        self.drops = 0

    def find(self, path: list[int | str]) -> "Branch":
        """The branch at a path below this one, made where it is new."""
        branch = self
        for part in path:
            branch.close_tools()
            branch = branch.parallel.setdefault(part, Branch(self.conversations))
        return branch

    def close_tools(self) -> None:
        if self.tools:
            self.steps.append(Tools(tuple(self.tools)))
            self.tools = []

    def close(self) -> None:
        """Tools and branches that ran side by side are done."""
        self.close_tools()
        agents = [agent for agent in (branch.agent() for branch in self.parallel.values()) if agent.steps]
        if agents:
            self.steps.append(Start(tuple(agents)))
        self.parallel = {}

    def agent(self) -> Agent:
        self.close()
        return Agent(tuple(self.steps))

    def take(self, event: Event) -> str:
        """Take a message; the name of a field that it lacks, or ""."""
        held = self.conversations.setdefault(event.conversation_id, [])
        if event.role == "assistant":
            if event.prompt_tokens is None or event.completion_tokens is None:
                return "prompt_tokens" if event.prompt_tokens is None else "completion_tokens"
            self.close()
            pieces = [(identity(key, self.drops), size) for key, size in held] if self.drops else held
            thought = min(event.reasoning_tokens or 0, event.completion_tokens)
            call = self.thread.call(pieces, event.prompt_tokens, event.completion_tokens, reasoning=thought)
            self.steps.append(call)
            size = event.completion_tokens - thought
        elif event.tokens is None:
            return "tokens"
        else:
            size = event.tokens
            if event.role == "tool":
                self.size_result(size)
        if size:
            named = event.system_prompt_id is not None
            key = identity("system", event.system_prompt_id) if named else identity(event.conversation_id, len(held))
            self.conversations[event.conversation_id] = [*held, (key, size)]
        return ""

    def size_result(self, tokens: int) -> None:
        """Give the first tool call without a result its size."""
        for i, tool in enumerate(self.tools):
            if not tool.tokens:
                self.tools[i] = structs.replace(tool, tokens=tokens)
                return


def read(source: Source) -> Iterator[Session]:
    for number, trace in source.values(Trace):
        root = Branch({})
        for i, event in enumerate(trace.events):
            branch, place = root.find(event.branch_path), f"events[{i}]"
            if event.event_type == "message":
                lacking = branch.take(event)
                if lacking:
                    source.complain(number, f"{place}.{lacking}", "is missing")
            elif event.event_type == "tool_call":
                branch.tools.append(Tool(event.tool_name or "tool", (event.duration_ms or 0.0) / 1000))
            elif event.event_type in ("parallel_start", "parallel_end"):
                branch.close()
            elif event.event_type == "drop_kv_cache":
                branch.drops += 1
            else:
                source.complain(number, f"{place}.event_type", f"{event.event_type!r} is not known")
        agent = root.agent()
        if agent.steps:
            yield Session(str(trace.trace_id)[:1000], agent)
        else:
            source.complain(number, "events", "there is no call in it")
