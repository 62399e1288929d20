"""The report's charts: each function takes columns and returns a Plotly figure as plain data (`data`, `layout`).

Nothing here draws. Every chart has at most a few thousand points, however long the run. A colour that begins with "--"
is a variable of the page's theme. Recorded strings go through `label`, since Plotly reads markup in text.
"""

from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any, TypeAlias

import numpy as np

from collectors import metrics
from collectors.load import Array, Columns
from collectors.metrics import ACCOUNTS, kinds, roots

Figure: TypeAlias = dict[str, Any]

ACCOUNT = {  # name, colour
    "input_fresh": ("input, fresh", "#2b6fd6"),
    "input_cached": ("input, cached", "#9dc3f2"),
    "output_reasoning": ("output, reasoning", "#9a62d8"),
    "output_visible": ("output, visible", "#ee8433"),
    "output_arguments": ("output, tool calls", "#e3b23c"),
}
ACTIVITY = {
    "first": ("waiting for the first token", "#2b6fd6"),
    "rest": ("receiving tokens", "#ee8433"),
    "tool": ("tools", "#1fa187"),
    "join": ("waiting for sub-agents", "#9a62d8"),
    "wait": ("people and back-off", "#a9b4c2"),
    "other": ("other", "#d5dbe3"),
}
ARCHETYPE = {
    "coder": "#2b6fd6",
    "researcher": "#9a62d8",
    "support": "#1fa187",
    "orchestrator": "#d84f6b",
    "browser": "#ee8433",
    "batch": "#7c8798",
    "rag": "#35a5c4",
    "chat": "#7fb23f",
    "fixed": "#a67c52",
}
OTHERS = ("#c05fb0", "#b8902f", "#5b8c8a", "#8d6cc9", "#c96f53", "#5f9e4f")
BAD = ("#d63f4c", "#ee8433", "#e3b23c", "#9a62d8", "#7c8798", "#a67c52")


def label(text: str, limit: int = 60) -> str:
    """A recorded string as Plotly may show it."""
    return escape(text if len(text) <= limit else text[: limit - 1] + "…")


def colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each archetype: its own, or the next free one."""
    spare = (OTHERS[i % len(OTHERS)] for i in range(1_000_000))
    return {name: ARCHETYPE.get(name) or next(spare) for name in names}


def plain(values: Array, digits: int = 4) -> list[float | None]:
    """Numbers short enough for a page: `digits` significant ones, None for NaN."""
    return [None if np.isnan(x) else float(f"{x:.{digits}g}") for x in np.asarray(values, float).tolist()]


def bins(seconds: float) -> Array:
    """Edges of about 150 even bins of a round width."""
    rough = max(seconds, 1e-3) / 150
    scale = 10 ** np.floor(np.log10(rough))
    width = scale * next(m for m in (1, 2, 5, 10) if m * scale >= rough)
    edges: Array = np.arange(0, int(np.ceil(seconds / width - 1e-9)) + 1) * width
    return edges


def seconds_axis(values: Array) -> dict[str, Any]:
    """A logarithmic axis of seconds: ticks at 1, 2 and 5 where there is room for them, at powers of ten otherwise."""
    x = values[values > 0]
    wide = bool(x.size) and x.max() > 300 * x.min()
    at = [m * 10.0**e for e in range(-5, 5) for m in ((1,) if wide else (1, 2, 5))]
    text = [f"{t:g} s" if t >= 1 else f"{t * 1e3:g} ms" if t >= 1e-3 else f"{t * 1e6:g} µs" for t in at]
    return {"type": "log", "tickvals": at, "ticktext": text}


def demand(calls: Columns, seconds: float) -> Figure:
    """Tokens per second by account over time: input above, output below, each on its own scale."""
    edges = bins(seconds)
    rates = metrics.token_rate(calls, edges)
    data = [
        _area(edges, rates[name], *ACCOUNT[name], axis="" if name.startswith("input") else "2") for name in ACCOUNTS
    ]
    figure = _panels(data, 2, 1, ["input tokens per second", "output tokens per second"], x="seconds", height=410)
    figure["layout"].update(BARE)
    return figure


def population(calls: Columns, sessions: Columns, seconds: float, asked: float | None) -> Figure:
    """Agents alive (above) and model calls in flight (below) over time, by archetype, as means over each bin."""
    edges, names = bins(seconds), kinds(sessions.archetype)
    colour, data = colours(names), []
    for name in names:
        mine, theirs = sessions.where(sessions.archetype == name), calls.where(calls.archetype == name)
        for axis, rows in (("", metrics.alive(mine)), ("2", metrics.in_flight(theirs))):
            mean = metrics.spread(np.diff(np.append(rows.times, rows.times[-1:])) * rows.level, *_steps(rows), edges)
            trace = _area(edges, mean / np.diff(edges), label(name), colour[name], axis)
            data.append({**trace, "legendgroup": label(name), "showlegend": axis == ""})
    figure = _panels(data, 2, 1, ["agents alive, sub-agents included", "model calls in flight"], "seconds", 430)
    if asked:
        line = {"type": "line", "xref": "x domain", "yref": "y", "x0": 0, "x1": 1, "y0": asked, "y1": asked}
        figure["layout"]["shapes"] = [{**line, "line": {"color": "--ink", "dash": "dot", "width": 1}}]
        text = {"text": f"{asked:,.0f} asked for", "font": {"size": 11}, "showarrow": False, "xanchor": "right"}
        spot = {"xref": "x domain", "yref": "y", "x": 1, "y": asked, "yanchor": "bottom"}
        figure["layout"]["annotations"].append({**text, **spot})
    return figure


def latencies(ok: Columns) -> Figure:
    """How large a share of calls is faster than x: TTFT, time per token, E2E and response time, by archetype."""
    pace: Callable[[Columns], Array] = metrics.itl if len(ok.itl.values) else metrics.tpot
    measures = (metrics.ttft, pace, metrics.e2e, metrics.response_time)
    titles = ["TTFT", "ITL (gaps between output pieces)" if pace is metrics.itl else "TPOT", "E2E", "response time"]
    names = kinds(ok.archetype)
    colour, data = colours(names), []
    for panel, measure in enumerate(measures, 1):
        for name in names if len(names) > 1 else []:
            line = _ecdf(measure(ok.where(ok.archetype == name)), label(name), colour[name], panel, 1.5)
            data.append({**line, "legendgroup": label(name), "showlegend": panel == 1})
        line = _ecdf(measure(ok), "all calls", "--ink", panel, 2.5)
        data.append({**line, "legendgroup": "all calls", "showlegend": panel == 1})
    figure = _panels(data, 2, 2, titles, x=None, height=520)
    for panel, measure in enumerate(measures, 1):
        figure["layout"][f"xaxis{_axis(panel)}"].update(seconds_axis(measure(ok)))
        figure["layout"][f"yaxis{_axis(panel)}"].update(SHARES)
    return figure


BARE = {"showlegend": False, "margin": {"l": 56, "r": 24, "t": 34, "b": 36}}
SHARES = {"range": [0, 1.02], "tickformat": ".0%", "tickvals": [0, 0.5, 0.9, 0.99]}


def send_lag(calls: Columns, limit: float) -> Figure:
    """The share of calls that were sent less than x late, and the limit that the verdict holds its p99 to."""
    lag = np.maximum(metrics.send_lag(calls), 1e-5)
    line = _ecdf(lag, "send lag", "#2b6fd6", 1, 2.5)
    figure = _panels([line], 1, 1, ["send lag: share of calls sent less than x late"], x=None, height=210)
    figure["layout"]["xaxis"].update(seconds_axis(np.append(lag, limit)))
    figure["layout"]["yaxis"].update(SHARES)
    mark = {"type": "line", "xref": "x", "yref": "y domain", "x0": limit, "x1": limit, "y0": 0, "y1": 1}
    figure["layout"]["shapes"] = [{**mark, "line": {"color": BAD[0], "dash": "dot", "width": 1.5}}]
    figure["layout"].update(BARE)
    return figure


def growth(ok: Columns) -> Figure:
    """Mean input of a call by its depth in the chain, for the six archetypes that cause most, split by the cache."""
    names = sorted(kinds(ok.archetype), key=lambda n: -int(ok.input_tokens[ok.archetype == n].sum()))[:6]
    data = []
    for panel, name in enumerate(names, 1):
        mine = ok.where(ok.archetype == name)
        parts, steps = metrics.accounts(mine), mine.step
        edges = depth_edges(steps)
        where = np.searchsorted(edges, steps, side="right") - 1
        count = np.bincount(where, minlength=len(edges))
        keep = count >= min(3, count.max(initial=0))
        for account in ("input_cached", "input_fresh"):
            mean = np.bincount(where, parts[account], len(edges))[keep] / count[keep]
            trace = _stack(edges[keep], mean, *ACCOUNT[account], axis=_axis(panel), group=str(panel))
            data.append({**trace, "legendgroup": account, "showlegend": panel == 1, "mode": "lines+markers"})
    columns = min(3, len(names)) or 1
    rows = -(-len(names) // columns) or 1
    figure = _panels(data, rows, columns, [label(n) for n in names], x="step", height=90 + 210 * rows)
    for panel, name in enumerate(names, 1):
        figure["layout"][f"xaxis{_axis(panel)}"]["dtick"] = whole_ticks(ok.step[ok.archetype == name], 6)
    return figure


def depth(ok: Columns) -> Figure:
    """Median TTFT by depth in the chain, by archetype, where at least three calls got so deep."""
    names = kinds(ok.archetype)
    colour, data, wait = colours(names), [], metrics.ttft(ok)
    for name in names:
        mine = (ok.archetype == name) & ~np.isnan(wait)
        edges = depth_edges(ok.step[mine])
        where = np.searchsorted(edges, ok.step[mine], side="right") - 1
        groups = [wait[mine][where == i] for i in range(len(edges))]
        at = [i for i, group in enumerate(groups) if len(group) >= 3]
        median = np.array([np.median(groups[i]) for i in at])
        data.append(_line(edges[at], median, label(name), colour[name]))
    figure = _panels(data, 1, 1, ["median TTFT, seconds"], x="step", height=260)
    figure["layout"]["xaxis"]["dtick"] = whole_ticks(ok.step, 12)
    figure["layout"]["yaxis"]["rangemode"] = "tozero"
    return figure


def depth_edges(steps: Array) -> Array:
    """First steps of at most about 60 bins: one step each at first, wider ones in long chains."""
    most = int(steps.max(initial=0))
    return np.arange(0, most + 1, max(1, -(-most // 60)))


def whole_ticks(steps: Array, most: int) -> int:
    """The distance between at most `most` ticks that lie on whole steps."""
    return max(1, -(-int(steps.max(initial=0)) // most))


def time_shares(calls: Columns, sessions: Columns) -> Figure:
    """Where the time of sessions goes, as shares of it, by archetype."""
    root, of_call = roots(sessions), metrics.session_archetype(calls, sessions)
    names = kinds(root.archetype)[::-1]
    rows = []
    for name in names:
        mine, theirs = root.where(root.archetype == name), calls.where((of_call == name) & (calls.agent == ""))
        model, whole = mine.model_seconds.sum(), (mine.end - mine.start).sum()
        first = np.nansum(metrics.ttft(theirs)) / max(metrics.e2e(theirs).sum(), 1e-9)
        tool, wait, join = (getattr(mine, f"{part}_seconds").sum() for part in ("tool", "wait", "join"))
        other = max(0.0, whole - model - tool - wait - join)
        rows.append(np.array([model * first, model * (1 - first), tool, join, wait, other]))
    shares = np.array([row / max(row.sum(), 1e-9) for row in rows]).reshape(len(names), len(ACTIVITY))
    data = [_bar([label(n) for n in names], shares[:, i], *ACTIVITY[part]) for i, part in enumerate(ACTIVITY) if names]
    figure = _panels(data, 1, 1, [""], x=None, height=90 + 38 * len(names))
    figure["layout"].update({"barmode": "stack", "margin": {"l": 56, "r": 24, "t": 36, "b": 36}})
    figure["layout"]["xaxis"].update({"tickformat": ".0%", "range": [0, 1]})
    return figure


def amplification(table: dict[str, dict[str, Any]], base: str) -> Figure:
    """Tokens for one thing a person asked for, by archetype, against the baseline; the scale is logarithmic."""
    names = sorted((n for n in table if table[n]["tokens_per_intent"]), key=lambda n: table[n]["tokens_per_intent"])
    times = {n: table[n][f"tokens_per_intent_over_{base}"] for n in names}
    said = ["baseline" if n == base else f"× {times[n]:.3g}" if times[n] else "" for n in names]
    colour = colours(names)
    trace = {
        "type": "bar", "orientation": "h", "y": [label(n) for n in names],
        "x": [table[n]["tokens_per_intent"] for n in names], "marker": {"color": [colour[n] for n in names]},
        "text": [f"{text} (sessions: {table[n]['ended']:,})" for n, text in zip(names, said, strict=True)],
        "textposition": "auto", "hovertemplate": "%{y}: %{x:,.3s} tokens<extra></extra>",
    }  # fmt: skip
    figure = _panels([trace], 1, 1, ["tokens per human request (logarithmic)"], x=None, height=80 + 36 * len(names))
    figure["layout"]["xaxis"].update({"type": "log", "tickformat": "~s", "dtick": "D2"})
    figure["layout"].update(BARE)
    return figure


def cache(table: dict[str, dict[str, Any]]) -> Figure:
    """The prefix cache by archetype: what the server took from it, and what each chain had sent before."""
    names = sorted(table, reverse=True)
    data = [
        {**_bar([label(n) for n in names], np.array([table[n][key] or 0 for n in names]), title, colour), "base": 0}
        for key, title, colour in (
            ("resent_share", "sent before in the same chain", "#a9b4c2"),
            ("prefix_hit_rate", "served from the cache", "#2b6fd6"),
        )
    ]
    figure = _panels(data, 1, 1, ["share of input tokens"], x=None, height=110 + 48 * len(names))
    figure["layout"]["barmode"] = "group"
    figure["layout"]["xaxis"].update({"tickformat": ".0%", "range": [0, 1]})
    return figure


def failures(calls: Columns, seconds: float) -> Figure:
    """Calls that were not answered, by when they failed and by status."""
    edges, bad = bins(seconds), calls.where(calls.status != "ok")
    data = []
    for i, status in enumerate(metrics.errors(calls)):
        count, _ = np.histogram(bad.end[bad.status == status], edges)
        colour = BAD[i % len(BAD)]
        data.append(
            {
                "type": "bar",
                "x": plain(edges[:-1]),
                "y": count.tolist(),
                "name": label(status),
                "marker": {"color": colour},
            }
        )
    figure = _panels(data, 1, 1, ["calls not answered, by when they ended"], x="seconds", height=240)
    figure["layout"].update({"barmode": "stack", "bargap": 0})
    return figure


def bursts(burstiness: dict[str, Any]) -> Figure:
    """Index of dispersion by window: how much more the counts vary than those of a Poisson process, which has 1."""
    data = []
    for (name, bursty), colour in zip(burstiness.items(), ("#2b6fd6", "#1fa187"), strict=True):
        seen = [row for row in bursty["dispersion"] if row["index"]]
        data.append(
            {
                **_line(np.array([r["window"] for r in seen]), np.array([r["index"] for r in seen]), name, colour),
                "mode": "lines+markers",
            }
        )
    figure = _panels(data, 1, 1, ["index of dispersion of arrivals"], x="window, seconds", height=260)
    windows = sorted({row["window"] for bursty in burstiness.values() for row in bursty["dispersion"]})
    figure["layout"]["xaxis"].update({"type": "log", "tickvals": windows, "ticktext": [f"{w:g}" for w in windows]})
    figure["layout"]["yaxis"].update({"type": "log", "dtick": "D2"})
    line = {"type": "line", "xref": "x domain", "yref": "y", "x0": 0, "x1": 1, "y0": 1, "y1": 1}
    figure["layout"]["shapes"] = [{**line, "line": {"color": "--muted", "dash": "dot", "width": 1}}]
    return figure


def _steps(rows: metrics.Level) -> tuple[Array, Array]:
    return rows.times, np.append(rows.times[1:], rows.times[-1:])


def _area(edges: Array, values: Array, name: str, colour: str, axis: str) -> dict[str, Any]:
    middle = (edges[:-1] + edges[1:]) / 2
    return _stack(middle, values, name, colour, axis, group=axis or "1")


def _stack(x: Array, y: Array, name: str, colour: str, axis: str, group: str) -> dict[str, Any]:
    line = _line(x, y, name, colour, axis, width=0.8)
    return {**line, "stackgroup": group, "fillcolor": colour, "marker": {"size": 3}}


def _line(x: Array, y: Array, name: str, colour: str, axis: str = "", width: float = 2) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "lines", "x": plain(x), "y": plain(y), "name": name, "xaxis": f"x{axis}",
        "yaxis": f"y{axis}", "line": {"color": colour, "width": width},
    }  # fmt: skip


def _bar(names: Sequence[str], values: Array, name: str, colour: str) -> dict[str, Any]:
    return {
        "type": "bar", "orientation": "h", "y": list(names), "x": plain(values), "name": name,
        "marker": {"color": colour}, "hovertemplate": "%{y}: %{x:.1%} " + name + "<extra></extra>",
    }  # fmt: skip


def _ecdf(values: Array, name: str, colour: str, panel: int, width: float) -> dict[str, Any]:
    """The empirical distribution, at no more than 250 points, denser towards the tail."""
    x = np.sort(values[~np.isnan(values)])
    level = np.unique(np.concatenate([np.linspace(0, 1, 150), 1 - np.geomspace(1e-4, 0.1, 100)]))
    points = np.quantile(x, level) if x.size else np.empty(0)
    line = _line(points, level[: points.size], name, colour, _axis(panel), width)
    return {**line, "hovertemplate": "%{y:.1%} under %{x:.3g} s<extra>" + name + "</extra>"}


def _axis(panel: int) -> str:
    return "" if panel == 1 else str(panel)


def _panels(
    data: list[dict[str, Any]], rows: int, columns: int, titles: Sequence[str], x: str | None, height: int
) -> Figure:
    """A grid of panels, each with its title above it and the name of its x axis below the last row."""
    layout: dict[str, Any] = {
        "height": height,
        "grid": {"rows": rows, "columns": columns, "pattern": "independent", "ygap": 0.32, "xgap": 0.12},
        "annotations": [],
        "showlegend": True,
    }
    for panel, title in enumerate(titles, 1):
        axis, last = _axis(panel), panel > len(titles) - columns
        layout[f"xaxis{axis}"] = {"title": {"text": x, "standoff": 6} if x and last else None}
        layout[f"yaxis{axis}"] = {}
        layout["annotations"].append(
            {"text": title, "xref": f"x{axis} domain", "yref": f"y{axis} domain", "x": 0, "y": 1, "yshift": 18,
             "xanchor": "left", "yanchor": "middle", "showarrow": False, "font": {"size": 12, "color": "--muted"}}
        )  # fmt: skip
    return {"data": data, "layout": layout}
