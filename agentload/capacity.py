"""How much load a cluster carries before it breaks its promises: by doubling, then bisection, one run for each probe.

`agentload.search` decides which load comes next. Here a load is measured, and the answer is written and said.
"""

import asyncio
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, structs

from agentload.errors import BadInput
from agentload.search import Bracket, Probe, Search, bracket, resolved, search
from agentload.spec import Spec
from collectors import health, slo
from collectors.load import load_run
from collectors.metrics import answered, ended
from collectors.slo import Tier
from collectors.store import write_file
from collectors.summary import health_of
from loadprofiles import Profile


class Options(Struct, frozen=True):
    """What `capacity` is asked."""

    tiers: tuple[Tier, ...]
    start: float | None = None  # agents or sessions per second; None: what the spec's profile has
    most: float | None = None  # None: 1,024 times the start
    resolution: float = 0.05
    probes: int | None = None  # None: 12, and 5 for each tier beyond the first
    warmup: float = 15.0  # seconds before anything counts; agents start spread over them
    measure: float = 60.0  # seconds that count; twice as many in a repetition
    gpus: float | None = None
    power_kw: float | None = None  # of the whole cluster under load
    gpu_hour_usd: float | None = None  # of one
    simulate: bool = False  # in virtual time
    limits: health.Limits = health.LIMITS


def tiers_from(texts: list[str], named: str | None = None, table: dict[str, Any] | None = None) -> tuple[Tier, ...]:
    """The tiers of `--slo NAME=LIMIT …`, or a shipped set by name, or a TOML table. BadInput where there is none."""
    try:
        if texts:
            return tuple(slo.from_table(slo.parse_all(texts)))
        if named is not None:
            return tuple(slo.tiers_named(named))
        if table:
            return tuple(slo.from_table(table))
    except ValueError as error:
        raise BadInput(str(error)) from None
    raise BadInput(f"capacity needs SLOs: --slo ttft_p95=2.0, or --tiers with one of {', '.join(slo.published())}")


def plan_of(spec: Spec, options: Options) -> Search:
    """The search that options and spec mean. BadInput for what cannot be searched."""
    whole = spec.profile.closed
    natural = spec.profile.population(spec.duration or math.inf)[1].max() if whole else spec.profile.mean(3600.0)
    start = float(natural if options.start is None else options.start)
    most = 1024 * start if options.most is None else float(options.most)
    unit = "agents" if whole else "sessions per second"
    if start <= 0 or (whole and start != int(start)):
        raise BadInput(f"--start must be {'a whole number >= 1' if whole else '> 0'} ({unit}), got {start:g}")
    if most < start or (whole and most != int(most)):
        rule = f"{'a whole number ' if whole else ''}>= --start ({start:g})"
        raise BadInput(f"--most must be {rule} {unit}, got {most:g}")
    if not 0 < options.resolution < 1:
        raise BadInput(f"--resolution must be between 0 and 1, got {options.resolution:g}; 5 % is 0.05")
    if options.warmup < 0 or options.measure <= 0:
        raise BadInput(f"--warmup must be >= 0 and --measure > 0 (s), got {options.warmup:g} and {options.measure:g}")
    probes = 12 + 5 * (len(options.tiers) - 1) if options.probes is None else options.probes
    if probes < 1:
        raise BadInput(f"--probes must be >= 1, got {probes}")
    return Search(tuple(tier.name for tier in options.tiers), start, most, whole, options.resolution, probes)


def probe_spec(spec: Spec, load: float, earlier: int, number: int, options: Options) -> Spec:
    """The run that measures one load: its sessions are the spec's, its text is new, its end waits for late answers."""
    seconds = options.measure * (earlier + 1)
    slos = [each for tier in options.tiers for each in tier.slos]
    patience = max((each.limit for each in slos if each.metric in ("ttft", "e2e", "response", "session")), default=0.0)
    return structs.replace(
        spec,
        name=f"probe-{number:02d}-{load:.4g}",
        duration=options.warmup + seconds,
        warmup=options.warmup,
        phases=[],
        drain=max(2.0, patience),  # what was cut after that is known to be late
        sessions=None,
        seed=spec.seed + earlier,
        salt=None if spec.salt is None else spec.salt + number,
        itl=spec.itl or any(each.metric == "itl" for each in slos),
        profile=profile_at(spec.shape(), load, options.warmup, options.warmup + seconds),
    )


def profile_at(profile: Profile, load: float, warmup: float, duration: float) -> Profile:
    """A population held at `load`, its agents started over the warm-up so that they do not march in phase; open loop,
    the spec's own arrivals at that rate."""
    from loadprofiles import Held, Scaled

    if profile.closed:
        return Held(int(load), stagger=warmup)
    return Scaled(profile, rate=load / profile.mean(duration))


