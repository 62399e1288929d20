"""Pages for planners: a sweep (sweep.html) and its money (factory.html), with the points as CSV.

Each is one file that works offline, in the look of report.html, and made from files alone: it can always be made again.
"""

import math
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import msgspec

from collectors import boardcharts, moneycharts
from collectors.boardtables import (
    as_csv,
    assumptions_table,
    causes,
    chains_table,
    costs_table,
    curves_table,
    money_table,
    people_table,
    steps_table,
    tiers_table,
    usd,
)
from collectors.charts import Figure
from collectors.economics import PriceTable, load_prices
from collectors.factory import Factory, decline
from collectors.humans import BASELINE
from collectors.page import card, page, plot, section, table
from collectors.points import Point
from collectors.store import write_file
from collectors.study import Swept, load_sweep, study
from collectors.text import number, share

Study = dict[str, Any]


def write_sweep(
    folder: Path | str, prices: PriceTable | None = None, factory: Factory | None = None, seed: int = 0
) -> Path:
    """Write sweep.html, factory.html, points.csv and study.json of a sweep folder; the path of sweep.html.

    Without a factory: a rented H200 for each GPU of the sweep. FileNotFoundError for no sweep, ValueError for an empty
    one.
    """
    swept = load_sweep(folder)
    prices = prices or load_prices()
    factory = factory or Factory(gpus=swept.cluster.gpus or 1.0)
    found = study(swept, prices, factory, seed)
    write_file(swept.folder / "points.csv", points_csv(swept, factory).encode())
    write_file(swept.folder / "study.json", msgspec.json.format(msgspec.json.encode(_jsonable(found)), indent=1))
    write_file(swept.folder / "factory.html", factory_page(swept, found, prices, factory).encode())
    write_file(swept.folder / "sweep.html", sweep_page(swept, found, prices, factory).encode())
    return swept.folder / "sweep.html"


def sweep_page(swept: Swept, found: Study, prices: PriceTable, factory: Factory) -> str:
    """The sweep as HTML: how demand scales, where it saturates and why, what a task costs, which tier pays best."""
    unit, rows = found["unit"], found["series"]
    figures: dict[str, Figure] = {
        "demand": boardcharts.demand(swept.points, found, unit),
        "limits": boardcharts.limits(swept.points, unit),
        "chains": boardcharts.chains(found),
        "cost": boardcharts.task_cost({name: row["costs"] for name, row in rows.items()}),
        "frontier": moneycharts.frontiers(swept.points, factory, prices),
        "margins": moneycharts.margins(found["best"], prices),
    }
    if not isinstance(found["people"], str) and BASELINE in found["people"] and len(found["people"]) > 1:
        figures["people"] = boardcharts.people(found["people"], BASELINE)
        name = max(found["mix"], key=lambda n: found["mix"][n]["people_per_agent"].value)
        figures["day"] = boardcharts.a_day(name, found["mix"][name])
    if found["axis"] in ("fanout", "steps"):
        figures["jobs"] = boardcharts.per_job(swept.points, found["axis"], unit)
    spot = {name: plot(name, figure["layout"]["height"]) for name, figure in figures.items()}
    wholes = "sessions run to their own end" if found["census"] else "sessions that ended within the steps"
    body = [
        *_top("Demand of agents, and what it pays", swept, _lede(found), _sweep_cards(swept, found)),
        section(f"How demand scales with {unit}", _says_demand(rows), spot["demand"], curves_table(rows)),
        section(f"What a job takes, by {unit}", _says_jobs(found["axis"]), spot["jobs"]) if "jobs" in spot else "",
        section("Where it saturates, and why", _says_limits(), causes(rows), spot["limits"]),
        section("Along the chain", _says_chains(rows), spot["chains"], chains_table(rows)),
        *_people_sections(found, spot, wholes),
        section("What a task costs", f"USD of a finished task at list prices, of {wholes}; failed sessions' cost is "
                "carried by those that were done.", spot["cost"], costs_table(rows)),
        section("Which tier pays best", _says_tiers(found), spot["margins"], tiers_table(found)),
        section("Throughput against interactivity", "Each dot is an operating point, labelled with its load and "
                "coloured by the dearest tier whose speed and context it keeps; the line joins those that no other "
                "point beats in both.", spot["frontier"]),
        section("Every step", "What each load did, after its warm-up was cut (MSER-5).", steps_table(swept, factory)),
        _words(),
        _footer(swept, '<a href="factory.html">The money in full</a> · <a href="points.csv">points.csv</a>'),
    ]  # fmt: skip
    return page("A sweep: demand of agents", body, figures)


