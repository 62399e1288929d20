"""Who the agents are: frozen structs of distributions, with the source beside each default.

Sources: [kv] kv-cache-tester, 710 recorded Claude Code sessions (callanjfox/kv-cache-tester @ 94f6046, computed);
[TraceLab] uw-syfi/TraceLab @ 0b8a262, 4,265 Claude Code and Codex sessions; [tau] tau-bench gpt-4o airline
trajectories, 200 episodes, tokens = characters / 4; [Azure] Azure LLM inference trace 2023, conversations;
[ours] an assumption. Token counts are per call unless said otherwise; LogNormal is (median, sigma of the logarithm).
"""

import math
from typing import Annotated, Literal

from msgspec import Meta, Struct, structs

from agents.chain import ToolSchema
from agents.draws import Draw, Geometric, LogNormal, Mixture, NonNegative, Positive, Share, Uniform, scaled

CountOrZero = Annotated[int, Meta(ge=0)]


class SimulatedTool(Struct, frozen=True, forbid_unknown_fields=True):
    """A tool that only costs time and tokens."""

    name: str
    description: str = ""
    parameters: dict[str, str] = {}  # argument name -> what it is; all are strings
    seconds: Draw = LogNormal(0.3, 2.97, high=304.0)  # [TraceLab] p50, p90 and p99 of all tools
    tokens: Draw = LogNormal(600.0, 1.2, low=8.0, high=20_000.0)  # what is left of [kv] growth after the reply
    failure: Share = 0.02  # [ours]
    weight: NonNegative = 1.0  # how often sized chains pick it

    def schema(self) -> ToolSchema:
        fields = {name: {"type": "string", "description": about} for name, about in self.parameters.items()}
        return ToolSchema(
            self.name,
            self.description,
            {"type": "object", "properties": fields, "required": list(fields)},
        )


class PythonTool(Struct, frozen=True, forbid_unknown_fields=True):
    """A plain Python function, `module:function`; its signature and docstring make the schema. Live chains only."""

    function: str
    name: str = ""  # "" takes the function's


