"""How a box is built, and how its model tends to answer."""

from typing import Annotated

from msgspec import Meta, Struct

from agentload.box.presets import DEFAULT, PRESETS

Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(gt=0)]


class Habits(Struct, frozen=True, forbid_unknown_fields=True):
    """How the model tends to answer."""

    reasoning: Share = 0.25  # of replies begin with reasoning, a fifth to four fifths of their tokens
    call_tools: Share = 0.9  # chance of calling tools right after a user message
    call_again: Share = 0.85  # each tool result since then multiplies that chance by this
    parallel: Share = 0.25  # of replies that call tools call two or three
    malformed: Share = 0.0  # of calls carry arguments that are not JSON
    unknown: Share = 0.0  # of calls name a tool that does not exist
    output_median: Annotated[float, Meta(gt=0)] = 261.0  # tokens of an answer in words, lognormal: Claude Code sessions
    output_sigma: Annotated[float, Meta(ge=0, le=3)] = 0.9  # of the corpus in callanjfox/kv-cache-tester @ 94f6046


class BoxOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """How the box is built. Sizes are tokens; None takes the preset's."""

    preset: str = DEFAULT
    model: str = "box"
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 0  # 0 takes a free one
    seed: int = 0
    sigma: Share = 0.05  # of the logarithm of a step's time; 0 makes timing exact
    context: Count | None = None
    kv_tokens: Annotated[int, Meta(ge=1_024)] | None = None
    speed: Annotated[float, Meta(gt=0)] = 1.0  # seconds of the cluster in one of the wall
    log: str = ""  # file of the access log; a line is an `agentload.box.face.Answered`
    habits: Habits = Habits()

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {self.preset!r}")
