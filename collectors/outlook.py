"""The forecast's page (forecast.html) and its bands as CSV."""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from collectors import moneycharts
from collectors.boardtables import as_csv, large, usd
from collectors.page import card, page, plot, section, table
from collectors.store import write_file
from collectors.text import number, share


def write_forecast(folder: Path | str, found: dict[str, Any]) -> Path:
    """Write forecast.html and forecast.csv beside forecast.json (`found`); the path of the page."""
    folder = Path(folder)
    write_file(folder / "forecast.csv", forecast_csv(found).encode())
    write_file(folder / "forecast.html", forecast_page(found).encode())
    return folder / "forecast.html"


def forecast_page(found: dict[str, Any]) -> str:
    """A forecast as HTML."""
    bands, last = found["bands"], found["months"] - 1
    cash = {"cost": "cost a month, USD", "revenue": "revenue a month, USD", "margin": "margin a month, USD"}
    figures = {"demand": moneycharts.fans(bands, moneycharts.FIGURES), "money": moneycharts.fans(bands, cash)}
    drivers = found["tornado"]["tokens"]
    if drivers:
        what = f"median tokens a month, in month {last}"
        figures["tornado"] = moneycharts.tornado(
            [row | {"input": NAMES.get(row["input"], row["input"])} for row in drivers],
            bands["tokens"]["p50"][last],
            what,
        )
    out = found["runs_out"]
    if out is not None:
        figures["shortage"] = moneycharts.shortage(out["share"])
    spot = {name: plot(name, figure["layout"]["height"]) for name, figure in figures.items()}
    body = [
        '<div class="over">agentload forecast</div><h1>What agents will ask for</h1>',
        f'<p class="lede">{_forecast_lede(found)}</p><div class="cards">{"".join(_forecast_cards(found))}</div>',
        section("Demand and what serves it", f"Dark: half of {found['paths']:,} paths; light: nine in ten. Every path "
                "draws every uncertain input once.", spot["demand"]),
        section("Money", "Cost of the GPUs that the demand takes, revenue at the price of the time.", spot["money"]),
        section("When capacity runs out", _says_shortage(out), spot["shortage"]) if out is not None else "",
        section("What drives the spread", _says_tornado(drivers), spot["tornado"], drivers_table(found))
        if drivers else "",
        section("Inputs", "Every input, as a number or a range, and its source.", inputs_table(found)),
        '<footer><a href="forecast.csv">forecast.csv</a> · made by agentload; forecast.json beside this file holds '
        "every number.</footer>",
    ]  # fmt: skip
    return page("A forecast of demand", body, figures)


NAMES = {
    "adopters.ceiling": "adopters in the end", "adopters.growth": "growth of adoption, a year",
    "adopters.middle": "years to half of the adopters", "adopters.innovation": "innovation p, a year",
    "adopters.imitation": "imitation q, a year", "adopters.age": "years since the launch",
    "adopters.start": "adopters today", "adopters.doubling": "years for adopters to double",
    "adopters.factor": "adopters, times the table", "agents": "agents per adopter",
    "sessions": "sessions per agent and day", "tokens": "tokens per session", "price": "USD per million tokens today",
    "half_life": "years for the price to halve", "elasticity": "elasticity of tokens to price",
    "calls": "growth of calls per session, a year", "exponent": "exponent of tokens in calls",
    "sub_agents": "sub-agents per agent today", "sub_agents_end": "sub-agents per agent at the end",
    "child_share": "a sub-agent's tokens over its root's", "dying": "share of applications that die",
    "life": "years that those last", "noise": "yearly spread of a random walk", "supply.gpus": "GPUs today",
    "supply.gpus_per_month": "GPUs added a month", "supply.tokens_per_gpu": "tokens/s of a GPU",
    "supply.better": "what a GPU does more, a year", "supply.utilisation": "mean load over what is built for",
    "supply.gpu_hour_usd": "USD per GPU-hour", "supply.cheaper": "what a GPU-hour costs less, a year",
    "supply.kw": "kW per GPU", "supply.pue": "PUE",
}  # fmt: skip


