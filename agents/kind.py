"""What kind of agent it is: a frozen struct of distributions, and of the habits a harness has."""

import math
from typing import Annotated, Literal

from msgspec import Meta, Struct, structs

from agents.chain import HangUp, ToolSchema
from agents.dice import Numbers, draw, pick
from agents.draws import Draw, LogNormal, NonNegative, Positive, Share, scaled
from agents.schedule import Schedule

Count = Annotated[int, Meta(ge=1)]
CountOrZero = Annotated[int, Meta(ge=0)]


class SimulatedTool(Struct, frozen=True, forbid_unknown_fields=True):
    """A tool that only costs time and tokens."""

    name: str
    description: str = ""
    parameters: dict[str, str] = {}  # argument name -> what it is; all are strings
    seconds: Draw = LogNormal(0.3, 2.97, high=3_600.0)  # [TraceLab] p50, p90 and p99 of all tools; mean 17 s of 18
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


class Variant(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A sort of session within an archetype. What it states replaces the archetype's: so lengths that go together in
    the data (a resumed session is larger at its start, and shorter) go together here."""

    weight: Positive = 1.0
    task_tokens: Draw | None = None
    turns: Draw | None = None
    steps: Draw | None = None
    opening_tokens: Draw | None = None
    growth_tokens: Draw | None = None
    output_tokens: Draw | None = None
    compact_at: Draw | None = None
    think_seconds: Draw | None = None


class Patience(Struct, frozen=True, forbid_unknown_fields=True):
    """When an agent, or the person before it, hangs up on a call; drawn for each call. After that it asks again, at
    once, and when that is used up its session is over."""

    first_token: Draw | None = None  # seconds without a first token
    call: Draw | None = None  # seconds, of the whole call
    tokens: Draw | None = None  # of output, after which it has seen enough
    again: CountOrZero = 0  # how often it asks again

    def drawn(self, rng: Numbers) -> HangUp:
        first, call, tokens = (
            math.inf if what is None else draw(what, rng) for what in (self.first_token, self.call, self.tokens)
        )
        return HangUp(first, call, tokens, self.again)

    def scaled(self, factor: float) -> "Patience":
        return self if self.tokens is None else structs.replace(self, tokens=scaled(self.tokens, factor))


TOKENS = ("task_tokens", "turn_tokens", "opening_tokens", "growth_tokens", "output_tokens", "compact_at")
"""Fields, of archetypes and variants, that are counted in tokens."""


class Archetype(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A kind of agent. A session is `turns` human turns; a turn is `steps` model calls with tools between them."""

    about: str = ""
    system_tokens: CountOrZero = 0  # shared by all sessions of the archetype
    schema_tokens: CountOrZero = 0  # tool schemas, shared likewise
    task_tokens: Draw  # the first user message
    turns: Draw = 1.0  # human turns in a session
    turn_tokens: Draw = 0.0  # each later user message
    think_seconds: Draw = 0.0  # a person's wait before each later turn
    schedule: Schedule | None = None  # turns begin by the clock instead, the first one too
    pause: Share = 0.0  # chance, before each later step, that a person is asked first, who takes `think_seconds`
    longest_wait: Positive = math.inf  # seconds; no tool, no person and no schedule takes longer
    steps: Draw = 1.0  # model calls in a turn
    opening_steps: CountOrZero = 0  # so many of a session's first steps add `opening_tokens`: files are read first
    opening_tokens: Draw = 0.0
    growth_tokens: Draw = 0.0  # tokens a step adds to the context: reply and tool results together
    output_tokens: Draw
    reasoning: Draw | None = None  # share of a reply that is reasoning: of the box only, other models decide themselves
    tool_calls: Draw = 0.0  # tool calls between two steps
    tools: list[SimulatedTool] = []
    python_tools: list[PythonTool] = []
    children: Draw = 0.0  # sub-agents started together
    child: str = ""  # their archetype
    join: Literal["all", "first", "quorum", "background"] = "all"  # which of them their parent waits for
    quorum: Share = 0.5  # of them, that must succeed for a quorum
    losers: Literal["cancel", "go on"] = "cancel"  # what those do that a first or a quorum left behind
    respawns: CountOrZero = 0  # how often sub-agents that failed are started anew
    spawns: Draw = 1.0  # how often in a session sub-agents are started: after the first step, the second, …
    depth: CountOrZero = 3  # of a root agent: how deep sub-agents may start sub-agents; 0 starts none
    max_steps: Count = 100  # model calls in a turn at which live chains stop
    max_mistakes: Count = 5  # refused tool calls in a row at which live chains give up
    max_reply_tokens: Count = 4_096  # live chains: `max_tokens` of a call
    patience: Patience | None = None  # None: it waits for every answer
    context_limit: Count | None = None  # tokens; None: what the endpoint takes
    compact_at: Draw | None = None  # tokens at which a session compacts or ends, drawn for each; None: at the limit
    at_limit: Literal["compact", "end"] = "end"
    compact_to: Draw = 0.25  # share of the limit that is left after a compaction
    rewrite: Share = 0.0  # chance, at each later step, that the harness changes its history: caches lose what follows
    rewrite_keep: Draw = 0.5  # share of the history before the change
    reset: Share = 0.0  # chance, at each later step, that the agent forgets most of its history, without a summary
    reset_to: Draw = 0.25  # share of it that is left
    system_text: str = ""  # live chains: real instructions, followed by filler up to `system_tokens`
    task_texts: list[str] = []  # live chains: one is picked for each session
    variants: list[Variant] = []  # sorts of session; one is picked for each, by weight

    def scaled(self, factor: float) -> "Archetype":
        """Every token count multiplied by `factor`; numbers of calls, tools and seconds stay."""
        if factor == 1.0:
            return self
        return structs.replace(
            self,
            **scaled_fields(self, factor),
            system_tokens=round(self.system_tokens * factor),
            schema_tokens=round(self.schema_tokens * factor),
            tools=[structs.replace(tool, tokens=scaled(tool.tokens, factor)) for tool in self.tools],
            patience=self.patience and self.patience.scaled(factor),
            max_reply_tokens=max(16, round(self.max_reply_tokens * factor)),
            context_limit=None if self.context_limit is None else max(1, round(self.context_limit * factor)),
            variants=[structs.replace(variant, **scaled_fields(variant, factor)) for variant in self.variants],
        )

    def waits_for(self, children: int) -> int | None:
        """How many of so many sub-agents must succeed before their parent goes on; None: all must end."""
        match self.join:
            case "first":
                return 1
            case "quorum":
                return math.ceil(self.quorum * children)
            case "background":
                return 0
        return None

    def for_session(self, rng: Numbers) -> "Archetype":
        """The archetype as one session has it: with a variant's lengths, where there are variants."""
        if not self.variants:
            return self
        return self.varied(self.variants[pick([variant.weight for variant in self.variants], rng.random())])

    def varied(self, variant: Variant) -> "Archetype":
        """The archetype with a variant's lengths."""
        stated = {name: value for name, value in structs.asdict(variant).items() if name != "weight"}
        return structs.replace(self, **{name: value for name, value in stated.items() if value is not None})


def scaled_fields(what: Archetype | Variant, factor: float) -> dict[str, Draw]:
    """The token counts of an archetype or variant, multiplied."""
    counts = {name: getattr(what, name) for name in TOKENS if name in what.__struct_fields__}
    return {name: scaled(count, factor) for name, count in counts.items() if count is not None}