def measured(folder: Path, load: float, options: Options, window: tuple[float, float], stopped: str) -> Probe:
    """What a run says of its load; nothing, where it was interrupted."""
    if stopped == "interrupted":
        return Probe(load, {}, ["the run was interrupted"], folder.name, stopped=stopped)
    run = load_run(folder)
    calls, sessions = slo.counted(run, [window])
    if not len(calls):
        raise BadInput(
            f"a probe of {load:g} made no call in the {window[1] - window[0]:g} s that count; lengthen --measure"
        )
    verdict = health.judge(run.calls, run.sessions, health_of(run), options.limits)
    some = len(answered(run.calls)) > 0  # without an answer the last reason is just that, and not ours
    ok, seconds = answered(calls), window[1] - window[0]
    return Probe(
        load=load,
        judged={tier.name: slo.judge_all(tier, calls, sessions) for tier in options.tiers},
        limited=verdict.reasons if some else verdict.reasons[:-1],
        folder=folder.name,
        seconds=seconds,
        calls=len(calls),
        sessions=len(ended(sessions)),
        calls_per_second=len(ok) / seconds,
        output_tokens_per_second=float(ok.output_tokens.sum()) / seconds,
        simulated=bool((run.header.get("endpoint") or {}).get("simulated")),
        stopped=stopped,
    )


def perform(spec: Spec, out: Path, simulated: bool) -> tuple[Path, str]:
    """One run, in real or in virtual time; its folder and why it ended."""
    if simulated:
        from agentload.simulation import simulate

        return simulate(spec, out)
    import uvloop

    from agentload.realtime import run
    from agentload.screen import Watch

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run(spec, out, Watch()))


def capacity(
    spec: Spec, out: Path, options: Options, say: Callable[[str], None] = lambda line: None
) -> tuple[Path, int]:
    """Search; return the folder (capacity.json, and a run folder for each probe) and the exit code.

    The spec's endpoint must exist; all probes go to it. `say` is told a line about each probe.
    """
    from agentload.prepare import check_folder
    from agentload.realtime import make_folder

    plan = plan_of(spec, options)
    check_folder(out)
    folder = make_folder(structs.replace(spec, name=f"capacity-{spec.name}".rstrip("-")), out)
    numbers, done = itertools.count(1), list[Probe]()

    def measure(load: float, earlier: int) -> Probe:
        number = next(numbers)
        wanted = probe_spec(spec, load, earlier, number, options)
        kept, stopped = perform(wanted, folder, options.simulate)
        window = (options.warmup, options.warmup + options.measure * (earlier + 1))
        done.append(measured(kept, load, options, window, stopped))
        write(folder, result(spec, plan, options, done))
        say(f"probe {number} of at most {plan.probes}: {said(done[-1], plan.whole)}")
        return done[-1]

    search(measure, plan)
    return folder, 130 if done[-1].stopped == "interrupted" else 0


def write(folder: Path, found: dict[str, Any]) -> None:
    write_file(folder / "capacity.json", msgspec.json.format(msgspec.json.encode(found), indent=2))


# The answer.


def result(spec: Spec, plan: Search, options: Options, probes: list[Probe]) -> dict[str, Any]:
    """capacity.json: the answer for each tier, and every probe it rests on."""
    return {
        "schema": 1,
        "unit": "agents" if plan.whole else "sessions_per_second",
        "spec": msgspec.to_builtins(spec),
        "search": msgspec.to_builtins(plan),
        "warmup": options.warmup,
        "gpus": options.gpus,
        "power_kw": options.power_kw,
        "gpu_hour_usd": options.gpu_hour_usd,
        "simulated": any(probe.simulated for probe in probes),
        "interrupted": any(probe.stopped == "interrupted" for probe in probes),
        "tiers": [answer(tier, plan, options, probes) for tier in options.tiers],
        "probes": [msgspec.to_builtins(probe) for probe in probes],
    }


def answer(tier: Tier, plan: Search, options: Options, probes: list[Probe]) -> dict[str, Any]:
    """One tier's limit, its bracket, and what it is per GPU, megawatt and dollar."""
    found = bracket([probe for probe in probes if probe.stopped != "interrupted"], tier.name)
    return {
        "tier": tier.name,
        "slos": [str(each) for each in tier.slos],
        **msgspec.to_builtins(found),
        "outcome": outcome(found, plan),
        "per": per(found.low, options),
        "sentence": sentence(tier, found, plan),
        "notes": notes(found, plan, probes),
    }


def notes(found: Bracket, plan: Search, probes: list[Probe]) -> list[str]:
    """What a reader of the answer must know. AA-AgentPerf asks for three whole sessions of each agent; we for one."""
    ended = sum(probe.sessions for probe in probes if probe.load == found.low)
    if not plan.whole or not found.low or ended >= found.low:
        return []
    return [
        f"only {ended:,} sessions came to their end for {amount(found.low, True)}, so contexts may be shorter than "
        "they become; lengthen --warmup and --measure, or let the spec begin mid-session"
    ]


