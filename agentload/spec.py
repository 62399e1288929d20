"""The spec: what to run, as one frozen struct. TOML and command-line flags become it, and it becomes TOML again."""

import errno
import math
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NoReturn

import msgspec
import numpy as np
from msgspec import Meta, Struct

from agentload.box.options import BoxOptions
from agentload.box.presets import from_table as preset_from
from agentload.errors import BadInput, meant
from agentload.telemetry.options import Telemetry
from agents.archetypes import ARCHETYPES, Archetype
from agents.chain import Chain
from agents.draws import NonNegative, Positive, Share
from agents.endpoint import Endpoint
from agents.own import MARK
from agents.own import load as load_own
from agents.replay import Pace
from agents.request import keep_secrets_out, refuse
from collectors.slo import Tier, from_table
from loadprofiles import Profile, load

Count = Annotated[int, Meta(ge=1)]

MAX_FILE = 64 * 2**20
"""Bytes of a spec, of recorded arrivals, of assumptions or prices."""


class Group(Struct, frozen=True, forbid_unknown_fields=True):
    """A share of the population: of the agents in a closed loop, of the sessions in an open one."""

    archetype: str  # or an agent of one's own: file.py:function
    weight: Positive = 1.0


class Retry(Struct, frozen=True, forbid_unknown_fields=True):
    """What agents do when a call fails for a reason that may pass: exponential back-off with full jitter.

    Attempts are those of the openai SDK (two retries after 408, 409, 429 and 5xx); a server's Retry-After is honoured.
    `attempts = 1` never retries; `factor = 1, jitter = false` waits the same each time.
    """

    attempts: Count = 3  # tries in all; 1 never retries
    first_seconds: Positive = 0.5
    factor: Annotated[float, Meta(ge=1)] = 2.0
    longest_seconds: Positive = 30.0
    jitter: bool = True  # full: anything between nothing and the back-off

    def pause(self, attempt: int, seed: list[int]) -> float:
        """Seconds to wait after that attempt (from 0); the seed decides the jitter."""
        longest = min(self.longest_seconds, self.first_seconds * self.factor**attempt)
        return longest * float(np.random.default_rng(seed).random()) if self.jitter else longest


class Tenant(Struct, frozen=True, forbid_unknown_fields=True):
    """One customer of the endpoint: a share of the load with a key, a mix and limits of its own."""

    name: str
    weight: Positive = 1.0  # of the agents in a closed loop, of the sessions in an open one
    population: list[Group] = []  # [] takes the spec's
    api_key_env: str = ""  # "" takes the endpoint's
    headers: dict[str, str] = {}
    service_tier: str = ""  # sent where it is not ""
    cache_salt: str = ""  # sent where it is not "": keeps prefix caches apart on servers that know it (vLLM)
    requests_per_minute: Count | None = None  # the client's own limits, held before a call is sent
    tokens_per_minute: Count | None = None  # prompt as wanted, and the most it may be answered
    retry: Retry | None = None  # None takes the spec's


class Prices(Struct, frozen=True, forbid_unknown_fields=True):
    """What tokens cost, in USD per million."""

    input: NonNegative
    cached: NonNegative
    output: NonNegative

    def cost(self, fresh: float, cached: float, output: float) -> float:
        """USD of so many tokens."""
        return (self.input * fresh + self.cached * cached + self.output * output) / 1e6


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """What ends a run early, cleanly."""

    tokens: Count | None = None  # input and output of all calls together
    cost: Positive | None = None  # USD, at `prices`
    prices: Prices | None = None  # None takes the price table's for the endpoint's model
    error_rate: Share | None = None  # share of the last 100 calls

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return any(limit is not None for limit in (self.tokens, self.cost, self.error_rate))


class Phase(Struct, frozen=True, forbid_unknown_fields=True):
    """A stretch of the run. A call belongs to the phase it was due in, a session to the one it started in."""

    name: str
    seconds: Positive
    counted: bool = True  # False: warm-up; its calls are recorded, and left out of latencies and job figures
    profile: Profile | None = None  # with its own zero; None: the spec's profile runs on through all phases


