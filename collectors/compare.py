"""Two runs, or two capacity results, side by side: what differs, how surely, and what cannot be said.

Intervals are of 95 %, from resampling sessions with all their calls (`collectors.resample`), percentile method.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from collectors.baseline import Stored, read_summary, summary_file
from collectors.health import judge
from collectors.load import Array, Run, load_run
from collectors.metrics import kinds, roots
from collectors.resample import FEWEST, LEVELS, RESAMPLES, TAIL, Side
from collectors.summary import health_of
from collectors.text import duration_text, number, share


class Kind(NamedTuple):
    """How a figure is said."""

    title: str
    show: Callable[[float | None], str]
    up: str  # what a rise means
    down: str
    relative: bool = True  # else the change is a difference of shares


SLOWER = ("slower", "faster")
TIMES = {"ttft": "TTFT", "itl": "ITL", "tpot": "TPOT", "e2e": "E2E", "response": "response time"}
KINDS = {
    **{f"{key}_p{level}": Kind(f"{title} p{level}", duration_text, *SLOWER)
       for key, title in TIMES.items() for level in LEVELS},
    "output_speed_p25": Kind("output speed p25 (tokens/s)", number, "faster", "slower"),
    **{f"session_p{level}": Kind(f"session latency p{level}", duration_text, *SLOWER) for level in (50, 95)},
    "calls_per_second": Kind("calls answered per second", number, "carrying more", "carrying less"),
    "output_tokens_per_second": Kind("output tokens per second", number, "carrying more", "carrying less"),
    "tokens_per_second": Kind("tokens per second", number, "carrying more", "carrying less"),
    "error_rate": Kind("calls not answered", share, "failing more often", "failing less often", relative=False),
    "prefix_hit_rate": Kind("prefix cache", share, "hitting its cache more", "hitting its cache less", relative=False),
    "tokens_per_agent_hour": Kind("tokens per agent-hour", number, "asked for more", "asked for less"),
    "tokens_per_intent": Kind("tokens per human request", number, "costing more", "costing less"),
}  # fmt: skip


def compare(a: Path | str, b: Path | str, seed: int = 0) -> dict[str, Any]:
    """What differs between two runs, or two capacity folders, ready for JSON.

    A run is its folder, or its summary.json alone (or a folder that holds no more), which has its figures' intervals.
    Raises FileNotFoundError where there is neither, ValueError for one of each or for an empty run.
    """
    paths = [Path(a), Path(b)]
    found = [capacity_file(path) for path in paths]
    if all(found):
        plain = [msgspec.json.decode(file.read_bytes()) for file in found if file]
        return _named(paths) | compare_capacity(*plain)
    if any(found):
        which, other = (a, b) if found[0] else (b, a)
        raise ValueError(f"{which} is a capacity result and {other} is a run; compare two of a kind")
    return _named(paths) | compare_sides(loaded(paths[0]), loaded(paths[1]), seed)


def capacity_file(path: Path) -> Path | None:
    """The capacity.json that a path is or holds."""
    file = path / "capacity.json" if path.is_dir() else path
    return file if file.name == "capacity.json" and file.is_file() else None


def _named(paths: list[Path]) -> dict[str, Any]:
    return {"a": str(paths[0]), "b": str(paths[1])}


# Two runs.


class Facts(NamedTuple):
    """What must agree between runs that are compared, and whether each can be trusted."""

    simulated: bool
    model: str | None
    archetypes: list[str]
    spec: dict[str, Any] | None  # flat; None where only the summary is left
    doubts: list[str]


class Loaded(NamedTuple):
    """One side before anything is drawn: its facts, and how to make it with a generator."""

    facts: Facts
    side: Callable[[np.random.Generator], Side | Stored]


def loaded(path: Path) -> Loaded:
    """A run from its folder, or from its summary. Raises FileNotFoundError or ValueError, one line."""
    file = summary_file(path)
    if file is None:
        return recorded(load_run(path))
    summary = read_summary(file)
    endpoint, names = summary["endpoint"], sorted(summary["jobs"]["archetypes"])
    facts = Facts(endpoint["simulated"], endpoint["model"], names, None, summary["verdict"]["reasons"])
    return Loaded(facts, lambda rng: Stored(summary, rng))


def recorded(run: Run) -> Loaded:
    """A run from its records."""
    endpoint, doubts = run.header.get("endpoint") or {}, judge(run.calls, run.sessions, health_of(run)).reasons
    names, spec = kinds(roots(run.sessions).archetype), flat(run.header.get("spec") or {})
    return Loaded(
        Facts(bool(endpoint.get("simulated")), endpoint.get("model"), names, spec, doubts), lambda rng: Side(run, rng)
    )


def compare_runs(a: Run, b: Run, seed: int = 0, count: int = RESAMPLES) -> dict[str, Any]:
    """The figures of two runs with the intervals of their differences, from `count` resamples of each."""
    return compare_sides(recorded(a), recorded(b), seed, count)


def compare_sides(a: Loaded, b: Loaded, seed: int = 0, count: int = RESAMPLES) -> dict[str, Any]:
    """The same of runs from wherever they were loaded."""
    rngs = np.random.default_rng(seed).spawn(2)
    sides = [each.side(rng) for each, rng in zip((a, b), rngs, strict=True)]
    for side, name in zip(sides, "AB", strict=True):
        if not side.sessions:
            raise ValueError(f"run {name} holds no session and no call that counts; there is nothing to compare")
    names = [name for name in KINDS if all(name in side.tails for side in sides)]
    values, drawn = [side.values() for side in sides], [side.resampled(count) for side in sides]
    rows = [
        figure(name, [v[name] for v in values], [d[name] for d in drawn], min(side.tails[name] for side in sides))
        for name in names
    ]
    few = [f"{name} has {side.sessions} sessions" for side, name in zip(sides, "AB", strict=True) if side.few]
    notes = [f"{' and '.join(few)}: fewer than {FEWEST} say nothing about how sessions vary"] if few else []
    bare = [name for name, each in zip("AB", (a, b), strict=True) if each.facts.spec is None]
    if bare:
        notes.append(f"of {' and '.join(bare)} only the summary is left, so whether the specs differ cannot be said")
    sure = sum(row["verdict"] in ("up", "down") for row in rows)
    if sure:
        notes.append(f"of {len(rows)} figures that do not differ at all, about {0.05 * len(rows):.0f} would seem to")
    return {
        "kind": "runs",
        "sessions": [side.sessions for side in sides],
        "calls": [side.calls for side in sides],
        "trustworthy": [not each.facts.doubts for each in (a, b)],
        "warnings": warnings(a.facts, b.facts),
        "notes": notes,
        "figures": rows,
    }


def figure(name: str, values: list[float], drawn: list[Array], tail: float) -> dict[str, Any]:
    """One figure of both runs: its change, the interval of that, and a sentence."""
    kind = KINDS[name]

    def change(x: Any, y: Any) -> Any:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.divide(y, x) - 1 if kind.relative else np.subtract(y, x)

    point, low, high = float(change(*values)), math.nan, math.nan
    draws = change(*drawn)
    if tail >= TAIL and np.isfinite(draws).all():
        low, high = (float(edge) for edge in np.percentile(draws, (2.5, 97.5)))
    verdict = "unknown" if math.isnan(low) else "up" if low > 0 else "down" if high < 0 else "none"
    numbers = {"a": values[0], "b": values[1], "change": point, "low": low, "high": high}
    row: dict[str, Any] = {"name": name, "title": kind.title}
    row |= {key: x if math.isfinite(x) else None for key, x in numbers.items()}
    return row | {"relative": kind.relative, "verdict": verdict, "sentence": sentence(kind, row, verdict)}


def sentence(kind: Kind, row: dict[str, Any], verdict: str) -> str:
    """What can be said of one figure, and what cannot."""
    values = f"({kind.show(row['a'])} → {kind.show(row['b'])})"
    moved = f"{kind.title} {signed(row['change'], kind.relative)}"
    if verdict == "unknown":
        return f"Too few data to tell: {moved} {values}"
    moved += f" [{signed(row['low'], kind.relative)}, {signed(row['high'], kind.relative)}] {values}"
    if verdict == "none":
        return f"No difference can be shown: {moved}"
    return f"B is {kind.up if verdict == 'up' else kind.down}: {moved}"


def signed(change: float | None, relative: bool) -> str:
    """A change in percent, or in percentage points."""
    if change is None:
        return "–"
    size = 100 * abs(change)
    text = f"{size:,.0f}" if size >= 10 else f"{size:.1f}"
    return f"{'−' if change < 0 else '+'}{text} {'%' if relative else 'points'}"


# Whether they may be compared at all.


ONE_SIMULATED = "ran against a simulated cluster and the other against a real one"
SERVER_SIDE = (
    "name",
    "salt",
    "seed",
    "endpoint.url",
    "endpoint.model",
    "endpoint.api_key_env",
    "box",
    "urls",
    "slo",
    "gpus",
    "power_kw",
    "gpu_hour_usd",
)
"""What of a spec may differ without making the load another one."""


def warnings(a: Facts, b: Facts) -> list[str]:
    """Why the two runs may not be comparable."""
    said = []
    if a.simulated != b.simulated:
        said.append(f"{'A' if a.simulated else 'B'} {ONE_SIMULATED}")
    if a.model != b.model:
        said.append(f"the models differ: {a.model} and {b.model}")
    if a.archetypes != b.archetypes:
        names = [", ".join(side.archetypes) or "none" for side in (a, b)]
        said.append(f"the archetypes differ: {names[0]} and {names[1]}")
    if a.spec is not None and b.spec is not None:
        said += other_specs(a.spec, b.spec, SERVER_SIDE)
    for name, side in zip("AB", (a, b), strict=True):
        said += [f"{name} is not trustworthy: {reason}" for reason in side.doubts]
    return said


def other_specs(a: dict[str, Any], b: dict[str, Any], but: tuple[str, ...]) -> list[str]:
    """A line that names the settings in which two specs differ, those that begin with `but` apart."""
    x, y = flat(a), flat(b)
    keys = [key for key in sorted(x | y) if x.get(key) != y.get(key) and not key.startswith(but)]
    more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
    differ = "; ".join(f"{key} {x.get(key)} → {y.get(key)}" for key in keys[:5])
    return [f"the specs differ: {differ}{more}"] if keys else []


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested plain values by their path."""
    if isinstance(value, dict):
        items = [flat(item, f"{path}.{key}".lstrip(".")) for key, item in value.items()]
    elif isinstance(value, list):
        items = [flat(item, f"{path}[{i}]") for i, item in enumerate(value)]
    else:
        return {path: value}
    return {key: item for part in items for key, item in part.items()}


