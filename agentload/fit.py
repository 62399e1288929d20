"""An archetype from a trace: what its sessions were like, as distributions that a spec can name.

Sessions are sorted into classes by the input of their first call and, within these, by how many calls they make; each
class becomes a variant with distributions of its own. That is how lengths that go together in the data stay together:
within a class they are drawn independently. What does not differ much between classes (tools, pauses, sub-agents) is
fitted to all of them.

The size at which sessions compact is estimated as a lifetime is (Kaplan & Meier 1958, with delayed entry): most
sessions end before they reach it. A call that loses more than 5 % of its predecessor's prompt without becoming shorter
counts as a rewrite, one that becomes more than 5 % shorter as a compaction.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct, structs
from numpy.typing import NDArray

from agentload.errors import BadInput
from agentload.families import Fitted, fit, measured
from agentload.traces.graph import Agent, Call, Gap, Session, Start, Tools
from agents.draws import Draw, Mixture, Quantiles
from agents.kind import Archetype, SimulatedTool, Variant

Array = NDArray[np.float64]

OPENING = 4
"""First steps of a session that are fitted apart: files are read in them."""
CLASS = 40
"""Sessions in the smallest class."""
MOST_CLASSES = 5
"""By number of calls, within one class of first inputs."""
LOST = 0.05
"""Share of a prompt whose loss counts."""
TOOLS = 8
"""Tools that are told apart, the most frequent; the others are one."""
UNEXPLAINED = "unexplained"
"""The tool that stands for gaps of which the trace does not say what they were."""
NEVER = 10_000_000.0
"""Tokens at which a session compacts that never does."""


class Shape(Struct):
    """One session, as far as it is fitted: its main agent's calls."""

    inputs: list[int] = []
    outputs: list[int] = []
    kept: list[int] = []  # of each call's prompt, what it shares with the one before it
    known: bool = False  # whether the trace says what is shared
    head: tuple[tuple[int, int], ...] = ()  # the first pieces of the first prompt, if other sessions may share them


class Seen(Struct):
    """What all sessions of a kind of agent had, together."""

    shapes: list[Shape] = []
    pauses: list[float] = []
    per_step: list[int] = []  # tool calls of each step that had any
    tools: dict[str, list[tuple[float, int, bool]]] = {}
    spawns: list[int] = []  # how often each session started sub-agents
    children: list[int] = []  # how many each time
    joins: list[str] = []  # and for whom it waited
    quorums: list[float] = []  # the share of them, where it was some
    child: "Seen | None" = None

    def steps(self) -> int:
        """Later calls of all sessions."""
        return sum(len(shape.inputs) - 1 for shape in self.shapes)

    def depth(self) -> int:
        """Levels of sub-agents."""
        return 1 + self.child.depth() if self.child and self.child.shapes else 0


class Fit(Struct):
    """The archetypes of a trace, how well each distribution fits, and what to be careful about."""

    archetypes: dict[str, Archetype]
    fitted: dict[str, Fitted]  # by archetype, variant and field
    warnings: list[str]

    def toml(self) -> str:
        """A piece of a spec that defines the archetypes."""
        import tomli_w

        plain = {name: changed_fields(kind) for name, kind in self.archetypes.items()}
        return tomli_w.dumps({"archetypes": {name: {"base": "fixed", **fields} for name, fields in plain.items()}})


def fit_archetype(sessions: Iterable[Session], name: str) -> Fit:
    """The archetype `name` that makes sessions like these; its sub-agents' archetype is `name`-child. BadInput where
    there is nothing to fit."""
    seen = Seen()
    for session in sessions:
        look(session.root, seen, session.shared)
    if not seen.shapes:
        raise BadInput("the trace holds no call, so there is nothing to fit")
    made = Fit({}, {}, [])
    build(seen, name, made)
    return made


