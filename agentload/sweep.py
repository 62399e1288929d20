"""A load raised in steps: the demand curve and the operating points of a cluster, one folder for all of it.

Each step is a run, or several with other seeds until the interval of its throughput is narrow. sweep.json is written
after every step; a sweep that was cut off goes on from there.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct, structs

from agentload.accelerator import cluster_of, seconds_per_token
from agentload.capacity import perform
from agentload.errors import BadInput
from agentload.spec import Group, Spec, decode, encode
from agents.own import called
from collectors import health
from collectors.load import Run, load_run
from collectors.points import Point, measure
from collectors.saturation import Cluster
from collectors.store import write_file
from collectors.summary import health_of
from loadprofiles import Held, Poisson, Profile, Scaled

Axis = Literal["agents", "rate", "fanout", "steps", "share"]
UNITS = {
    "agents": "agents",
    "rate": "sessions per second",
    "fanout": "sub-agents per agent",
    "steps": "model calls in a turn",
    "share": "share of agents among agents and people",
}
PEOPLE = "chat"
POSITIVE = ("precision", "repeats", "fill")
FLAT, FLAT_STEPS = 1.05, 2
"""A series that chooses its own values ends when so many steps in a row are not 5 % above the best before them."""
COLLAPSE, LOST = 0.5, 0.2
"""A series ends where throughput falls below half of its best, or a fifth of the calls is not answered."""

CENSUS_AGENTS = 2
"""At once, when whole sessions are counted: a light load."""


class Options(Struct, frozen=True):
    """What a sweep is asked. Seconds are of the run clock: virtual ones when simulated."""

    axis: Axis = "agents"
    values: tuple[float, ...] = ()  # (): chosen, by doubling; for agents and rate only
    start: float = 1.0  # the first of them
    most: float = 16_384.0
    alone: bool = True  # each archetype of the population by itself; False: the mix as it is
    measure: float | None = None  # seconds of a step; None: 1,800 simulated, 120 otherwise
    fill: float = 32.0  # simulated, fewer agents than this get longer steps, in proportion, up to 8 times
    precision: float = 0.05  # half the interval of tokens/s over its mean at which a step is good enough
    repeats: int = 3  # most runs of a step
    seconds: float | None = None  # of the wall clock, for everything; a step under way is finished
    census: int = 0  # sessions of each archetype that run to their end at a light load: for tasks and chains
    gpus: float | None = None  # None: what the simulated cluster has, else 1
    kv_tokens: int | None = None
    simulate: bool = False

    @property
    def step_seconds(self) -> float:
        return self.measure if self.measure is not None else 1_800.0 if self.simulate else 120.0


class Sweep(Struct, frozen=True):
    """sweep.json."""

    axis: Axis
    unit: str
    spec_toml: str
    options: Options
    cluster: Cluster
    points: list[Point] = []
    ended: dict[str, str] = {}  # why each series ended
    census: dict[str, str] = {}  # the run folder of each archetype's whole sessions
    wall_seconds: float = 0.0


def check(spec: Spec, options: Options) -> None:
    """BadInput, one line, for what cannot be swept."""
    axis, values = options.axis, options.values
    if len(values) == 1:
        raise BadInput(f"a sweep of one point ({values[0]:g}) has no curve; give 2 values or more, or none")
    if list(values) != sorted(set(values)):
        raise BadInput("--values must rise and be different")
    if not values and axis not in ("agents", "rate"):
        raise BadInput(f"a sweep of {axis} needs --values, as in --values {'0.25,0.5' if axis == 'share' else '1,2,4'}")
    for value in values or (options.start, options.most):
        whole = axis in ("agents", "steps")
        if value < 0 or (value == 0 and axis != "fanout" and axis != "share") or (whole and value != int(value)):
            raise BadInput(f"{UNITS[axis]} must be {'whole numbers >= 1' if whole else '> 0'}, got {value:g}")
        if axis == "share" and value > 1:
            raise BadInput(f"a share must lie within 0 and 1, got {value:g}; 25 % is 0.25")
    for name, number in (("measure", options.step_seconds), *((n, getattr(options, n)) for n in POSITIVE)):
        if not number > 0:
            raise BadInput(f"--{name} must be > 0, got {number:g}")
    if options.most < options.start:
        raise BadInput(f"--most must be >= --start ({options.start:g}), got {options.most:g}")
    if options.census < 0 or (options.gpus is not None and not options.gpus > 0):
        raise BadInput("--census must be >= 0 and --gpus > 0")
    if spec.tenants and axis in ("fanout", "steps", "share"):
        raise BadInput(f"a sweep of {axis} changes the population, which tenants have of their own; leave out tenants")
    kinds = spec.kinds()
    if axis in ("fanout", "steps") and spec.own_agents():
        raise BadInput(f"a sweep of {axis} changes archetypes, and agents of your own have none")
    if axis == "fanout":
        for groups in series_of(spec, options).values():
            for group in groups:
                if group.archetype not in kinds or not kinds[group.archetype].child:
                    raise BadInput(f"archetype {group.archetype!r} starts no sub-agents; give it a `child` to sweep R")


def series_of(spec: Spec, options: Options) -> dict[str, list[Group]]:
    """The populations that are swept, by name."""
    if options.axis == "share":
        machines = [group for group in spec.population if group.archetype != PEOPLE]
        if not machines:
            raise BadInput(f"a sweep of the share of agents needs an archetype that is not {PEOPLE!r}")
        return {f"{called(group.archetype)} and {PEOPLE}": [group] for group in machines}
    if options.alone and not spec.tenants:
        return {called(group.archetype): [structs.replace(group, weight=1.0)] for group in spec.population}
    return {"mix": spec.population}


def step_spec(spec: Spec, options: Options, series: str, groups: list[Group], value: float, repeat: int) -> Spec:
    """The run that measures one value: its sessions differ between repeats, and so does its text."""
    archetypes, profile, axis = dict(spec.archetypes), spec.profile, options.axis
    level = value if axis == "agents" else options.fill
    longer = min(8.0, max(1.0, options.fill / level)) if options.simulate and axis == "agents" else 1.0
    seconds, warmup = options.step_seconds * longer, 0.0
    if axis == "agents":
        warmup = seconds / 6
        profile = Held(int(value), stagger=warmup)
    elif axis == "rate":
        profile = poisson(spec.shape(), value)
    elif axis == "share":
        people = Group(PEOPLE, max(1 - value, 0.0) or 1e-9)
        machines = [structs.replace(group, weight=group.weight * value or 1e-9) for group in groups]
        groups = [g for g in (*machines, people) if g.weight > 1e-9]
    else:
        for group in groups:
            own = {"children": spread(value)} if axis == "fanout" else {"steps": value}
            archetypes[group.archetype] = archetypes.get(group.archetype, {}) | own
    return structs.replace(
        spec, name=f"{series}-{value:g}-{repeat + 1}".replace(" ", "-"), population=groups, archetypes=archetypes,
        profile=profile, duration=seconds, phases=[], sessions=None, drain=0.0 if options.simulate else 2.0,
        seed=spec.seed + repeat, salt=None if spec.salt is None else spec.salt + repeat, warmup=warmup,
    )  # fmt: skip


def poisson(profile: Profile, rate: float) -> Profile:
    """The spec's own arrivals at a rate, or Poisson ones where it holds a population."""
    return Poisson(rate) if profile.closed else Scaled(profile, rate=rate / profile.mean(3600.0))