REPLAY = "replay"
"""Stands in a population for the sessions of the trace that is replayed."""


class Replay(Struct, frozen=True, forbid_unknown_fields=True):
    """The trace whose sessions agents follow, and how closely; the spec's `scale` and `longest_wait` hold for it."""

    trace: str  # a file, a folder of files, or a run folder
    format: str = ""  # "" tells it from the content
    digest: str = ""  # of the file; a resolved spec states it, and another file is then refused
    strict: bool = False  # the first damaged line ends it; else damaged lines are skipped
    first: Count | None = None  # only so many sessions of it
    longest_gap: NonNegative = 10.0  # seconds; people, and gaps that nobody explains, take no longer (as AgentX has it)
    longest_tool: Positive = 600.0  # seconds
    speed: Positive = 1.0  # recorded seconds in a second, of gaps, tools and arrivals
    jitter: NonNegative = 0.0  # closed loop: seconds by which the first session of each agent may start later
    bust: bool = True  # copies of a session share no prefix with each other


class Traced(Struct, frozen=True, forbid_unknown_fields=True, tag="traced"):
    """Sessions start when those of the replayed trace did. When that is, the trace says (`agentload.recorded`)."""

    closed: ClassVar[bool] = False

    def refuse(self, *_: object) -> NoReturn:
        raise BadInput("profile 'traced' starts sessions when the trace says: it can be neither drawn nor raised here; "
                       "hold agents, or give a rate")  # fmt: skip

    arrivals = mean = population = refuse


