"""Charts of a sweep: each function takes its points, or the numbers of `collectors.study`, and returns a Plotly figure.

As in `collectors.charts`, figures are plain data, and a colour that begins with "--" is a variable of the page's theme.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from collectors.charts import Figure, colours, label, plain
from collectors.load import Array
from collectors.points import Point
from collectors.saturation import columns
from collectors.steady import Estimate

Points = Mapping[str, Sequence[Point]]


def line(x: Any, y: Any, name: str, colour: str, axis: str = "", **more: Any) -> dict[str, Any]:
    """A line with its points."""
    return {
        "type": "scatter", "mode": "lines+markers", "x": plain(np.asarray(x, float)), "y": plain(np.asarray(y, float)),
        "name": label(name), "xaxis": f"x{axis}", "yaxis": f"y{axis}", "line": {"color": colour, "width": 2},
        "marker": {"color": colour, "size": 6}, "legendgroup": label(name), **more,
    }  # fmt: skip


def panels(data: list[dict[str, Any]], titles: Sequence[str], x: str, height: int, columns: int = 0) -> Figure:
    """Panels side by side, each with its title above."""
    columns = columns or len(titles)
    rows = -(-len(titles) // columns)
    layout: dict[str, Any] = {
        "height": height, "annotations": [], "showlegend": True, "hovermode": "closest",
        "grid": {"rows": rows, "columns": columns, "pattern": "independent", "xgap": 0.14, "ygap": 0.34},
    }  # fmt: skip
    for i, title in enumerate(titles):
        axis = "" if i == 0 else str(i + 1)
        layout[f"xaxis{axis}"] = {"title": {"text": x, "standoff": 6} if i >= len(titles) - columns else None}
        layout[f"yaxis{axis}"] = {}
        layout["annotations"].append(
            {"text": title, "xref": f"x{axis} domain", "yref": f"y{axis} domain", "x": 0, "y": 1, "yshift": 16,
             "xanchor": "left", "yanchor": "middle", "showarrow": False, "font": {"size": 12, "color": "--muted"}}
        )  # fmt: skip
    return {"data": data, "layout": layout}


def bars(found: Sequence[Estimate | None]) -> dict[str, Any]:
    """Error bars of 95 % intervals."""
    up = np.array([np.nan if x is None else x.high - x.value for x in found])
    down = np.array([np.nan if x is None else x.value - x.low for x in found])
    return {"type": "data", "symmetric": False, "array": plain(up), "arrayminus": plain(down), "thickness": 1.2}


def scaled(figure: Figure, axis: str, values: Any, log: bool = True) -> None:
    """A logarithmic axis with ticks at powers of ten, or at 1, 2 and 5 where the values span little."""
    x = np.asarray(values, float)
    x = x[np.isfinite(x) & (x > 0)]
    if not log or not x.size:
        return
    wide = x.max() / x.min() > 300
    at = [m * 10.0**e for e in range(-9, 19) for m in ((1,) if wide else (1, 2, 5))]
    at = [t for t in at if x.min() / 3 <= t <= x.max() * 3]
    figure["layout"][axis].update({"type": "log", "tickvals": at, "ticktext": [short(t) for t in at]})


def short(value: float) -> str:
    """A round number as a tick: 20, 5k, 1M."""
    for limit, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{unit}"
    return f"{value:g}"


# A sweep.


def demand(points: Points, study: dict[str, Any], unit: str) -> Figure:
    """Tokens per second, and per agent-hour, against the load; dotted the closed loop's bounds, dashed the USL."""
    colour, data = colours(points), []
    rows = [row for mine in points.values() for row in mine]
    for name, mine in points.items():
        n, x = columns(mine)
        error = bars([p.tokens for p in mine])
        data.append(line(n, x, name, colour[name], error_y=error))
        data.append(line(n, [p.tokens_per_agent_hour for p in mine], name, colour[name], "2", showlegend=False))
        fine = np.geomspace(n[0], n[-1], 60) if n[0] > 0 else n
        if n[0] > 0:  # the closed loop's bounds: min(N/(R0+Z), 1/D), in tokens
            bound = np.minimum(x[0] * fine / n[0], x.max())
            data.append(line(fine, bound, f"{name}, bound", colour[name]) | quiet("dot"))
        grown = study["series"][name]["saturation"]
        if not isinstance(grown, str) and grown["usl"] is not None:
            data.append(line(fine, grown["usl"].throughput(fine), f"{name}, USL", colour[name]) | quiet("dash"))
    figure = panels(data, ["tokens per second", "tokens per agent-hour"], unit, 400)
    every = [p.value for p in rows]
    for axis, values in (
        ("xaxis", every), ("xaxis2", every), ("yaxis", [p.tokens.value for p in rows]),
        ("yaxis2", [p.tokens_per_agent_hour for p in rows]),
    ):  # fmt: skip
        scaled(figure, axis, values, axis.startswith("y") or min(every) > 0)
    top = max(p.tokens.value for p in rows)
    least = min(p.tokens.value for p in rows if p.tokens.value > 0)
    figure["layout"]["yaxis"]["range"] = [float(np.log10(least / 2)), float(np.log10(top * 2.5))]
    return figure