def spread(mean: float) -> Any:
    """A number of children with this mean: the two whole numbers about it."""
    low = math.floor(mean)
    if low == mean:
        return float(mean)
    return {"type": "mixture", "parts": [float(low), low + 1.0], "weights": [low + 1 - mean, mean - low]}


def values_of(options: Options, done: list[Point]) -> float | None:
    """The next value of a series, given its points so far; None where it has been swept."""
    if options.values:
        return options.values[len(done)] if len(done) < len(options.values) else None
    if not done:
        return options.start
    last = done[-1]
    outside = last.time_share.get("tool", 0.0) + last.time_share.get("wait", 0.0)
    factor = 4.0 if outside > 0.9 and last.value < options.most / 16 else 2.0  # agents that hardly call can be many
    following = last.value * factor
    return following if following <= options.most else None


def over(options: Options, done: list[Point]) -> str:
    """Why a series should end before its last value; "" to go on."""
    last, best = done[-1], max(point.tokens.value for point in done)
    if last.limited:
        return f"this machine was the limit at {last.value:g}: {last.limited[0]}"
    if options.axis not in ("agents", "rate"):
        return ""
    if last.error_rate > LOST:
        return f"collapse at {last.value:g}: {last.error_rate:.0%} of the calls were not answered"
    if last.tokens.value < COLLAPSE * best:
        return f"collapse at {last.value:g}: throughput fell to {last.tokens.value / best:.0%} of its best"
    before = max((point.tokens.value for point in done[:-FLAT_STEPS]), default=0.0)
    if not options.values and all(point.tokens.value < FLAT * before for point in done[-FLAT_STEPS:]):
        return f"saturated: the last {FLAT_STEPS} steps added nothing"
    return ""