class Archetype(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A kind of agent. A session is `turns` human turns; a turn is `steps` model calls with tools between them."""

    about: str = ""
    system_tokens: CountOrZero = 0  # shared by all sessions of the archetype
    schema_tokens: CountOrZero = 0  # tool schemas, shared likewise
    task_tokens: Draw  # the first user message
    turns: Draw = 1.0  # human turns in a session
    turn_tokens: Draw = 0.0  # each later user message
    think_seconds: Draw = 0.0  # a person's wait before each later turn
    longest_wait: Positive = math.inf  # seconds; no tool and no person takes longer
    steps: Draw = 1.0  # model calls in a turn
    growth_tokens: Draw = 0.0  # tokens a step adds to the context: reply and tool results together
    output_tokens: Draw
    tool_calls: Draw = 0.0  # tool calls between two steps
    tools: list[SimulatedTool] = []
    python_tools: list[PythonTool] = []
    children: Draw = 0.0  # sub-agents started together after the first step, then joined
    child: str = ""  # their archetype
    max_steps: Annotated[int, Meta(ge=1)] = 100  # model calls in a turn at which live chains stop
    max_reply_tokens: Annotated[int, Meta(ge=1)] = 4_096  # live chains: `max_tokens` of a call
    context_limit: Annotated[int, Meta(ge=1)] | None = None  # tokens; None: what the endpoint takes
    at_limit: Literal["compact", "end"] = "end"
    compact_to: Annotated[float, Meta(gt=0, lt=1)] = 0.25  # share of the limit that is left after a compaction
    system_text: str = ""  # live chains: real instructions, followed by filler up to `system_tokens`
    task_texts: list[str] = []  # live chains: one is picked for each session

    def scaled(self, factor: float) -> "Archetype":
        """Every token count multiplied by `factor`; numbers of calls, tools and seconds stay."""
        return structs.replace(
            self,
            system_tokens=round(self.system_tokens * factor),
            schema_tokens=round(self.schema_tokens * factor),
            task_tokens=scaled(self.task_tokens, factor),
            turn_tokens=scaled(self.turn_tokens, factor),
            growth_tokens=scaled(self.growth_tokens, factor),
            output_tokens=scaled(self.output_tokens, factor),
            tools=[structs.replace(tool, tokens=scaled(tool.tokens, factor)) for tool in self.tools],
            max_reply_tokens=max(16, round(self.max_reply_tokens * factor)),
            context_limit=None if self.context_limit is None else max(1, round(self.context_limit * factor)),
        )


CODER = Archetype(
    about="A coding agent (Claude Code, Codex): reads, edits and runs things in a long, growing conversation.",
    system_tokens=2_800,  # [kv] system p50
    schema_tokens=12_300,  # [kv] tool schema p50
    # [kv] first input: 55 % fresh around 18.5k, 45 % resumed at 40k-850k. What the preamble does not hold is the task.
    task_tokens=Mixture([LogNormal(3_400, 0.8, high=20_000), LogNormal(104_000, 0.9, 25_000, 500_000)], [0.55, 0.45]),
    steps=LogNormal(39, 1.16, low=1, high=1_178),  # [kv] calls per session
    growth_tokens=LogNormal(870, 1.2, low=30, high=61_000),  # [kv] new tokens per later call
    output_tokens=LogNormal(261, 0.9, low=1, high=16_000),  # [kv]
    tool_calls=Mixture([1.0, 2.0, 4.0], [0.86, 0.11, 0.03]),  # [TraceLab] mean 1.2, p50 1, p90 2, p99 4
    tools=[  # [TraceLab] shares of calls and quantiles of time by kind of tool
        SimulatedTool(
            name="shell",
            description="Run a shell command and return its output.",
            parameters={"command": "the command line"},
            seconds=LogNormal(0.85, 2.4, high=235.0),
            weight=0.76,
        ),
        SimulatedTool(
            name="edit_file",
            description="Replace a piece of a file.",
            parameters={"path": "the file", "old": "text to replace", "new": "replacement"},
            seconds=LogNormal(0.095, 1.0, high=10.0),
            tokens=LogNormal(120, 0.6, low=8),
            weight=0.11,
        ),
        SimulatedTool(
            name="read_file",
            description="Read a file or search in it.",
            parameters={"path": "the file"},
            seconds=LogNormal(0.036, 1.5, high=10.0),
            tokens=LogNormal(900, 1.0, low=8, high=20_000),
            weight=0.10,
        ),
        SimulatedTool(
            name="web_search",
            description="Search the web.",
            parameters={"query": "what to look for"},
            seconds=LogNormal(12.0, 1.2, high=120.0),
            tokens=LogNormal(1_500, 0.8, low=8, high=20_000),
            weight=0.03,
        ),
    ],
    at_limit="compact",  # [TraceLab] 9.7 % of sessions compact
    system_text="You are a coding agent. Use the tools to inspect and change the project, then report what you did.",
    task_texts=["Find out why the test fails and fix it.", "Read the file, run the tests and explain the result."],
)

SUPPORT = Archetype(
    about="A customer-support agent: a person writes, the agent looks things up and acts in a database.",
    system_tokens=900,  # [tau] 1.5k of system prompt with tools
    schema_tokens=640,
    task_tokens=LogNormal(60, 0.5, low=8, high=400),  # [tau] first input is nearly all preamble
    turns=LogNormal(7, 0.35, low=1, high=20),  # [tau] user turns p50 7, p90 11
    turn_tokens=LogNormal(40, 0.5, low=4, high=300),  # [tau] growth 150-200 a step, tool results 167
    think_seconds=Uniform(10.0, 60.0),  # [ours]
    steps=Mixture([1.0, 2.0, 3.0], [0.5, 0.3, 0.2]),  # [tau] 12.3 calls over 7 turns, 5 tool calls at p50
    growth_tokens=LogNormal(230, 0.5, low=20, high=2_000),  # [tau] reply 53 + tool result 167
    output_tokens=LogNormal(53, 0.72, low=1, high=600),  # [tau] p50 53, p90 133, mean 71
    tool_calls=1.0,  # [tau] never parallel
    tools=[
        SimulatedTool(
            name="get_reservation",
            description="Look up a reservation.",
            parameters={"reservation_id": "six letters"},
            seconds=Uniform(0.01, 0.3),  # [ours] a database
            tokens=LogNormal(167, 0.5, low=8, high=2_000),  # [tau]
            weight=0.6,
        ),
        SimulatedTool(
            name="update_reservation",
            description="Change or cancel a reservation.",
            parameters={"reservation_id": "six letters", "change": "what to do"},
            seconds=Uniform(0.01, 0.3),
            tokens=LogNormal(120, 0.5, low=8, high=2_000),
            weight=0.4,
        ),
    ],
    max_steps=30,
    system_text="You are an airline's support agent. Look things up with the tools before you answer.",
    task_texts=["I want to cancel my reservation EHGLP3.", "Can I move my flight to Friday?"],
)

CHAT = Archetype(
    about="The human baseline: a person and a chatbot, a few turns, no tools.",
    system_tokens=400,  # [ours]
    task_tokens=LogNormal(620, 0.77, low=4, high=12_000),  # [Azure] input p50 1,020, p90 2,735, less the system prompt
    turns=Geometric(2.0, high=6.0),  # 1-6 turns, geometric [ours]
    turn_tokens=Uniform(50.0, 400.0),  # [ours]
    think_seconds=LogNormal(86.0, 2.1, low=1.0, high=1_800.0),  # [TraceLab] p50 86 s, p90 21 min; capped at 30 min
    output_tokens=LogNormal(129, 0.93, low=1, high=4_000),  # [Azure] p50 129, p90 424
    system_text="You are a helpful assistant.",
    task_texts=["Tell me about latency.", "Explain the cache to me in a few sentences."],
)

FIXED = Archetype(
    about="Fixed lengths, for benchmarks and for comparing with other tools; --input-tokens, --output-tokens, --steps.",
    task_tokens=512.0,
    output_tokens=64.0,
    growth_tokens=128.0,
    tools=[SimulatedTool(name="step", description="Go on.", seconds=0.0, tokens=64.0, failure=0.0)],
    tool_calls=1.0,
    max_steps=10,
    task_texts=["Tell me about latency."],
)

ARCHETYPES: dict[str, Archetype] = {"coder": CODER, "support": SUPPORT, "chat": CHAT, "fixed": FIXED}