def quiet(dash: str) -> dict[str, Any]:
    return {
        "mode": "lines",
        "showlegend": False,
        "hoverinfo": "skip",
        "opacity": 0.6,
        "line": {"dash": dash, "width": 1},
    }


def limits(points: Points, unit: str) -> Figure:
    """What gives way as the load grows: prefix cache, TTFT, speed, and where agents spend their time."""
    colour, data = colours(points), []
    titles = [
        "prefix cache hit rate",
        "median TTFT, seconds",
        "tokens per second per user",
        "agents' time in the model",
    ]
    for name, mine in points.items():
        n = [p.value for p in mine]
        figures: list[list[float | None]] = [
            [p.hit for p in mine], [p.ttft_p50 for p in mine], [p.speed for p in mine],
            [p.time_share.get("model") for p in mine],
        ]  # fmt: skip
        for i, values in enumerate(figures):
            axis = "" if i == 0 else str(i + 1)
            data.append(line(n, _known(values), name, colour[name], axis, showlegend=i == 0))
    figure = panels(data, titles, unit, 520, columns=2)
    every = [p.value for mine in points.values() for p in mine]
    for i in range(4):
        axis = "" if i == 0 else str(i + 1)
        scaled(figure, f"xaxis{axis}", every, min(every) > 0)
    scaled(figure, "yaxis2", _known([p.ttft_p50 for mine in points.values() for p in mine]))
    for axis in ("yaxis", "yaxis4"):
        figure["layout"][axis].update({"range": [0, 1.02], "tickformat": ".0%"})
    return figure


def _known(values: Iterable[float | None]) -> Array:
    return np.array([np.nan if value is None else value for value in values])


def per_job(points: Points, axis: str, unit: str) -> Figure:
    """Tokens of a finished job against fan-out or chain length, and, for fan-out, the agents of a session beside those
    of a branching process: 1 + R where only the root starts sub-agents (dotted), 1/(1-R) without a limit (dashed)."""
    colour, data = colours(points), []
    titles = ["tokens per finished job"] + (["agents per session"] if axis == "fanout" else [])
    every = [p.value for mine in points.values() for p in mine]
    for name, mine in points.items():
        n = [p.value for p in mine]
        jobs = np.array([p.tokens.value * 3600 / p.jobs_per_hour if p.jobs_per_hour else np.nan for p in mine])
        data.append(line(n, jobs, name, colour[name]))
        if axis == "fanout":
            data.append(
                line(n, _known([p.agents_per_session for p in mine]), name, colour[name], "2", showlegend=False)
            )
    if axis == "fanout":
        r = np.linspace(0, max(every), 60)
        data.append(line(r, 1 + r, "1 + R", "--muted", "2") | quiet("dot"))
        below = r[r < 0.9]
        data.append(line(below, 1 / (1 - below), "1/(1-R)", "--muted", "2") | quiet("dash"))
    figure = panels(data, titles, unit, 320)
    scaled(
        figure,
        "yaxis",
        [p.tokens.value * 3600 / p.jobs_per_hour for m in points.values() for p in m if p.jobs_per_hour],
    )
    return figure


