"""Charts of money and of the future: operating points by tier, costs, prices that fall, and a forecast's bands.

As in `collectors.boardcharts`, figures are plain data.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from collectors.boardcharts import Points, line, panels, quiet, scaled
from collectors.charts import ACCOUNT, Figure, label, plain
from collectors.economics import PriceTable
from collectors.factory import Decline, Factory, frontier, money, serves
from collectors.metrics import ACCOUNTS
from collectors.points import Point

TIER = {
    "free": "#9aa5b1",
    "medium": "#35a5c4",
    "high": "#2b6fd6",
    "premium": "#9a62d8",
    "ultra": "#d84f6b",
    "none": "--line",
}
SPARE = ("#1fa187", "#ee8433", "#e3b23c", "#a67c52")


def tier_colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each tier."""
    spare = iter(SPARE * 20)
    return {name: TIER.get(name) or next(spare) for name in names}


# The factory.


def frontiers(points: Points, factory: Factory, table: PriceTable) -> Figure:
    """Every operating point: speed for the user against throughput of a GPU, coloured by the dearest tier it serves;
    the line joins those that no other beats."""
    names = list(points)
    colour, data, titles = tier_colours([*table.tiers, "none"]), [], []
    shown: set[str] = set()
    for i, name in enumerate(names):
        axis = "" if i == 0 else str(i + 1)
        mine = [p for p in points[name] if p.speed]
        x, y = np.array([p.speed or 0.0 for p in mine]), np.array([p.tokens.value / factory.gpus for p in mine])
        best = frontier(x, y)
        order = np.flatnonzero(best)[np.argsort(x[best])]
        data.append(line(x[order], y[order], "frontier", "--muted", axis) | quiet("solid") | {"hoverinfo": "skip"})
        for tier in [*table.tiers, "none"]:
            rows = [j for j, p in enumerate(mine) if dearest(p, table) == tier]
            if rows:
                what = f"{tier} tier" if tier != "none" else "no tier"
                text = [f"{mine[j].value:g}" for j in rows]
                spot = line(x[rows], y[rows], what, colour[tier], axis, showlegend=tier not in shown)
                data.append(
                    spot | {"mode": "markers+text", "text": text, "textposition": "top center",
                            "textfont": {"size": 10, "color": "--muted"}, "marker": {"color": colour[tier], "size": 10}}
                )  # fmt: skip
                shown.add(tier)
        titles.append(label(name))
    across = 2 if len(names) in (2, 4) else min(3, len(names))
    figure = panels(data, titles, "tokens per second per user", 90 + 250 * -(-len(names) // across), across)
    for i in range(len(names)):
        axis = "" if i == 0 else str(i + 1)
        top = max((p.tokens.value for p in points[names[i]]), default=1.0) / factory.gpus
        figure["layout"][f"yaxis{axis}"]["range"] = [0, 1.12 * top]
        figure["layout"][f"xaxis{axis}"]["rangemode"] = "tozero"
    figure["layout"]["yaxis"]["title"] = {"text": "tokens/s per GPU"}
    return figure


def dearest(point: Point, table: PriceTable) -> str:
    """The dearest tier that a point serves."""
    able = [name for name, tier in table.tiers.items() if serves(point, tier)]
    return max(able, key=lambda name: table.tiers[name].price) if able else "none"


def margins(best: Mapping[str, list[dict[str, Any]]], table: PriceTable) -> Figure:
    """Margin per GPU-hour of the best point of each tier, by series."""
    colour, data = tier_colours(list(table.tiers)), []
    for tier in table.tiers:
        rows = {name: row["money"]["margin"] for name, found in best.items() for row in found if row["tier"] == tier}
        if rows:
            data.append(
                {"type": "bar", "x": [label(n) for n in rows], "y": plain(np.array(list(rows.values()))), "name": tier,
                 "marker": {"color": colour[tier]}, "hovertemplate": "%{y:$.2f}<extra>" + label(tier) + "</extra>"}
            )  # fmt: skip
    figure = panels(data, ["margin per GPU-hour at the best operating point of each tier, USD"], "", 320)
    figure["layout"]["barmode"] = "group"
    figure["layout"]["xaxis"].update({"categoryorder": "array", "categoryarray": [label(name) for name in best]})
    return figure


def margin_by_load(points: Points, factory: Factory, table: PriceTable, unit: str) -> Figure:
    """Margin per GPU-hour against the load in every tier that some point serves; filled where its promise is kept."""
    colour, data = tier_colours(list(table.tiers)), []
    every = [point for mine in points.values() for point in mine]
    served = {name: tier for name, tier in table.tiers.items() if any(serves(point, tier) for point in every)}
    names = list(points)
    for i, name in enumerate(names):
        axis = "" if i == 0 else str(i + 1)
        for tier, promise in served.items():
            mine = points[name]
            y = np.array([money(p, factory, table.tier_price(tier)).margin for p in mine])
            kept = [serves(p, promise) for p in mine]
            mark = {"color": colour[tier], "size": 7, "symbol": ["circle" if k else "circle-open" for k in kept]}
            thin = {"color": colour[tier], "width": 1}
            data.append(line([p.value for p in mine], y, tier, colour[tier], axis, showlegend=i == 0, marker=mark)
                        | {"line": thin})  # fmt: skip
    across = 2 if len(names) in (2, 4) else min(3, len(names))
    titles = [label(name) for name in names]
    figure = panels(data, titles, unit, 90 + 260 * -(-len(names) // across), across)
    for i, name in enumerate(names):
        axis = "" if i == 0 else str(i + 1)
        scaled(figure, f"xaxis{axis}", [p.value for p in points[name]])
    figure["layout"]["yaxis"]["title"] = {"text": "USD per GPU-hour"}
    return figure


def account_bars(costs: Mapping[str, dict[str, float]]) -> Figure:
    """USD per million tokens of each account, by series."""
    data, seen = [], list[float]()
    for account in ACCOUNTS:
        title, colour = ACCOUNT[account]
        y = np.array([row.get(account, np.nan) for row in costs.values()])
        if np.isfinite(y).any():
            seen += y.tolist()
            data.append({"type": "bar", "x": [label(n) for n in costs], "y": plain(y), "name": title,
                         "marker": {"color": colour}})  # fmt: skip
    figure = panels(data, ["USD per million tokens, at the load with most tokens per second"], "", 320)
    scaled(figure, "yaxis", seen)
    figure["layout"]["barmode"] = "group"
    return figure


def declines(found: Mapping[str, Decline]) -> Figure:
    """Margin of a GPU-hour while prices fall."""
    shades, data = ("#2b6fd6", "#9a62d8", "#ee8433"), []
    for (name, row), colour in zip(found.items(), shades, strict=False):
        data.append(line(row.years, row.revenue - row.cost, name, colour, mode="lines"))
    figure = panels(data, ["margin per GPU-hour, USD"], "years from now", 280)
    figure["layout"]["shapes"] = [{"type": "line", "xref": "x domain", "yref": "y", "x0": 0, "x1": 1, "y0": 0, "y1": 0,
                                   "line": {"color": "--muted", "dash": "dot", "width": 1}}]  # fmt: skip
    return figure


# A forecast.

FIGURES = {"tokens": "tokens a month", "gpus": "GPUs", "megawatts": "megawatts", "adopters": "adopters"}


def fans(bands: Mapping[str, Mapping[str, list[float]]], names: Mapping[str, str], log: bool = True) -> Figure:
    """The median, and the bands that hold 50 % and 90 % of the paths, by month."""
    data, colour = [], "#2b6fd6"
    across = 3 if len(names) == 3 else min(2, len(names))
    for i, name in enumerate(names):
        axis, rows = "" if i == 0 else str(i + 1), bands[name]
        months = np.arange(len(rows["p50"]))
        for low, high, shade, what in (("p5", "p95", "2b", "90 % of paths"), ("p25", "p75", "55", "50 % of paths")):
            area = line(np.concatenate([months, months[::-1]]), [*rows[low], *rows[high][::-1]], what, colour, axis)
            data.append(area | {"mode": "lines", "fill": "toself", "fillcolor": colour + shade, "hoverinfo": "skip",
                                "line": {"width": 0}, "showlegend": i == 0})  # fmt: skip
        data.append(line(months, rows["p50"], "median", colour, axis, mode="lines", showlegend=i == 0))
    figure = panels(data, list(names.values()), "months from now", 280 * -(-len(names) // across) + 60, across)
    for i, name in enumerate(names):
        axis = "" if i == 0 else str(i + 1)
        positive = all(x > 0 for x in bands[name]["p5"])
        scaled(figure, f"yaxis{axis}", [*bands[name]["p5"], *bands[name]["p95"]], log and positive)
        figure["layout"][f"xaxis{axis}"]["dtick"] = 12
    return figure


def tornado(rows: Sequence[dict[str, Any]], middle: float, what: str) -> Figure:
    """The figure's median when each input is low or high, the strongest first."""
    rows = rows[:10]
    data = []
    for side, colour, title in (("low", "#35a5c4", "input in its lowest tenth"),
                                ("high", "#d84f6b", "input in its highest tenth")):  # fmt: skip
        x = np.array([row[side] for row in rows])
        text = [f"{row['at'][side == 'high']:.3g}" for row in rows]
        data.append(
            {"type": "scatter", "mode": "markers+text", "x": plain(x), "y": [label(row["input"]) for row in rows],
             "name": title, "marker": {"color": colour, "size": 11}, "text": text,
             "textposition": ["middle left" if a < b else "middle right"
                              for a, b in ((row[side], row["high" if side == "low" else "low"]) for row in rows)],
             "textfont": {"size": 10, "color": "--muted"}}
        )  # fmt: skip
    figure = panels(data, [what], "", 110 + 32 * len(rows))
    figure["layout"]["shapes"] = [
        {"type": "line", "xref": "x", "yref": "y", "x0": row["low"], "x1": row["high"], "y0": i, "y1": i,
         "layer": "below", "line": {"color": "--line", "width": 8}}
        for i, row in enumerate(rows)
    ] + [{"type": "line", "xref": "x", "yref": "y domain", "x0": middle, "x1": middle, "y0": 0, "y1": 1,
          "line": {"color": "--muted", "dash": "dot", "width": 1}}]  # fmt: skip
    scaled(figure, "xaxis", [x for row in rows for x in (row["low"], row["high"])])
    figure["layout"]["yaxis"]["autorange"] = "reversed"
    return figure


def shortage(share: Sequence[float]) -> Figure:
    """How likely it is that the GPUs no longer suffice, by month."""
    data = [line(np.arange(len(share)), share, "paths that ran out", "#d63f4c", mode="lines", fill="tozeroy")]
    figure = panels(data, ["share of paths in which the GPUs no longer suffice"], "months from now", 240)
    figure["layout"]["yaxis"].update({"range": [0, 1.02], "tickformat": ".0%"})
    figure["layout"]["xaxis"]["dtick"] = 12
    figure["layout"]["showlegend"] = False
    return figure