def _forecast_lede(found: dict[str, Any]) -> str:
    tokens, last = found["bands"]["tokens"], found["months"] - 1
    now = tokens["p50"][0]
    times = f", {large(tokens['p50'][last] / now)} times today's" if now else ""
    return (
        f"In month {last} agents ask for <b>{large(tokens['p50'][last])} tokens a month</b> in the median{times}; "
        f"nine in ten paths lie between {large(tokens['p5'][last])} and {large(tokens['p95'][last])}."
    )


def _forecast_cards(found: dict[str, Any]) -> list[str]:
    bands, last = found["bands"], found["months"] - 1

    def spread(name: str, show: Any = number) -> str:
        return f"{show(bands[name]['p5'][last])} to {show(bands[name]['p95'][last])} in 90 % of paths"

    cards = [
        card("GPUs", number(bands["gpus"]["p50"][last]), spread("gpus")),
        card("Megawatts", number(bands["megawatts"]["p50"][last]), spread("megawatts")),
        card("Cost a month", usd(bands["cost"]["p50"][last]), spread("cost", usd)),
        card("Revenue a month", usd(bands["revenue"]["p50"][last]), spread("revenue", usd)),
        card("Margin a month", usd(bands["margin"]["p50"][last]), spread("margin", usd)),
    ]
    out = found["runs_out"]
    if out is not None:
        middle = out["month"]["p50"]
        cards.append(card("Capacity lasts", "all along" if middle is None else f"{middle:.0f} months", "in the median"))
    return cards


def _says_shortage(out: dict[str, Any] | None) -> str:
    if out is None:
        return ""
    when = out["month"]
    early, late = when["p5"], when["p95"]
    until = "never within the forecast" if late is None else f"month {late:.0f}"
    if early is None:
        return f"The GPUs suffice in nearly all paths; {share(out['share'][-1])} of them run out."
    return f"Nine paths in ten run out between month {early:.0f} and {until}."


def _says_tornado(drivers: Sequence[dict[str, Any]]) -> str:
    if not drivers:
        return ""
    first = drivers[0]
    name = escape(NAMES.get(first["input"], first["input"]))
    return (
        f"{name[0].upper()}{name[1:]} explains {share(first['share'])} of the spread of demand in the last month "
        "(squared rank correlations); each bar spans the median where the input is in its lowest and its highest "
        "tenth, with the input's value beside it."
    )


def drivers_table(found: dict[str, Any]) -> str:
    """Shares of the variance by input, for each figure."""
    names = list(found["tornado"])
    every = dict.fromkeys(row["input"] for name in names for row in found["tornado"][name])
    by = {name: {row["input"]: row["share"] for row in found["tornado"][name]} for name in names}
    rows = [[NAMES.get(key, key), *(share(by[name].get(key)) for name in names)] for key in every]
    return table(["share of the explained variance", *names], rows)


def inputs_table(found: dict[str, Any]) -> str:
    """Every input with its source."""
    rows = []
    for name, row in found["inputs"].items():
        value = row["value"]
        if isinstance(value, dict):
            middle = "" if value["likely"] is None else f", likely {value['likely']:g}"
            shown = f"{value['low']:g} to {value['high']:g}{middle}"
        else:
            shown = "–" if value is None or not math.isfinite(value) else f"{value:,.6g}"
        rows.append([NAMES.get(name, name), shown, row["source"] or "yours"])
    return table(["input", "value", "source"], rows, words=True)


def forecast_csv(found: dict[str, Any]) -> str:
    """Bands by month."""
    bands = found["bands"]
    return as_csv(
        [
            {"month": month} | {f"{name}_{level}": by[level][month] for name, by in bands.items() for level in by}
            for month in range(found["months"])
        ]
    )  # fmt: skip