def factory_page(swept: Swept, found: Study, prices: PriceTable, factory: Factory) -> str:
    """The money of a sweep as HTML."""
    rows, unit = found["series"], found["unit"]
    figures: dict[str, Figure] = {
        "accounts": moneycharts.account_bars({name: row["account_costs"] for name, row in rows.items()}),
        "frontier": moneycharts.frontiers(swept.points, factory, prices),
        "margins": moneycharts.margins(found["best"], prices),
        "load": moneycharts.margin_by_load(swept.points, factory, prices, unit),
    }
    best = top_choice(found)
    if best is not None:
        paths = {f"price halves every {life:g} years": decline(best["revenue"], best["cost"], life) for life in LIVES}
        figures["decline"] = moneycharts.declines(paths)
    spot = {name: plot(name, figure["layout"]["height"]) for name, figure in figures.items()}
    measured = any(p.weights for points in swept.points.values() for p in points)
    how = (
        "shared out by the accelerators' time per token, as the simulated cluster's own formula gives it"
        if measured
        else "shared out by the ratios of list prices, since nobody can see into the accelerators"
    )
    body = [
        *_top("The token factory", swept, _factory_lede(found, factory), _factory_cards(factory, found)),
        section("Which tier pays best", _says_tiers(found), spot["margins"], tiers_table(found)),
        section("Margin against load", "What a GPU-hour earns at each load if all its tokens are sold in one tier; "
                "filled dots keep the tier's promise, open ones do not.", spot["load"]),
        section("Throughput against interactivity", "Operating points by the dearest tier they serve.",
                spot["frontier"]),
        section("What a million tokens costs to make", f"The cost of a GPU-hour, {how}.", spot["accounts"]),
        _split_section(found),
        section("When prices fall", _says_decline(best), spot["decline"]) if best is not None else "",
        section("Every operating point", "Revenue at the dearest tier that each point serves.",
                money_table(swept, prices, factory)),
        section("Assumptions", "Every number behind this page, and where it comes from.",
                assumptions_table(factory, prices)),
        _footer(swept, '<a href="sweep.html">The sweep</a> · <a href="points.csv">points.csv</a>'),
    ]  # fmt: skip
    return page("The token factory", body, figures)


LIVES = (1.10, 1.55)
"""Years in which prices halved: economy and middle models (arXiv 2603.28576, secondary)."""


# What the sweep says in words.


def _top(title: str, swept: Swept, lede: str, cards: Iterable[str]) -> list[str]:
    badge = ' <span class="badge">SIMULATED CLUSTER</span>' if swept.simulated else ""
    gpus = f"{number(swept.cluster.gpus)} GPUs" if swept.cluster.gpus else ""
    over = ["agentload sweep", swept.folder.name[:16].replace("T", " "), gpus]
    doubt = sorted(
        {f"{p.series} at {p.value:g}: {p.limited[0]}" for ps in swept.points.values() for p in ps if p.limited}
    )
    return [
        f'<div class="over">{escape(" · ".join(part for part in over if part))}</div>',
        f"<h1>{escape(title)}{badge}</h1>",
        f'<p class="lede">{lede}</p>',
        _doubt(doubt),
        f'<div class="cards">{"".join(cards)}</div>',
    ]  # fmt: skip