def chains(study: dict[str, Any]) -> Figure:
    """Input of a chain up to each turn: what is sent (solid), and what no cache serves (dashed)."""
    turns = {name: row["turns"] for name, row in study["series"].items() if row["turns"] is not None}
    turns = {name: row for name, row in turns.items() if len(row["turn"]) > 1}
    colour, data = colours(turns), []
    for name, row in turns.items():
        at = np.unique(np.geomspace(1, len(row["turn"]), 80).astype(int)) - 1
        data.append(line(row["turn"][at], row["resent"][at], name, colour[name], mode="lines"))
        dashed = {"mode": "lines", "line": {"color": colour[name], "width": 1.5, "dash": "dash"}, "showlegend": False}
        data.append(line(row["turn"][at], row["fresh"][at], f"{name}, fresh", colour[name]) | dashed)
    figure = panels(data, ["input tokens of a chain, up to each turn"], "turn", 340)
    scaled(figure, "xaxis", [t for row in turns.values() for t in row["turn"]])
    scaled(figure, "yaxis", [v for row in turns.values() for v in (*row["resent"], *row["fresh"])])
    return figure


PEOPLE = {"calls": "model calls", "tokens": "tokens", "cost": "cost", "seconds": "duration",
          "calls in flight": "calls in flight", "tokens per hour": "tokens per hour alive"}  # fmt: skip


def people(rows: dict[str, dict[str, Any]], base: str) -> Figure:
    """How many times what a person who chats asks for, per intent, with 95 % intervals."""
    names = [name for name in rows if name != base and "times" in rows[name]]
    colour, data = colours(names), []
    for name in names:
        found = [rows[name]["times"][key] for key in PEOPLE]
        value = np.array([x.value for x in found])
        error = bars(found)
        data.append(
            {"type": "bar", "orientation": "h", "y": list(PEOPLE.values()), "x": plain(value), "name": label(name),
             "marker": {"color": colour[name]}, "error_x": error}
        )  # fmt: skip
    figure = panels(data, [f"times a {base} intent"], "", 130 + 24 * len(PEOPLE) * max(1, len(names)))
    scaled(figure, "xaxis", [1.0, *(rows[n]["times"][k].value for n in names for k in PEOPLE)])
    figure["layout"]["yaxis"]["autorange"] = "reversed"
    figure["layout"]["barmode"] = "group"
    return figure


def a_day(name: str, mix: dict[str, Any]) -> Figure:
    """A day of 1,000 people who chat and as many agents as ask for about the same."""
    row = mix["day"]
    titles = [f"tokens per second: 1,000 people, {mix['agents_in_day']:,.0f} × {label(name)}"]
    data = [
        line(row["hours"], row["agents"], "agents", "#2b6fd6", mode="lines", stackgroup="1", fillcolor="#2b6fd699"),
        line(row["hours"], row["people"], "people", "#7fb23f", mode="lines", stackgroup="1", fillcolor="#7fb23f99"),
    ]
    figure = panels(data, titles, "hour of the day", 280)
    figure["layout"]["xaxis"].update({"tickvals": list(range(0, 25, 3)), "range": [0, 24]})
    return figure


def task_cost(costs: Mapping[str, dict[str, Any]]) -> Figure:
    """USD of a finished task at list prices, by archetype and model, with 95 % intervals."""
    models = list(next(iter(costs.values()), {}))
    shades, data = ("#2b6fd6", "#9a62d8", "#1fa187", "#ee8433", "#a67c52", "#7c8798"), []
    seen: list[float] = []
    for i, model in enumerate(models):
        found = [costs[name][model]["task"] for name in costs]
        value = np.array([np.nan if x is None else x.value for x in found])
        seen += value.tolist()
        error = bars(found)
        data.append(
            {"type": "bar", "orientation": "h", "x": plain(value), "y": [label(n) for n in costs], "name": label(model),
             "marker": {"color": shades[i % len(shades)]}, "error_x": error}
        )  # fmt: skip
    figure = panels(data, ["USD per finished task"], "", 120 + 20 * len(models) * len(costs))
    scaled(figure, "xaxis", seen)
    figure["layout"]["yaxis"]["autorange"] = "reversed"
    figure["layout"]["barmode"] = "group"
    return figure