# Two capacity results.


def compare_capacity(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """The tiers that both were asked for, side by side."""
    said = []
    if a["unit"] != b["unit"]:
        raise ValueError(f"A counts {a['unit']} and B {b['unit']}; compare two of a kind")
    if a["simulated"] != b["simulated"]:
        said.append(
            f"{'A' if a['simulated'] else 'B'} ran against a simulated cluster and the other against a real one"
        )
    said += other_specs(a["spec"], b["spec"], (*SERVER_SIDE, "profile"))
    others = {(tier["tier"], tuple(tier["slos"])): tier for tier in b["tiers"]}
    both = [(t, others[t["tier"], tuple(t["slos"])]) for t in a["tiers"] if (t["tier"], tuple(t["slos"])) in others]
    if not both:
        said.append("the two were asked for different SLOs, so there is no tier to compare")
    unit = a["unit"].replace("_", " ")
    return {"kind": "capacity", "warnings": said, "notes": [], "figures": [limits(x, y, unit) for x, y in both]}


def limits(a: dict[str, Any], b: dict[str, Any], unit: str) -> dict[str, Any]:
    """One tier of both: they differ where the intervals of their limits lie apart."""
    ranges = [(side["sure_low"], math.inf if side["sure_high"] is None else side["sure_high"]) for side in (a, b)]
    verdict = "up" if ranges[1][0] >= ranges[0][1] else "down" if ranges[0][0] >= ranges[1][1] else "none"
    shown = [
        f"{side['low']:.4g} {unit} [{low:.4g}, {'no bound' if high == math.inf else f'{high:.4g}'}]"
        for side, (low, high) in zip((a, b), ranges, strict=True)
    ]
    head = {"up": "B carries more", "down": "B carries less", "none": "No difference can be shown"}[verdict]
    text = f"{head}: {a['tier']} ({' and '.join(a['slos'])}) {shown[0]} → {shown[1]}"
    change = b["low"] / a["low"] - 1 if a["low"] else None
    row = {
        "name": a["tier"],
        "title": a["tier"],
        "a": a["low"],
        "b": b["low"],
        "change": change,
        "low": None,
        "high": None,
    }
    return row | {"relative": True, "verdict": verdict, "sentence": text}


def to_text(found: dict[str, Any]) -> str:
    """A comparison as text: what may spoil it, what differs, what does not."""
    lines = [f"A  {found['a']}", f"B  {found['b']}"]
    lines += [f"  ✗ not comparable as they are: {warning}" for warning in found["warnings"]]
    rows = found["figures"]
    for verdicts in (("up", "down"), ("none",), ("unknown",)):
        lines += ["", *(row["sentence"] for row in rows if row["verdict"] in verdicts)] if rows else []
    lines += ["", *(f"  · {note}" for note in found["notes"])]
    return "\n".join(line for i, line in enumerate(lines) if line or (i and lines[i - 1])).rstrip()
