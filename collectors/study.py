"""What a sweep says: curves, saturation, people against machines, and money, as one nested dict (study.json).

What the data cannot carry is a string that says why, where a figure would be.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np
from msgspec import Struct

from collectors import factory as money
from collectors.curves import power_law
from collectors.economics import PriceTable, rates, task_costs
from collectors.factory import Factory
from collectors.growth import by_turn, chain_growth, family
from collectors.humans import BASELINE, SessionTable, crossover, day, joined, per_intent, session_table
from collectors.load import Run, load_run
from collectors.metrics import ACCOUNTS, answered, kinds
from collectors.points import Point
from collectors.saturation import Cluster, Saturation, saturation
from collectors.steady import CannotSay
from collectors.tails import power_tail

Result = TypeVar("Result")
PRICE = "gpt-5.4"
"""The model whose list price the human comparison uses."""
LISTED = ("claude-opus-4.8", "claude-sonnet-4.6", "gpt-5.4", "claude-haiku-4.5")
"""Models whose list prices a task is priced at, where the table has them."""


LOADS = ("agents", "rate")
"""Axes that are a load: only along these does a cluster saturate."""


TIMES = {"model", "tool", "wait", "join", "other"}
"""What agents' time is shared out among."""


class Form(Struct):
    """What sweep.json must hold."""

    axis: str
    unit: str
    points: list[Point]
    census: dict[str, str]
    ended: dict[str, str]
    cluster: Cluster


class Swept(NamedTuple):
    """A sweep folder as it was read."""

    folder: Path
    header: dict[str, Any]  # sweep.json without the points
    points: dict[str, list[Point]]  # by series, in the order of their values
    cluster: Cluster
    runs: dict[str, Run]  # whole sessions of each series

    @property
    def simulated(self) -> bool:
        return any(point.simulated for points in self.points.values() for point in points)


def load_sweep(folder: Path | str) -> Swept:
    """A sweep folder. Whole sessions come from the census; without one from each series' run with most finished jobs.

    Raises FileNotFoundError where there is no sweep.json, ValueError for a sweep without a point.
    """
    folder = Path(folder)
    try:
        header = msgspec.json.decode((folder / "sweep.json").read_bytes(), type=dict[str, Any])
        form = msgspec.convert(header, Form)
    except RecursionError:
        raise ValueError(f"{folder / 'sweep.json'} is nested too deeply") from None
    points = form.points
    del header["points"]
    for point in points:
        known = set(point.accounts) == set(ACCOUNTS) and set(point.weights) in (set(), set(ACCOUNTS))
        if not (point.runs and known and set(point.time_share) == TIMES):
            raise ValueError(f"the sweep in {folder} holds a point ({point.series}, {point.value:g}) that no run gave")
    if not points:
        raise ValueError(f"the sweep in {folder} holds no point; resume it")
    series = {name: sorted((p for p in points if p.series == name), key=lambda p: p.value) for name in
              dict.fromkeys(p.series for p in points)}  # fmt: skip
    names = {name: max(found, key=lambda p: p.jobs).runs[0] for name, found in series.items()}
    names |= {name: run for name, run in form.census.items() if name in series}
    runs = {name: load_run(inside(folder, run)) for name, run in names.items()}
    return Swept(folder, header, series, form.cluster, runs)


def inside(folder: Path, name: str) -> Path:
    """The run folder of that name in a sweep's folder. ValueError for one that would be elsewhere."""
    if name in ("", ".", "..") or Path(name).name != name:
        raise ValueError(f"the sweep in {folder} names {name!r} as a run, which is not in it")
    return folder / name


def attempt(do: Callable[[], Result]) -> Result | str:
    """A result, or why there is none."""
    try:
        return do()
    except CannotSay as why:
        return str(why)


def study(swept: Swept, table: PriceTable, factory: Factory, seed: int = 0) -> dict[str, Any]:
    """Everything the pages show, ready for JSON but for NaN."""
    rng = np.random.default_rng(seed)
    sessions = {name: session_table(run.calls, run.sessions) for name, run in swept.runs.items()}
    price = table.price(PRICE) if PRICE in table.models else next(iter(table.models.values()))
    people = attempt(lambda: per_intent(joined(list(sessions.values())), rng, rates(price)))
    return {
        "axis": swept.header["axis"],
        "unit": swept.header["unit"],
        "simulated": swept.simulated,
        "census": bool(swept.header["census"]),
        "factory": msgspec.to_builtins(factory) | {"hour": factory.hour},
        "price": PRICE if PRICE in table.models else next(iter(table.models)),
        "series": {name: of_series(swept, name, sessions[name], table, factory, rng) for name in swept.points},
        "people": people,
        "mix": attempt(lambda: mix(people)),
        "best": {name: best_tiers(points, factory, table) for name, points in swept.points.items()},
        "split": split_of(swept, factory, table),
    }