def _doubt(reasons: list[str]) -> str:
    items = "".join(f"<li>{escape(reason)}</li>" for reason in reasons)
    return f'<div class="verdict bad"><b>Not trustworthy</b><ul>{items}</ul></div>' if reasons else ""


CAUSES = {
    "kv cache": "the KV cache is full",
    "compute": "compute is full",
    "tool time": "agents wait for tools",
    "people": "they wait for people",
    "sub-agents": "they wait for sub-agents",
    "errors": "calls fail",
    "not seen": "demand still grows",
}


def _lede(found: Study) -> str:
    parts = []
    for name, row in found["series"].items():
        grown = row["saturation"]
        if isinstance(grown, str):
            continue
        at, why = grown["knee"], escape(CAUSES[grown["cause"]])
        where = "not within what was swept" if at is None else f"at about <b>{at:,.{0 if at >= 5 else 1}f}</b>"
        parts.append(f"<b>{escape(name)}</b> {where} ({why})")
    said = f"The cluster saturates with {', '.join(parts)}." if parts else "Too few steps to say where it saturates."
    top = top_choice(found)
    if top is not None:
        said += (
            f" What pays best is <b>{escape(top['series'])}</b> in the <b>{escape(top['tier'])}</b> tier: "
            f"{usd(top['margin'])} per GPU-hour after costs."
        )
    return said


def top_choice(found: Study) -> dict[str, Any] | None:
    """The series, tier and load with the largest margin per GPU-hour; None where no tier is served."""
    every = [
        {"series": name, "tier": row["tier"], "value": row["value"], **row["money"]}
        for name, rows in found["best"].items()
        for row in rows
    ]
    return max(every, key=lambda row: row["margin"], default=None)


def _sweep_cards(swept: Swept, found: Study) -> list[str]:
    cards = []
    for name, row in found["series"].items():
        peak = row["peak"]
        cards.append(
            card(f"{name}: most", number(peak["tokens"].value), f"tokens/s, at {number(peak['value'])} {found['unit']}")
        )
    people = found["people"]
    if not isinstance(people, str):
        for name, row in people.items():
            if name != BASELINE and "times" in row:
                times = row["times"]["tokens"]
                small = f"chat requests, by tokens ({number(times.low)} to {number(times.high)})"
                cards.append(card(f"One {name} task =", number(times.value), small))
    return cards


def _says_demand(rows: Study) -> str:
    said = []
    for name, row in rows.items():
        law = row["tokens_power"]
        if not isinstance(law, str):
            e = law["exponent"]
            said.append(f"{escape(name)} ∝ N^{e.value:.2f} ({e.low:.2f} to {e.high:.2f})")
    first = "Until the cluster saturates, demand grows as " + ", ".join(said) + ". " if said else ""
    return (
        first
        + "Dotted: the bound of a closed loop, from the first step and the most that was seen; dashed: the universal "
        "scalability law. The right panel falls "
        "where agents wait for the cluster instead of asking for more."
    )


def _says_jobs(axis: str) -> str:
    if axis == "steps":
        return (
            "All tokens over the jobs that were finished: a chain that resends its context costs more than its length."
        )
    return (
        "All tokens over the jobs that were finished, and how many agents a session became: dotted 1 + R, where only "
        "the root starts sub-agents; dashed 1/(1−R), a branching process without a limit."
    )


def _says_limits() -> str:
    return (
        "The knee is where throughput begins to grow more slowly than the square root of the load; the panels show "
        "what gives way there: the cache, the wait for a first token, the speed, or nothing but the agents' own pauses."
    )