def look(agent: Agent, seen: Seen, shared: bool) -> None:
    """Take one agent and those below it."""
    shape = Shape(known=False)
    spawns = before = 0
    tools_of_step = 0
    for step in agent.steps:
        match step:
            case Call():
                if shape.inputs:
                    seen.per_step.append(tools_of_step)
                else:
                    shape.head = tuple((run.key, run.tokens) for run in step.new[:1]) if shared else ()
                shape.inputs.append(step.input)
                shape.outputs.append(step.output)
                shape.kept.append(min(step.keep, before))
                shape.known = shape.known or bool(step.keep)
                before, tools_of_step = step.input, 0
            case Gap(seconds, person):
                if person and shape.inputs:
                    seen.pauses.append(seconds)
                elif shape.inputs and not tools_of_step:
                    tools_of_step += 1
                    seen.tools.setdefault(UNEXPLAINED, []).append((seconds, 0, True))
            case Tools(calls):
                tools_of_step += len(calls)
                for tool in calls:
                    seen.tools.setdefault(tool.name, []).append((tool.seconds, tool.tokens, tool.ok))
            case Start(agents, wait):
                spawns += 1
                seen.children.append(len(agents))
                seen.joins.append(join_of(len(agents), wait))
                if wait is not None and 0 < wait < len(agents):
                    seen.quorums.append(wait / len(agents))
                seen.child = seen.child or Seen()
                for child in agents:
                    look(child, seen.child, shared)
    if shape.inputs:
        seen.shapes.append(shape)
        seen.spawns.append(spawns)


def join_of(agents: int, wait: int | None) -> str:
    """For whom a parent waits, in an archetype's words."""
    if wait is None or wait >= agents:
        return "all"
    return "background" if not wait else "first" if wait == 1 else "quorum"


def build(seen: Seen, name: str, made: Fit) -> None:
    """Fit one kind of agent, and then the kind of its sub-agents."""
    head = preamble(seen.shapes)
    parts = classes(seen.shapes)
    variants = [variant(part, head, f"{name} · class {i}" if len(parts) > 1 else name, made, len(parts) > 1)
                for i, part in enumerate(parts, 1)]  # fmt: skip
    common = everyone(seen, name, made)
    first = {field: value for field, value in structs.asdict(variants[0]).items() if value is not None}
    first.pop("weight")
    made.archetypes[name] = Archetype(
        about=f"Fitted to {len(seen.shapes):,} recorded agents with {seen.steps() + len(seen.shapes):,} calls.",
        system_tokens=head,
        opening_steps=OPENING,
        at_limit="compact",
        child=f"{name}-child" if seen.child and seen.child.shapes else "",
        variants=variants if len(variants) > 1 else [],
        **(first | common),
    )
    if len(seen.shapes) < CLASS:
        made.warnings.append(f"{name}: only {len(seen.shapes)} sessions; the fit describes them and little else")
    made.warnings += [
        f"{place}: {found.family} fits poorly (Kolmogorov-Smirnov distance {found.distance:.2f})"
        for place, found in made.fitted.items()
        if found.poor and place.startswith(name)
    ]
    if seen.child and seen.child.shapes:
        build(seen.child, f"{name}-child", made)


def preamble(shapes: list[Shape]) -> int:
    """Tokens with which most first prompts begin alike; 0 where none do, or where that is not known."""
    heads = Counter(shape.head for shape in shapes if shape.head)
    if not heads or len(shapes) < 2:
        return 0
    head, count = heads.most_common(1)[0]
    return min(head[0][1], min(shape.inputs[0] for shape in shapes)) if count > len(shapes) / 2 else 0