def of_series(
    swept: Swept, name: str, sessions: SessionTable, table: PriceTable, factory: Factory, rng: np.random.Generator
) -> dict[str, Any]:
    """One series."""
    points, run = swept.points[name], swept.runs[name]
    ok = answered(run.calls)
    grown: Saturation | str = "the load was not what was swept"
    if swept.header["axis"] in LOADS:
        grown = attempt(lambda: saturation(points, swept.cluster, rng))
    top = max(points, key=lambda p: p.tokens.value)
    knee = top.value if isinstance(grown, str) or grown.knee is None else grown.knee
    rising = [p for p in points if p.value <= max(knee, points[min(3, len(points) - 1)].value)]
    n, tokens = np.array([p.value for p in rising]), np.array([p.tokens.value for p in rising])
    hour = np.array([p.tokens_per_agent_hour for p in rising])
    own = money.account_costs(top, factory)
    return {
        "ended": swept.header["ended"].get(name, "not swept to its end"),
        "peak": {"value": top.value, "tokens": top.tokens, "jobs_per_hour": top.jobs_per_hour},
        "saturation": grown if isinstance(grown, str) else grown._asdict() | {"peak": None},
        "tokens_power": attempt(lambda: power_law(n, tokens, rng)._asdict()),
        "agent_hour_power": attempt(lambda: power_law(n, hour, rng)._asdict()),
        "chain": attempt(lambda: chain_growth(run.calls, rng)._asdict()),
        "turns": by_turn(run.calls) if len(ok) else None,
        "family": attempt(lambda: family(run.calls, run.sessions, rng)._asdict()),
        "tail": attempt(lambda: (found := power_tail(sessions.total))._asdict() | {"verdict": found.verdict}),
        "costs": {m: task_costs(sessions, table.models[m], rng) for m in LISTED if m in table.models},
        "account_costs": own,
        "own_cost": own_cost(sessions, own),
        "attempts": float(np.mean([p.attempts for p in points])),
    }


def own_cost(sessions: SessionTable, per_million: dict[str, float]) -> dict[str, float] | None:
    """USD that a finished task costs on the cluster itself at its best operating point, by account."""
    done = float(sessions.done.sum())
    if not done:
        return None
    return {n: float(sessions.tokens[n].sum()) / done * per_million.get(n, 0.0) / 1e6 for n in ACCOUNTS}


def mix(people: dict[str, dict[str, Any]] | str) -> dict[str, dict[str, Any]]:
    """For each archetype the share of agents from which they ask for more than people do, and a day of both."""
    if isinstance(people, str):
        raise CannotSay(people)
    if BASELINE not in people:
        raise CannotSay(f"there is no {BASELINE!r} to compare with; add it to the population")
    found = {}
    base = people[BASELINE]["per_intent"]["tokens per hour"].value / 3600
    for name, row in people.items():
        if name == BASELINE:
            continue
        intents, hours = row["times"]["tokens"], row["times"]["tokens per hour"]
        agents = row["per_intent"]["tokens per hour"].value / 3600
        found[name] = {
            "by_intent": crossover(intents.value), "by_presence": crossover(hours.value),
            "people_per_agent": hours, "day": day(1000 * base, max(1.0, round(1000 * base / agents)) * agents),
            "agents_in_day": max(1.0, round(1000 * base / agents)),
        }  # fmt: skip
    if not found:
        raise CannotSay(f"only {BASELINE!r} has sessions that ended; nothing to compare it with")
    return found


def best_tiers(points: list[Point], factory: Factory, table: PriceTable) -> list[dict[str, Any]]:
    """Of every tier that some point serves, the best one."""
    return [
        {"tier": best.tier, "value": best.point.value, "money": msgspec.to_builtins(best.money)}
        for best in money.best_points(points, factory, table)
    ]


def split_of(swept: Swept, factory: Factory, table: PriceTable) -> dict[str, Any] | str:
    """How a megawatt is split best when no tier can sell more than a quarter of it would make (the GTC example's
    quarters), over the best points of all series."""
    found = []
    for name, points in swept.points.items():
        for choice in money.choices(points, factory, table, ["standard"]):
            found.append(msgspec.structs.replace(choice, name=f"{name}: {choice.tier}"))
    if not found:
        return "no operating point serves a tier"
    gpus = factory.per_megawatt
    demand: dict[str, float] = {}
    for choice in found:
        demand[choice.tier] = max(demand.get(choice.tier, 0.0), choice.output * gpus / 4)
    best = money.split(found, 1.0, demand, megawatts=True)
    rows = [
        {"name": c.name, "tier": c.tier, "gpus": x, "margin": (c.revenue - c.cost) * x, "output": c.output * x,
         "limit": demand[c.tier]}
        for c, x in zip(found, best.gpus, strict=True)
    ]  # fmt: skip
    return {"rows": rows, "margin": best.margin, "shadow": best.shadow, "used": best.used, "gpus": gpus}


def archetypes_of(run: Run) -> list[str]:
    """Archetypes in a run, sub-agents' too."""
    return kinds(run.calls.archetype)
