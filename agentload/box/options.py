"""How a box is built: replicas and their router, its limits and its faults, and how its model tends to answer."""

from typing import Annotated, Literal

from msgspec import Meta, Struct, structs

from agentload.box.presets import DEFAULT, PRESETS, Preset
from agentload.box.words import BLOCK
from agentload.errors import meant

Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(gt=0)]
Seconds = Annotated[float, Meta(ge=0)]
Router = Literal["round_robin", "random", "least_outstanding", "two_choices", "prefix", "kv_cost"]


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


class Transfer(Struct, frozen=True, forbid_unknown_fields=True):
    """What it takes to bring a prompt's keys and values from a prefill replica to one that decodes.

    320 KiB a token (70B, bf16) at 40 GB/s, what NDR 400 gives, are 8 µs; 600 GB/s of NVLink are 0.5 µs. The whole
    prompt travels, cached or not, as in llm-d-inference-sim's latency model.
    """

    setup_ms: Seconds = 1.0  # 0.5–2 ms with RDMA
    token_us: Seconds = 8.0


class Failure(Struct, frozen=True, forbid_unknown_fields=True):
    """A replica that dies `at` some second, with all that it is doing, and is back, cold, `after` so many more."""

    at: Seconds
    replica: Annotated[int, Meta(ge=0)] = 0
    after: Seconds = 60.0


class Scaling(Struct, frozen=True, forbid_unknown_fields=True):
    """Start one more replica whenever there are more than `outstanding` requests for each one up or coming."""

    most: Count  # replicas
    outstanding: Count = 32
    cold_start: Seconds = 60.0  # from the decision to the first request: weights read, graphs captured [ours]


class Offload(Struct, frozen=True, forbid_unknown_fields=True):
    """Host memory of a replica as a second, slower tier of its cache (`agentload.box.host`).

    A token of a 70B model in bf16 has 80 KiB on each of four GPUs, which 50 GB/s, what PCIe 5.0 x16 gives, bring back
    in 1.6 µs; to compute it again takes 37. The step that admits the prompt waits for it, as with a connector that
    loads within the forward pass.
    """

    tokens: Annotated[int, Meta(ge=BLOCK)]  # what it holds: 64 GiB are 210,000 tokens at 320 KiB each
    setup_ms: Seconds = 0.0  # of each prompt of which something is loaded
    token_us: Seconds = 1.6


class Quota(Struct, frozen=True, forbid_unknown_fields=True):
    """What each API key may have in a minute, as OpenAI's limits are; beyond it, 429.

    A request's tokens are its prompt and `max_tokens`.
    """

    requests: Count | None = None
    tokens: Count | None = None


class Faults(Struct, frozen=True, forbid_unknown_fields=True):
    """What goes wrong on purpose: shares of requests, decided by the seed and the request's number."""

    error: Share = 0.0  # answered with 500
    reset: Share = 0.0  # the connection breaks before or, if streamed, in the middle of the answer
    stall: Share = 0.0  # the stream stops half way for `stall_seconds`
    slow: Share = 0.0  # nothing is done for `slow_seconds` first
    broken: Share = 0.0  # an error event in the middle of the stream
    stall_seconds: Seconds = 10.0
    slow_seconds: Seconds = 5.0
    key: str = ""  # only requests with this API key; "" is all


class BoxOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """How the box is built. Sizes are tokens; None takes the preset's."""

    preset: str | Preset = DEFAULT  # a name, or the table of one's own
    model: str = "box"
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 0  # 0 takes a free one
    seed: int = 0
    sigma: Share = 0.05  # of the logarithm of a step's time; 0 makes timing exact
    context: Count | None = None
    kv_tokens: Annotated[int, Meta(ge=1_024)] | None = None
    seats: Count | None = None  # most requests running at once on a replica
    step_tokens: Count | None = None  # token budget of a step
    speed: Annotated[float, Meta(gt=0)] = 1.0  # seconds of the cluster in one of the wall
    log: str = ""  # file of the access log; a line is an `agentload.box.face.Answered`
    replicas: Annotated[int, Meta(ge=1, le=4_096)] = 1  # with `prefill`: those that decode
    router: Router = "round_robin"
    prefill: Annotated[int, Meta(ge=0, le=4_096)] = 0  # replicas that do nothing but prompts; 0: each does both
    transfer: Transfer = Transfer()
    offload: Offload | None = None
    failures: tuple[Failure, ...] = ()
    scaling: Scaling | None = None
    queued: Count | None = None  # most requests waiting in the cluster; beyond it, 503
    quota: Quota = Quota()
    faults: Faults = Faults()
    habits: Habits = Habits()

    def __post_init__(self) -> None:
        if isinstance(self.preset, str) and self.preset not in PRESETS:
            raise ValueError(
                f"there is no preset {self.preset!r}{meant(self.preset, [*PRESETS, 'a table of your own'])}"
            )
        for failure in self.failures:
            if failure.replica >= self.replicas + self.prefill:
                raise ValueError(f"failures: there is no replica {failure.replica}; they count from 0")
        preset = self.scaled()
        if preset.step_tokens < preset.seats:
            raise ValueError(
                f"step_tokens must be at least seats, as in vLLM, got {preset.step_tokens} and {preset.seats}"
            )
        if preset.block != BLOCK:
            raise ValueError(f"preset: block must be {BLOCK}, as the box's prompts are hashed, got {preset.block}")

    @property
    def timing(self) -> str:
        """Whose times these are, how far they can be trusted, and whether the clock is the wall's."""
        preset = self.scaled()
        fast = f"; its clock runs {self.speed:g} times as fast as the wall's" if self.speed != 1 else ""
        return f"{preset.serves}; {preset.validity}{fast}"

    def scaled(self) -> Preset:
        """The preset, with the cache and the batch that these options give it."""
        preset = PRESETS[self.preset] if isinstance(self.preset, str) else self.preset
        return structs.replace(
            preset,
            kv_tokens=self.kv_tokens or preset.kv_tokens,
            seats=self.seats or preset.seats,
            step_tokens=self.step_tokens or preset.step_tokens,
        )