def _says_chains(rows: Study) -> str:
    said = []
    for name, row in rows.items():
        chain = row["chain"]
        if not isinstance(chain, str) and chain["total"] is not None:
            said.append(f"{escape(name)} calls^{chain['total'].exponent.value:.2f}")
    grows = f"Whole chains' input grows as {', '.join(said)}. " if said else ""
    return grows + (
        "Solid: all input up to a turn, since the context is sent again each time; dashed: what no prefix cache served."
    )


def _says_tiers(found: Study) -> str:
    top = top_choice(found)
    best = ""
    if top is not None:
        best = f"Best: {escape(top['series'])} in {escape(top['tier'])} at a load of {number(top['value'])}. "
    return best + (
        "All tokens sold at a tier's price, at the load that earns most while it keeps the tier's speed and context. "
        "Prices after GTC 2026; speeds, lower contexts and the price of input are ours (factory page)."
    )


def _people_sections(found: Study, spot: Mapping[str, str], wholes: str) -> list[str]:
    people, mix = found["people"], found["mix"]
    if "people" not in spot:
        why = people if isinstance(people, str) else mix if isinstance(mix, str) else f"there is no {BASELINE}"
        return [section("Human against machine", f"Nothing to compare: {escape(why)}.")]
    said = [
        f"one {escape(name)} at work asks for as much as {number(row['people_per_agent'].value)} people: machines "
        f"exceed people from {row['by_presence']:.2%} of those present ({row['by_intent']:.2g} of the requests)"
        for name, row in mix.items()
    ]
    name = max(mix, key=lambda n: mix[n]["people_per_agent"].value)
    day = mix[name]["day"]["peak_to_mean"]
    return [
        section("Human against machine", f"What one thing asked for costs an agent, as a multiple of a person who "
                f"chats, of {wholes}. By tokens, {'; '.join(said)}.", spot["people"], people_table(people)),
        section("A day", f"People sleep and agents do not: people alone peak at {day['people']:.1f} times their mean, "
                f"the mix of 1,000 people and {number(mix[name]['agents_in_day'])} agents at {day['both']:.1f}. The "
                "wave of people is assumed, after the 1.9 to 3.0 of production traces (ServeGen).", spot["day"]),
    ]  # fmt: skip


def _factory_lede(found: Study, factory: Factory) -> str:
    top = top_choice(found)
    if top is None:
        return "No operating point of this sweep keeps the promise of any tier."
    return (
        f"A GPU-hour costs <b>{usd(factory.hour)}</b> and earns <b>{usd(top['revenue'])}</b> with "
        f"<b>{escape(top['series'])}</b> at {number(top['value'])} in the <b>{escape(top['tier'])}</b> tier; a "
        f"megawatt earns {usd(top['margin_per_megawatt_hour'])} an hour after costs."
    )


def _factory_cards(factory: Factory, found: Study) -> list[str]:
    cards = [
        card("GPU-hour", usd(factory.hour), f"{number(factory.gpus)} GPUs, {share(factory.utilisation)} of hours sold"),
        card("GPUs per megawatt", number(factory.per_megawatt), f"{factory.kw:g} kW each, PUE {factory.pue:g}"),
    ]
    top = top_choice(found)
    if top is not None:
        cards += [
            card("Million tokens", usd(top["usd_per_million"]), "to make, all accounts, at the best point"),
            card("Fresh tokens only", usd(top["usd_per_million_fresh"]), "per million that no cache served"),
            card("Break-even", usd(top["break_even"]), "per million output tokens, input in proportion"),
        ]
    return cards


def _split_section(found: Study) -> str:
    best = found["split"]
    if isinstance(best, str):
        return section("The best split of a megawatt", escape(best))
    used = [row for row in best["rows"] if row["gpus"] > 1e-6]
    rows = [
        [row["name"], number(row["gpus"]), number(row["output"]), number(row["limit"]), usd(row["margin"])]
        for row in used
    ]
    says = (
        f"Of {number(best['gpus'])} GPUs in a megawatt, if no tier can sell more output than a quarter of them makes "
        f"(the GTC example's quarters): {usd(best['margin'])} an hour, by linear programming. One more GPU would add "
        f"{usd(best['shadow'] / best['gpus'])} an hour: its shadow price."
    )
    head = ["use", "GPUs", "output tokens/s", "demand, tokens/s", "margin per hour"]
    return section("The best split of a megawatt", says, table(head, rows))