def finer(options: Options, done: list[Point]) -> float | None:
    """A value between the best one and its neighbours that is still to be measured, once a series that chooses its own
    values has ended; None where there is none, or where it is this machine that gave up."""
    if options.values or done[-1].limited:
        return None
    known = sorted(point.value for point in done)
    best = known.index(max(done, key=lambda point: point.tokens.value).value)
    if len(known) > 1 and max(b / a for a, b in itertools.pairwise(known[max(0, best - 1) : best + 2])) < 1.9:
        return None  # as fine as it shall be
    for low, high in itertools.pairwise(known[max(0, best - 1) : best + 2]):
        middle = math.sqrt(low * high)
        middle = float(round(middle)) if options.axis == "agents" else middle
        if high / low >= 1.9 and middle not in known:
            return middle
    return None


class Sweeper:
    """A sweep under way."""

    def __init__(self, spec: Spec, folder: Path, state: Sweep, say: Callable[[str], None]) -> None:
        self.spec, self.folder, self.state, self.say = spec, folder, state, say
        self.options = state.options
        self.began = time.monotonic() - state.wall_seconds

    def late(self) -> bool:
        return self.options.seconds is not None and time.monotonic() - self.began > self.options.seconds

    def keep(self, **changed: Any) -> None:
        """Take in what is new, and write it."""
        self.state = structs.replace(self.state, wall_seconds=time.monotonic() - self.began, **changed)
        text = msgspec.json.format(msgspec.json.encode(self.state), indent=1)
        write_file(self.folder / "sweep.json", text)

    def sweep(self) -> int:
        """Every series to its end; the exit code."""
        groups = series_of(self.spec, self.options)
        for series, population in groups.items():
            if self.options.census and self.options.axis != "share" and not self.take_census(series, population):
                return 130
        for series, population in groups.items():
            for point in self.steps(series, population):
                if point is None:
                    return 130
                self.keep(points=[*self.state.points, point])
                self.say(said(point, self.options.axis))
        return 0

    def steps(self, series: str, groups: list[Group]) -> Iterator[Point | None]:
        """The points of one series that are still to be measured; None for an interrupt."""
        while series not in self.state.ended:
            done = [point for point in self.state.points if point.series == series]
            reasons = (over(self.options, done[: i + 1]) for i in range(len(done)))
            why = next((reason for reason in reasons if reason), "")
            value = finer(self.options, done) if why else values_of(self.options, done)
            if value is None:
                self.keep(ended=self.state.ended | {series: why or "all values were measured"})
            elif self.late():
                self.say(f"{series}: the time is up; resume the sweep to measure {value:g} and beyond")
                return
            else:
                yield self.point(series, groups, value)

    def point(self, series: str, groups: list[Group], value: float) -> Point | None:
        """Measure one value, again until its interval is narrow, the repeats are used up, or the time is."""
        runs: list[Run] = []
        names: list[str] = []
        limited: tuple[str, ...] = ()
        while True:
            wanted = step_spec(self.spec, self.options, series, groups, value, len(runs))
            folder, stopped = perform(wanted, self.folder, self.options.simulate)
            if stopped == "interrupted":
                return None
            run = load_run(folder)
            runs.append(run)
            names.append(folder.name)
            if not self.options.simulate:
                verdict = health.judge(run.calls, run.sessions, health_of(run))
                limited += tuple(verdict.reasons)
            extra: dict[str, Any] = {}
            if self.options.simulate:
                extra["busy"], extra["weights"] = seconds_per_token(runs, self.spec.box)
            try:
                point = measure(runs, names, series, value, limited, **extra)
            except ValueError as error:
                raise BadInput(f"{series}: {error} (a step is {self.options.step_seconds:g} s)") from None
            narrow = point.tokens.width <= self.options.precision and point.steady
            if narrow or limited or len(runs) >= self.options.repeats or self.late():
                return point

    def take_census(self, series: str, groups: list[Group]) -> bool:
        """Whole sessions at a light load; False for an interrupt."""
        if series in self.state.census:
            return True
        agents = min(CENSUS_AGENTS, self.options.census)
        spec = structs.replace(
            self.spec, name=f"census-{series}", population=groups, profile=Held(agents), duration=None, phases=[],
            warmup=0.0, sessions=self.options.census, begin="fresh",
        )  # fmt: skip
        folder, stopped = perform(spec, self.folder, self.options.simulate)
        if stopped == "interrupted":
            return False
        self.keep(census=self.state.census | {series: folder.name})
        self.say(f"{series}: {self.options.census} whole sessions")
        return True


