"""The report's waterfall: a few sessions drawn call by call, sub-agents below the session that started them."""

from typing import Any, NamedTuple

import numpy as np

from collectors.charts import ACTIVITY, Figure, label
from collectors.load import Columns
from collectors.metrics import kinds, roots

LANES = 36
"""Rows drawn at most: what fits on a screen."""

CHILDREN = 4
"""Sub-agents drawn of one session at most."""

BARS = 3_000
"""Bars drawn at most of each activity."""


class Bar(NamedTuple):
    """One stretch of one lane, in seconds since its session began."""

    lane: int
    start: float
    end: float
    text: str


def waterfall(calls: Columns, tools: Columns, sessions: Columns) -> Figure:
    """Each row an agent, each bar what it waited for; time counts from the start of its session."""
    lanes, bars = list[str](), {name: list[Bar]() for name in ACTIVITY}
    for session in choose(sessions):
        begin = float(sessions.start[(sessions.session == session) & (sessions.agent == "")][0])
        mine = sessions.where(sessions.session == session)
        order = [i for _, i in sorted((_path(agent), i) for i, agent in enumerate(mine.agent.tolist()))]
        order = order[: CHILDREN + 1]
        if len(lanes) + len(order) > LANES:
            continue
        their_calls, their_tools = calls.where(calls.session == session), tools.where(tools.session == session)
        for i in order:
            agent = mine.agent[i]
            depth = agent.count(".") + 1 if agent else 0
            name = f"{mine.archetype[i]} · {session}" if not depth else f"{mine.archetype[i]} {agent}"
            lanes.append(
                label(name, 28) + ("" if depth or mine.outcome[i] == "done" else label(f"  ({mine.outcome[i]})"))
            )
            own = their_calls.where(their_calls.agent == agent), their_tools.where(their_tools.agent == agent)
            span = (float(mine.start[i]) - begin, float(mine.end[i]) - begin)
            _draw(bars, len(lanes) - 1, begin, span, *own, bool(mine.children[i]))
    return _figure(lanes, bars)


def choose(sessions: Columns) -> list[int]:
    """Of every archetype a typical session (median steps) and a long one; those that were finished first."""
    root, chosen = roots(sessions), list[int]()
    for name in kinds(root.archetype):
        mine = root.where(root.archetype == name)
        done = mine.where(mine.outcome == "done")
        pool = done if len(done) else mine
        order = pool.session[np.argsort(pool.steps + pool.children, kind="stable")]
        chosen += dict.fromkeys([int(order[len(order) // 2]), int(order[int(len(order) * 0.9)])])
    return chosen


def _path(agent: str) -> list[int]:
    return [int(part) for part in agent.split(".")] if agent else []


def _draw(
    bars: dict[str, list[Bar]],
    lane: int,
    begin: float,
    span: tuple[float, float],
    calls: Columns,
    tools: Columns,
    parent: bool,
) -> None:
    """The bars of one agent; what no call and no tool covers is waiting, in a parent for its sub-agents."""
    busy = []
    rows = [getattr(calls, name).tolist() for name in ("step", "sent", "first", "end", "input_tokens")]
    for i, (step, sent, first, end, size) in enumerate(zip(*rows, strict=True)):
        status, output = label(calls.status[i]), int(calls.output_tokens[i])
        text = f"step {step}: {size:,} in, {output:,} out ({status})"
        turn = end if np.isnan(first) else first
        bars["first"].append(Bar(lane, sent - begin, turn - begin, text))
        bars["rest"].append(Bar(lane, turn - begin, end - begin, text))
        busy.append((sent - begin, end - begin))
    for name, start, end in zip(tools.name.tolist(), tools.start.tolist(), tools.end.tolist(), strict=True):
        bars["tool"].append(Bar(lane, start - begin, end - begin, label(name)))
        busy.append((start - begin, end - begin))
    for start, end in gaps(busy, span):
        bars["join" if parent else "wait"].append(Bar(lane, start, end, "sub-agents" if parent else "waiting"))


def gaps(busy: list[tuple[float, float]], span: tuple[float, float], least: float = 0.02) -> list[tuple[float, float]]:
    """The stretches of `span` of at least `least` seconds that no interval of `busy` covers."""
    found, reached = [], span[0]
    for start, end in [*sorted(busy), (span[1], span[1])]:
        if start - reached >= least:
            found.append((reached, start))
        reached = max(reached, end)
    return found


def _figure(lanes: list[str], bars: dict[str, list[Bar]]) -> Figure:
    data = []
    for activity, (name, colour) in ACTIVITY.items():
        drawn = [b for b in bars[activity] if b.end > b.start][:BARS]
        trace: dict[str, Any] = {
            "type": "bar", "orientation": "h", "name": name, "marker": {"color": colour}, "width": 0.72,
            "y": [b.lane for b in drawn], "base": [round(b.start, 3) for b in drawn],
            "x": [round(b.end - b.start, 4) for b in drawn], "text": [b.text for b in drawn], "textposition": "none",
            "hovertemplate": "%{text}<br>" + name + ", %{x:.3g} s<extra></extra>",
        }  # fmt: skip
        if drawn:
            data.append(trace)
    axis = {
        "tickvals": list(range(len(lanes))),
        "ticktext": lanes,
        "range": [len(lanes) - 0.4, -0.6],
        "showgrid": False,
    }
    end = max((b.end for drawn in bars.values() for b in drawn), default=1.0)
    layout = {
        "height": 100 + 22 * len(lanes), "barmode": "overlay", "yaxis": axis, "hovermode": "closest",
        "margin": {"l": 56, "r": 24, "t": 36, "b": 40},
        "xaxis": {"title": {"text": "seconds since the session began", "standoff": 6}, "range": [0, end * 1.01]},
    }  # fmt: skip
    return {"data": data, "layout": layout}