def _says_decline(best: Mapping[str, Any] | None) -> str:
    if best is None:
        return ""
    said = []
    for life in LIVES:
        gone = decline(best["revenue"], best["cost"], life).gone
        said.append(f"{gone:.1f} years if prices halve every {life:g} years" if gone else f"0 years at {life:g}")
    return (
        f"The margin of the best point is gone after {' and '.join(said)}, with the same hardware and the same "
        "load; half-lives of economy and middle models' prices."
    )


WORDS = {
    "(R0+Z)/D": "where a closed loop's bounds meet: a call alone and the pause after it, over the bottleneck's seconds",
    "by theory": "agents of a branching process (Galton–Watson) whose every agent has the root's mean of sub-agents",
    "tail": "of tokens per session: maximum likelihood above xmin (Clauset, Shalizi, Newman 2009), against a lognormal",
    "load": "what was swept; N where it is agents",
    "knee": "where throughput begins to grow more slowly than the square root of the load",
    "N*": "the load with most throughput, by the universal scalability law X = λN / (1 + σ(N−1) + κN(N−1))",
    "β": "slope of ln(tokens/s) over ln N, least squares, with Student's 95 % interval; above 1 is superlinear",
    "γ": "slope of ln(input of a chain) over ln(its calls)",
    "resent": "share of input that the chain had sent before: what a cache that forgets nothing would serve",
    "Little's law gap": "(L − λW) / L of the calls in the window; far from 0 the step was not in a steady state",
    "intervals": "95 %: of batch means for rates, of a bootstrap over sessions for tasks and chains",
}


def _words() -> str:
    words = "".join(f"<dt>{escape(word)}</dt><dd>{escape(meaning)}</dd>" for word, meaning in WORDS.items())
    return f"<section><details><summary>What the words mean</summary><dl>{words}</dl></details></section>"


def _footer(swept: Swept, links: str) -> str:
    said = " The cluster was simulated: its times are a model's." if swept.simulated else ""
    return f"<footer>{links} · made by agentload from the records beside this file.{said}</footer>"


# CSV and JSON.


def points_csv(swept: Swept, factory: Factory) -> str:
    """Every operating point as a row."""
    rows = []
    for points in swept.points.values():
        for p in points:
            plain = {f: getattr(p, f) for f in Point.__struct_fields__ if f not in _NESTED}
            rows.append(
                plain
                | {"tokens_per_second": p.tokens.value, "tokens_low": p.tokens.low, "tokens_high": p.tokens.high}
                | {f"{name}_per_second": x for name, x in p.accounts.items()}
                | {f"time_{name}": x for name, x in p.time_share.items()}
                | {"tokens_per_second_per_gpu": p.tokens.value / factory.gpus, "runs": " ".join(p.runs)}
            )
    return as_csv(rows)


_NESTED = ("tokens", "batches", "accounts", "time_share", "busy", "weights", "limited", "runs")


def _jsonable(value: Any) -> Any:
    """The same for JSON: arrays and estimates as lists, structs and named tuples as they are."""
    if isinstance(value, dict):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if hasattr(value, "_asdict"):
        return {k: _jsonable(v) for k, v in value._asdict().items()}
    if isinstance(value, list | tuple):
        return [_jsonable(v) for v in value]
    if hasattr(value, "tolist"):
        return _jsonable(value.tolist())
    if isinstance(value, msgspec.Struct):
        return None if isinstance(value, Point) else _jsonable(msgspec.to_builtins(value))
    return None if isinstance(value, float) and not math.isfinite(value) else value