def classes(shapes: list[Shape]) -> list[list[Shape]]:
    """Sessions sorted by first input, where that spreads widely, and then by number of calls."""
    first = np.log([shape.inputs[0] for shape in shapes])
    wide = len(shapes) >= 3 * CLASS and first.std() > 0.6
    cuts = clusters(first, 3) if wide else []
    made: list[list[Shape]] = []
    for group in range(len(cuts) + 1):
        members = [shape for shape, x in zip(shapes, first, strict=True) if np.searchsorted(cuts, x) == group]
        count = min(MOST_CLASSES, max(1, len(members) // CLASS))
        members.sort(key=lambda shape: len(shape.inputs))
        made += [[members[i] for i in part] for part in np.array_split(np.arange(len(members)), count) if part.size]
    return made


def clusters(values: Array, count: int) -> list[float]:
    """Where to cut numbers into clusters: k-means in one dimension (Lloyd 1982)."""
    centers = np.quantile(values, (np.arange(count) + 0.5) / count)
    for _ in range(100):
        nearest = np.abs(values[:, None] - centers).argmin(axis=1)
        moved = np.array([values[nearest == k].mean() if (nearest == k).any() else centers[k] for k in range(count)])
        if np.allclose(moved, centers):
            break
        centers = moved
    return [float(cut) for cut in (centers[1:] + centers[:-1]) / 2]


class Steps(Struct):
    """What a class's later calls did to the context."""

    opening: list[float] = []
    growth: list[float] = []
    kept_in_rewrites: list[float] = []  # shares
    left_by_compactions: list[float] = []
    spells: list[tuple[float, float, bool]] = []  # of context size: from, to, and whether it ended in a compaction


def steps_of(shapes: list[Shape]) -> Steps:
    steps = Steps()
    for shape in shapes:
        begun = float(shape.inputs[0])
        for i in range(1, len(shape.inputs)):
            before, now, kept = shape.inputs[i - 1], shape.inputs[i], shape.kept[i]
            if now < (1 - LOST) * before:
                steps.spells.append((begun, float(before), True))
                steps.left_by_compactions.append(now / before)
                begun = float(now)
            elif shape.known and before - kept > max(128, LOST * before):
                steps.kept_in_rewrites.append(kept / before)
            else:
                (steps.opening if i <= OPENING else steps.growth).append(float(max(1, now - before)))
        steps.spells.append((begun, float(shape.inputs[-1]), False))
    return steps


def variant(shapes: list[Shape], head: int, place: str, made: Fit, cut: bool) -> Variant:
    """The lengths of one class. Where it is one of several, what it was cut by is no distribution of any family."""
    steps = steps_of(shapes)
    outputs = [float(max(1, output)) for shape in shapes for output in shape.outputs]
    fields: dict[str, Draw] = {
        "task_tokens": note(
            made, place, "task_tokens", [float(max(8, shape.inputs[0] - head)) for shape in shapes], cut
        ),
        "steps": note(made, place, "steps", [float(len(shape.inputs)) for shape in shapes], cut),
        "output_tokens": note(made, place, "output_tokens", outputs),
    }
    growth = steps.growth or steps.opening
    if growth:
        fields["growth_tokens"] = note(made, place, "growth_tokens", growth)
        fields["opening_tokens"] = note(made, place, "opening_tokens", steps.opening or growth)
    limit = compacts_at(steps.spells)
    if limit is not None:
        fields["compact_at"] = limit
    return Variant(weight=float(len(shapes)), **fields)


def note(made: Fit, place: str, field: str, values: list[float], as_measured: bool = False) -> Draw:
    """Fit numbers, and remember how well it went."""
    found = made.fitted[f"{place} · {field}"] = measured(np.array(values)) if as_measured else fit(np.array(values))
    return found.draw


def everyone(seen: Seen, name: str, made: Fit) -> dict[str, Any]:
    """What is fitted to all sessions alike."""
    steps = steps_of(seen.shapes)
    later = max(1, seen.steps())
    fields: dict[str, Any] = {
        "rewrite": round(len(steps.kept_in_rewrites) / later, 5),
        "pause": round(min(1.0, len(seen.pauses) / later), 5),
    }
    if steps.kept_in_rewrites:
        fields["rewrite_keep"] = note(made, name, "rewrite_keep", steps.kept_in_rewrites)
    if steps.left_by_compactions:
        fields["compact_to"] = note(made, name, "compact_to", steps.left_by_compactions)
    if seen.pauses:
        fields["think_seconds"] = note(made, name, "think_seconds", seen.pauses)
    if seen.tools:
        fields["tool_calls"] = note(made, name, "tool_calls", [float(count) for count in seen.per_step] or [1.0])
        fields["tools"] = list(tools(seen.tools, name, made))
    if seen.child and seen.child.shapes:
        fields["children"] = note(made, name, "children", [float(count) for count in seen.children])
        fields["spawns"] = note(made, name, "spawns", [float(count) for count in seen.spawns])
        fields["join"] = Counter(seen.joins).most_common(1)[0][0]
        fields["losers"] = "go on"
        fields["depth"] = seen.depth()
        if seen.quorums:
            fields["quorum"] = round(float(np.mean(seen.quorums)), 5)
    return fields


def tools(used: dict[str, list[tuple[float, int, bool]]], name: str, made: Fit) -> Iterator[SimulatedTool]:
    """The tools by name, the rare ones as one."""
    ranked = sorted(used, key=lambda tool: -len(used[tool]))
    groups = {tool: used[tool] for tool in ranked[:TOOLS]}
    rest = [call for tool in ranked[TOOLS:] for call in used[tool]]
    if rest:
        groups["other"] = groups.get("other", []) + rest
    for tool, calls in groups.items():
        yield SimulatedTool(
            name=tool,
            seconds=note(made, name, f"{tool} seconds", [seconds for seconds, _, _ in calls]),
            tokens=note(made, name, f"{tool} tokens", [float(tokens) for _, tokens, _ in calls]),
            failure=round(sum(not ok for _, _, ok in calls) / len(calls), 5),
            weight=float(len(calls)),
        )


def compacts_at(spells: list[tuple[float, float, bool]]) -> Draw | None:
    """The size at which sessions compact, from spells of growth that were seen from one size to another."""
    begun, ended, events = (np.array(column, float) for column in zip(*spells, strict=True))
    sizes = np.unique(ended[events > 0])
    if sizes.size < 2:
        return None
    left, drops = 1.0, []
    for size in sizes:
        risk = int(((begun < size) & (ended >= size)).sum())
        here = int(((ended == size) & (events > 0)).sum())
        drop = left * here / risk if risk else 0.0
        drops.append(drop)
        left -= drop
    shares = np.cumsum(drops)
    total = float(shares[-1])
    points = np.interp(np.linspace(0, total, 21), np.concatenate(([0.0], shares)), np.concatenate((sizes[:1], sizes)))
    table = Quantiles([float(round(point)) for point in points])
    return table if total > 0.995 else Mixture([table, NEVER], [round(total, 4), round(1 - total, 4)])


def changed_fields(kind: Archetype) -> dict[str, Any]:
    """The fields of an archetype that are not the default, as plain values."""
    plain, default = msgspec.to_builtins(kind), msgspec.to_builtins(Archetype(task_tokens=0.0, output_tokens=0.0))
    kept = {name: value for name, value in plain.items() if value != default[name] or name == "task_tokens"}
    for one in kept.get("variants", []):
        for field in [field for field, value in one.items() if value is None]:
            del one[field]
    return kept


def page(made: Fit) -> str:
    """The fit as a page of QQ charts: quantiles of the data against those of the distribution; on the line, they agree.
    One HTML file that needs no network."""
    from collectors.page import page as whole
    from collectors.page import plot, section, table

    figures: dict[str, Any] = {}
    body = ["<h1>How well the fit describes the data</h1>"]
    if made.warnings:
        body.append(section("To be careful about", "The rest fits as well as chance lets one say.",
                            table(("what",), [(warning,) for warning in made.warnings], words=True)))  # fmt: skip
    rows = [
        (place, found.family, f"{found.distance:.3f}", f"{found.data[49]:,.4g}", f"{found.fit[49]:,.4g}",
         f"{found.data[89]:,.4g}", f"{found.fit[89]:,.4g}")
        for place, found in made.fitted.items()
    ]  # fmt: skip
    head = ("quantity", "family", "KS distance", "p50 data", "p50 fit", "p90 data", "p90 fit")
    body.append(section("Distributions", "Families are chosen by AIC; a table of quantiles where none is near enough.",
                        table(head, rows)))  # fmt: skip
    for i, (place, found) in enumerate(made.fitted.items()):
        if found.family in ("constant", "values"):
            continue
        figures[f"qq{i}"] = chart(found)
        body.append(section(place, f"{found.family}, KS distance {found.distance:.3f}.", plot(f"qq{i}", 300)))
    return whole("agentload fit", body, figures)


def chart(found: Fitted) -> dict[str, Any]:
    """One QQ chart."""
    data, ours = list(found.data), list(found.fit)
    log = min(data[0], ours[0]) > 0
    ends = [min(data[0], ours[0]), max(data[-1], ours[-1])]
    kind = "log" if log else "linear"
    return {
        "data": [
            {"x": ends, "y": ends, "mode": "lines", "line": {"color": "--line"}, "hoverinfo": "skip",
             "showlegend": False},
            {"x": data, "y": ours, "mode": "markers", "marker": {"color": "--accent", "size": 5},
             "name": "quantiles 1 % to 99 %"},
        ],
        "layout": {"xaxis": {"title": {"text": "data"}, "type": kind},
                   "yaxis": {"title": {"text": "fit"}, "type": kind}, "hovermode": "closest"},
    }  # fmt: skip


def save(made: Fit, path: Path, source: str) -> None:
    """Write the archetypes as TOML, and the charts beside them as HTML."""
    warnings = "".join(f"# careful: {warning}\n" for warning in made.warnings)
    path.write_text(f"# Fitted by agentload to {source}.\n{warnings}\n{made.toml()}")
    path.with_suffix(".html").write_text(page(made))