def outcome(found: Bracket, plan: Search) -> str:
    """ "found", "none" (not even the least load held), "no_limit", "client" (this machine was the limit), or
    "unfinished" (the probes were used up, or the search was stopped)."""
    if found.high is not None and resolved(found.low, found.high, plan):
        return "found" if found.low else "none"
    if found.wall is not None:
        return "client"
    return "no_limit" if found.high is None and found.low >= plan.most else "unfinished"


def sentence(tier: Tier, found: Bracket, plan: Search) -> str:
    """The answer in words."""
    promise = " and ".join(str(each) for each in tier.slos)
    low, high, wall = (amount(load, plan.whole) for load in (found.low, found.high, found.wall))
    but = "" if found.high is None else f" and fewer than {high}"
    match outcome(found, plan):
        case "client" if not found.low:
            return f"Nothing can be said of {promise}: this machine can't make even {wall}."
        case "client":
            return f"At least {low}{but} with {promise}; this machine can't push further: {wall} was beyond it."
        case "no_limit":
            return f"No limit found up to {low} with {promise}."
        case "none":
            return f"Not even {high} with {promise}."
        case "unfinished" if not found.low:
            return f"Nothing can be said of {promise} yet{but.replace(' and', ', but')}: the search ended too early."
        case "unfinished":
            return f"At least {low}{but} with {promise}: the search ended before more could be said."
    holds = f"{found.sure_low:.4g} holds" if found.sure_low else "no load is sure to hold"
    breaks = "no load is sure to break it" if found.sure_high is None else f"{found.sure_high:.4g} does not"
    return f"{low} with {promise}; {high} did not hold. With 95 % confidence {holds} and {breaks}."


def amount(load: float | None, whole: bool) -> str:
    """A load with its unit."""
    if load is None:
        return "–"
    if whole:
        return f"{load:,.0f} agent{'' if load == 1 else 's'}"
    return f"{load:.3g} sessions/s ({load * 3600:,.0f} an hour)"


def per(load: float, options: Options) -> dict[str, float]:
    """The load per GPU, megawatt and dollar an hour, as far as these are known."""
    shares: dict[str, float] = {}
    if options.gpus:
        shares["gpu"] = load / options.gpus
    if options.power_kw:
        shares["megawatt"] = load / options.power_kw * 1000
    if options.gpus and options.gpu_hour_usd:
        shares["dollar_hour"] = load / (options.gpus * options.gpu_hour_usd)
    return shares


def said(probe: Probe, whole: bool) -> str:
    """One probe in a line."""
    if probe.limited:
        return f"{amount(probe.load, whole)}: {probe.limited[0]}"
    parts = [f"{name} {slo.together(j.verdict for j in judged)}" for name, judged in probe.judged.items()]
    return f"{amount(probe.load, whole)}: {', '.join(parts)} ({probe.calls:,} calls, {probe.sessions:,} sessions ended)"


def to_text(found: dict[str, Any]) -> str:
    """capacity.json as text: the answers, then the probes."""
    whole = found["unit"] == "agents"
    lines = ["A SIMULATED cluster was measured."] if found["simulated"] else []
    for tier in found["tiers"]:
        lines.append(f"{tier['tier']}: {tier['sentence']}")
        lines += [f"  · {note}" for note in tier["notes"]]
        names = {"gpu": "per GPU", "megawatt": "per megawatt", "dollar_hour": "per dollar an hour"}
        lines += [f"{'':<4}{value:,.4g} {names[key]}" for key, value in tier["per"].items()]
    lines += [
        "",
        f"{'load':<10}{'tier':<10}{'SLO':<22}{'measured':>10}{'good':>9}  {'95 % interval':<17}{'of':>16}  verdict",
    ]
    for probe in found["probes"]:
        for tier, judged in probe["judged"].items():
            lines += [row(probe, tier, one, whole) for one in judged]
    return "\n".join(lines)


def row(probe: dict[str, Any], tier: str, judged: dict[str, Any], whole: bool) -> str:
    """One objective of one probe."""
    value = "–" if judged["value"] is None else f"{judged['value']:.4g}"
    good = "–" if judged["share"] is None else f"{judged['share']:.2%}"
    interval = f"[{judged['low']:.2%}, {judged['high']:.2%}]"
    items = f"{judged['items']:,} ({judged['effective']:,.0f})"
    load = f"{probe['load']:.0f}" if whole else f"{probe['load']:.4g}/s"
    verdict = "limited by this machine" if probe["limited"] else judged["verdict"]
    name = f"{judged['slo']} {'≥' if judged['slo'].startswith('output_speed') else '≤'} {judged['limit']:g}"
    return f"{load:<10}{tier:<10}{name:<22}{value:>10}{good:>9}  {interval:<17}{items:>16}  {verdict}"