def sweep(
    spec: Spec,
    out: Path,
    options: Options,
    say: Callable[[str], None] = lambda line: None,
    resume: Path | None = None,
) -> tuple[Path, int]:
    """Run a sweep, or go on with the one in the folder `resume`; return its folder (sweep.json and the step runs) and
    the exit code. The spec's endpoint must exist, unless simulated. `say` is told a line about each step.

    A sweep that goes on keeps its own spec and options, but for `seconds`, which count anew.
    """
    from agentload.prepare import check_folder
    from agentload.realtime import make_folder

    if resume is not None:
        state = read(resume)
        folder = resume
        again = structs.replace(state.options, seconds=options.seconds)
        state = structs.replace(state, options=again, wall_seconds=0.0)
        spec = structs.replace(stored(state), endpoint=spec.endpoint)
    else:
        check(spec, options)
        check_folder(out)
        folder = make_folder(structs.replace(spec, name=f"sweep-{spec.name}".rstrip("-")), out)
        known = cluster_of(spec.box) if options.simulate else Cluster()
        known = Cluster(options.gpus or known.gpus or 1.0, options.kv_tokens or known.kv_tokens)
        state = Sweep(options.axis, UNITS[options.axis], encode(spec), options, known)
    sweeper = Sweeper(spec, folder, state, say)
    sweeper.keep()
    return folder, sweeper.sweep()


def stored(state: Sweep) -> Spec:
    """The spec of a sweep that was cut off."""
    import tomllib

    return decode(tomllib.loads(state.spec_toml), "sweep.json")


def read(folder: Path) -> Sweep:
    """The sweep in a folder. BadInput where there is none."""
    try:
        return msgspec.json.decode((folder / "sweep.json").read_bytes(), type=Sweep)
    except FileNotFoundError:
        raise BadInput(f"{str(folder)!r} is not a sweep folder: it has no sweep.json") from None
    except msgspec.DecodeError as error:
        raise BadInput(f"{str(folder / 'sweep.json')!r} cannot be read: {error}") from None


def said(point: Point, axis: Axis) -> str:
    """One step in a line."""
    wide = f"± {point.tokens.width:.0%}" + ("" if point.steady else ", not steady")
    return (
        f"{point.series}: {point.value:g} {UNITS[axis]}: {point.tokens.value:,.0f} tokens/s ({wide}), "
        f"{point.jobs_per_hour:,.0f} jobs/h, {point.calls:,} calls"
    )