class Spec(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A run. Times are seconds."""

    name: str = ""
    seed: Annotated[int, Meta(ge=0)] = 0
    mode: Literal["sized", "live"] = "sized"
    scale: Positive = 1.0  # multiplies every token count of every archetype
    longest_wait: Positive | None = None  # seconds; caps tools, people, schedules of every archetype, so that runs end
    duration: Positive | None = None  # when sessions stop starting; None: when `sessions` have ended
    drain: NonNegative = 30.0  # how long running sessions may go on after that
    sessions: Count | None = None  # how many sessions in all; None: as many as fit
    warmup: NonNegative = 0.0  # seconds at the start that are recorded but not counted; `phases` say more
    phases: list[Phase] = []  # their seconds add up to the duration
    profile: Profile | Traced
    begin: Literal["fresh", "mid-session"] = "fresh"  # closed loop: where the first session of each agent starts
    leaving: Literal["finish", "cancel"] = "finish"  # closed loop: what agents do with their session when N(t) falls
    population: list[Group]
    max_agents_per_session: Count = 1_000  # its root included; what would start more is refused, and counted
    replay: Replay | None = None  # what `replay` in the population stands for
    archetypes: dict[str, dict[str, Any]] = {}  # new ones, or fields to change; `base` names the one to start from
    endpoint: Endpoint = Endpoint()  # without a url: the cluster in the box, as `box` says
    urls: dict[str, Positive] = {}  # several endpoints of one model, with weights; a session keeps to one
    tenants: list[Tenant] = []
    box: BoxOptions = BoxOptions()
    retry: Retry = Retry()
    limits: Limits = Limits()
    telemetry: Telemetry = Telemetry()
    slo: dict[str, Any] = {}  # promises, as in { ttft_p95 = 2.0 }, or tables of them: tiers
    gpus: Positive | None = None  # what the endpoint runs on; capacity is also given per each
    power_kw: Positive | None = None  # of the whole cluster under load
    gpu_hour_usd: Positive | None = None  # of one GPU
    itl: bool = False  # keep every gap between output pieces in the records
    salt: Annotated[int, Meta(ge=0)] | None = None  # None: new text each run, so that no run profits from the last

    def __post_init__(self) -> None:
        if not self.population:
            raise ValueError("population is empty; name at least one archetype")
        if self.duration is None and self.sessions is None and self.replay is None:
            raise ValueError("a run needs an end: give duration, or sessions, or both")
        names = [tenant.name for tenant in self.tenants]
        if len(set(names)) < len(names):
            raise ValueError(f"tenants need names of their own, got {', '.join(names)}")
        if self.begin == "mid-session" and (self.mode == "live" or not self.profile.closed):
            raise ValueError("begin = 'mid-session' is for sized agents held in a closed loop")
        if self.warmup and self.phases:
            raise ValueError("warmup is a phase of its own where there are phases; give it as the first of them")
        if self.duration is not None and self.warmup >= self.duration:
            raise ValueError(f"warmup must be shorter than duration ({self.duration:g} s), got {self.warmup:g}")
        if self.replay is not None and self.mode == "live":
            raise ValueError("a replay decides everything itself, so it cannot be live; leave out mode")
        if isinstance(self.profile, Traced) and any(name != REPLAY for _, name in self.shares()):
            raise ValueError("profile 'traced' is for a population of nothing but the replayed trace")
        if self.duration is None and self.profile.closed:
            self.profile.population(math.inf)  # ValueError where the shape itself needs a duration

    def promises(self) -> list[Tier]:
        """What a run of this spec is judged by. Raises ValueError, one line, for what is no table of SLOs."""
        return from_table(self.slo) if self.slo else []

    def shares(self) -> dict[tuple[int, str], float]:
        """Weights of every (tenant, archetype); tenant 0 is the only one where none is named."""
        shares: dict[tuple[int, str], float] = {}
        for i, tenant in enumerate(self.tenants or [Tenant("")]):
            groups = tenant.population or self.population
            total = sum(group.weight for group in groups)
            for group in groups:
                share = tenant.weight * group.weight / total
                shares[i, group.archetype] = shares.get((i, group.archetype), 0.0) + share
        return shares

    def windows(self) -> list[tuple[str, float, float | None, bool]]:
        """Name, start, stop (None: open) and whether it is counted, of every phase; the drain is never counted."""
        windows: list[tuple[str, float, float | None, bool]] = []
        at = 0.0
        for phase in self.phases:
            windows.append((phase.name, at, at + phase.seconds, phase.counted))
            at += phase.seconds
        if not self.phases:
            if self.warmup:
                windows.append(("warm-up", 0.0, self.warmup, False))
            windows.append(("measurement", self.warmup, self.duration, True))
        if self.duration is not None:
            windows.append(("drain", self.duration, None, False))
        return windows

    def kinds(self) -> dict[str, Archetype]:
        """Every archetype this spec can name, scaled."""
        kinds = dict(ARCHETYPES)
        for name, fields in self.archetypes.items():
            fields = dict(fields)
            base = fields.pop("base", name)
            if not isinstance(base, str) or base not in kinds:
                raise BadInput(f"archetype {name!r}: base {base!r} is not an archetype{meant(str(base), kinds)}")
            kinds[name] = changed(name, kinds[base], fields)
        if self.replay is None and any(name == REPLAY for _, name in self.shares()):
            raise BadInput(f"archetype {REPLAY!r} follows a recorded trace; name it in [replay], as trace = ...")
        for name in [*self.named(), *(kind.child for kind in kinds.values() if kind.child)]:
            if name not in kinds:
                raise BadInput(f"archetype {name!r} does not exist{meant(name, kinds)}")
        return {name: self.adapted(kind) for name, kind in kinds.items()}

    def named(self) -> list[str]:
        """The archetypes that the population names; the replayed trace and agents of the user's own are none."""
        names = dict.fromkeys(name for _, name in self.shares())
        return [name for name in names if name != REPLAY and MARK not in name]

    def own_agents(self) -> dict[str, Callable[[np.random.Generator], Chain]]:
        """The generator functions of agents of the user's own, by the name they have in the population."""
        names = dict.fromkeys(name for _, name in self.shares() if MARK in name)
        try:
            return {name: load_own(name) for name in names}
        except ValueError as error:
            raise BadInput(str(error)) from None

    def shape(self) -> Profile:
        """The load profile. BadInput where it is the trace that decides when sessions start."""
        return self.profile.refuse() if isinstance(self.profile, Traced) else self.profile

    def pace(self) -> Pace:
        """How closely recorded sessions are followed."""
        how, longest = self.replay or Replay(""), self.longest_wait or math.inf
        return Pace(min(how.longest_gap, longest), min(how.longest_tool, longest), how.speed, self.scale)

    def adapted(self, kind: Archetype) -> Archetype:
        """An archetype with this spec's scale and cap on waiting."""
        longest = kind.longest_wait if self.longest_wait is None else min(kind.longest_wait, self.longest_wait)
        return msgspec.structs.replace(kind.scaled(self.scale), longest_wait=longest)


def changed(name: str, base: Archetype, fields: dict[str, Any]) -> Archetype:
    """`base` with some fields replaced by plain values, as they come from TOML."""
    plain = msgspec.to_builtins(base)
    for variant in plain["variants"]:  # what is stated here holds for all sorts of session
        variant |= {key: None for key in fields if key in variant}
    try:
        return msgspec.convert(plain | fields, Archetype)
    except msgspec.ValidationError as error:
        raise BadInput(f"archetype {name!r}: {explained(str(error), fields, Archetype)}") from None


def read(path: Path, what: str = "spec") -> dict[str, Any]:
    """A TOML file as plain values."""
    try:
        return tomllib.loads(read_text(path))
    except FileNotFoundError:
        raise BadInput(f"{what} {str(path)!r} does not exist; name a TOML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{what} {str(path)!r} cannot be read: {error}") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{what} {str(path)!r} is not TOML: {error}") from None


def read_text(path: Path) -> str:
    """The text of a file that a person wrote. OSError where it cannot be read, or is larger than any such is."""
    with path.open("rb") as file:
        content = file.read(MAX_FILE + 1)
    if len(content) > MAX_FILE:
        raise OSError(errno.EFBIG, f"it has more than {MAX_FILE >> 20} MiB", str(path))
    return content.decode()


def with_preset(box: dict[str, Any]) -> dict[str, Any]:
    """The options of a box with a preset of one's own made whole: read from the file it names, put over its base."""
    preset = box.get("preset")
    if isinstance(preset, str) and preset.endswith(".toml"):
        preset = read(Path(preset), "preset")
    return box | {"preset": preset_from(preset)} if isinstance(preset, dict) else box


def decode(plain: dict[str, Any], source: str = "spec") -> Spec:
    """Plain values, checked, as a spec. Recorded load profiles and presets are read from their files here."""
    plain = plain | from_phases(plain.get("phases"), plain, source)
    if "replay" in plain:
        plain.setdefault("population", [{"archetype": REPLAY}])
    try:
        if isinstance(plain.get("box"), dict):
            plain["box"] = with_preset(plain["box"])
        spec = msgspec.convert(plain, Spec)
        if not isinstance(spec.profile, Traced):
            spec = msgspec.structs.replace(spec, profile=load(spec.profile, lambda name: read_text(Path(name))))
    except OSError as error:
        raise BadInput(
            f"{source}: the load profile's file {error.filename!r} cannot be read: {error.strerror}"
        ) from None
    except ValueError as error:
        raise BadInput(f"{source}: {explained(str(error), plain)}") from None
    spec.kinds()
    if spec.own_agents() and spec.begin == "mid-session":
        raise BadInput(f"{source}: agents of your own begin at their beginning; leave out begin = 'mid-session'")
    for name, check in (
        ("slo", spec.promises),
        ("endpoint", lambda: refuse(spec.endpoint, tools=spec.mode == "live")),
        *((f"tenant {t.name!r}", lambda t=t: keep_secrets_out(Endpoint(headers=t.headers))) for t in spec.tenants),
    ):
        try:
            check()
        except ValueError as error:
            raise BadInput(f"{source}: {name}: {error}") from None
    judges_gaps = any(slo.metric == "itl" for tier in spec.promises() for slo in tier.slos)
    spec = msgspec.structs.replace(spec, itl=True) if judges_gaps else spec
    return spec if spec.replay is None else replayed(spec, source)


def replayed(spec: Spec, source: str) -> Spec:
    """A replay with its trace's digest and an end; the trace is read for what of that is not stated."""
    from agentload.recorded import resolved

    if all(name != REPLAY for _, name in spec.shares()):
        raise BadInput(f"{source}: [replay] names a trace that nobody follows; add {REPLAY!r} to the population")
    return resolved(spec)


def from_phases(phases: Any, plain: dict[str, Any], source: str) -> dict[str, Any]:
    """Duration and profile as the phases make them; nothing where there are no phases, or none that can be read."""
    if not isinstance(phases, list) or not phases or not all(isinstance(phase, dict) for phase in phases):
        return {}
    lengths = [phase.get("seconds") for phase in phases]
    if not all(isinstance(length, int | float) and length > 0 for length in lengths):
        return {}
    made: dict[str, Any] = {"duration": float(sum(lengths))}
    own = [phase["profile"] for phase in phases if phase.get("profile") is not None]
    if own and len(own) < len(phases):
        raise BadInput(f"{source}: {len(own)} of {len(phases)} phases have a profile; give one to each, or to none")
    if own:
        parts = [{"profile": shape, "duration": length} for shape, length in zip(own, lengths, strict=True)]
        made["profile"] = {"type": "sequence", "parts": parts}
    for name, value in made.items():
        if name in plain and normal(plain[name]) != normal(value):
            raise BadInput(f"{source}: {name} and phases contradict each other; leave out {name}, the phases make it")
    return made


def normal(value: Any) -> Any:
    """A profile as the decoder sees it, for comparing two ways of writing it."""
    try:
        return msgspec.convert(value, Profile)
    except msgspec.ValidationError:
        return value


def explained(complaint: str, plain: dict[str, Any], root: Any = None) -> str:
    """What msgspec says of plain values, with the value it is about and the name that was meant."""
    what, _, path = complaint.partition(" - at `")
    path = path.rstrip("`").lstrip("$").lstrip(".")
    names = vocabulary(root or Spec)
    unknown = re.search(r"unknown field `(.*)`", what)
    if unknown:
        where = f" in `{path}`" if path else ""
        return f"unknown field `{unknown[1]}`{where}{meant(unknown[1], sorted(names))}"
    missing = re.search(r"missing required field `(.*)`", what)
    if missing:
        return f"missing required field `{missing[1]}`" + (f" in `{path}`" if path else "")
    value: Any = plain
    for key in re.findall(r"[^.\[\]]+", path):
        try:
            value = value[int(key)] if isinstance(value, list) else value[key]
        except (KeyError, IndexError, ValueError, TypeError):
            return f"{what} - at `{path}`"
    if what.startswith("Invalid"):
        return f"`{path}` cannot be {value!r}{meant(str(value), sorted(names.get(path.rpartition('.')[2], ())))}"
    rule = what.replace("Expected `float`", "must be a number").replace("Expected `int`", "must be a whole number")
    return f"`{path}` {rule.replace('Expected', 'must be')}, got {value!r}" if path else what


def vocabulary(root: Any) -> dict[str, set[str]]:
    """Every field that the struct can have at any depth, with the words it can be."""
    found: dict[str, set[str]] = {}
    for schema in msgspec.json.schema_components([root])[1].values():
        for name, field in schema.get("properties", {}).items():
            found.setdefault(name, set()).update(str(word) for word in field.get("enum", ()))
    return found


def encode(spec: Spec) -> str:
    """The spec as TOML that `read` and `decode` make into the same spec. Archetypes in use are written out in full."""
    import tomli_w

    plain = msgspec.to_builtins(spec)
    kinds = msgspec.structs.replace(spec, scale=1.0, longest_wait=None).kinds()
    used = set(spec.named())
    while more := {kinds[name].child for name in used if kinds[name].child} - used:
        used |= more
    decoded = {
        name: msgspec.convert(msgspec.to_builtins(kind), Archetype) for name, kind in kinds.items()
    }  # 39 is 39.0
    plain["archetypes"] = {name: msgspec.to_builtins(decoded[name]) for name in kinds if name in used}
    for name in set(used) - set(ARCHETYPES):
        plain["archetypes"][name]["base"] = "fixed"
    return tomli_w.dumps(without_none(plain))


def without_none(value: Any) -> Any:
    """TOML has no null: a key that is absent means None here."""
    if isinstance(value, dict):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [without_none(item) for item in value]
    return value
