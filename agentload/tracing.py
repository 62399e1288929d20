"""What the trace commands do: look at a trace, count it, convert it, fit it. They return the text to be printed."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from agentload.errors import BadInput
from agentload.fit import Fit, fit_archetype, save
from agentload.traces import own
from agentload.traces.analyse import Stats, analyse
from agentload.traces.detect import format_of, read
from agentload.traces.graph import Call, Gap, Session, Start, Tools, agents
from agentload.traces.source import Complaints

SHOWN = 20
"""Complaints, and steps of a session, that are shown."""


def load(path: Path, format: str | None = None, strict: bool = False) -> tuple[Iterator[Session], Complaints]:
    """The sessions of a trace, as they are read, and what is found wrong meanwhile. `strict` makes that fatal."""
    complaints = Complaints(fatal=strict)
    return read(path, complaints, format), complaints


def inspect(path: Path, format: str | None = None, strict: bool = False) -> str:
    """What a trace is, what is wrong with it, and its first session step by step."""
    sessions, complaints = load(path, format, strict)
    first = next(sessions, None)
    count = sum(1 for _ in sessions) + (first is not None)
    lines = [f"{path}: {format or format_of(path)}, {count:,} sessions"]
    if first is not None:
        lines += ["", f"first session, {first.id!r}:", *described(first)]
    return "\n".join([*lines, *problems(complaints)])


def described(session: Session) -> Iterator[str]:
    """A session's first steps, a line each."""
    for path, agent in agents(session.root):
        name = f" {agent.name}" if agent.name else ""
        yield f"  agent {path or 'root'}{name}"
        for step in agent.steps[:SHOWN]:
            match step:
                case Call():
                    yield f"    call   {step.input:,} in ({step.keep:,} kept), {step.output:,} out"
                case Tools(calls):
                    seconds = max((tool.seconds for tool in calls), default=0.0)
                    yield f"    tools  {', '.join(tool.name for tool in calls)}: {seconds:.3g} s"
                case Gap(seconds, person):
                    yield f"    {'person' if person else 'gap   '} {seconds:.3g} s"
                case Start(children, wait):
                    yield f"    start  {len(children)} sub-agents{'' if wait is None else f', wait for {wait}'}"
                case _:
                    yield "    join"
        if len(agent.steps) > SHOWN:
            yield f"    and {len(agent.steps) - SHOWN} more steps"


def problems(complaints: Complaints) -> list[str]:
    """What was wrong, a line each."""
    if not complaints.count:
        return []
    lines = ["", f"{complaints.count:,} things could not be used:", *map(str, complaints.found[:SHOWN])]
    if complaints.count > SHOWN:
        lines.append(f"… and {complaints.count - SHOWN:,} more")
    return lines


def convert(path: Path, out: Path, format: str | None = None, strict: bool = False) -> str:
    """Write a trace in our own format; what was done."""
    sessions, complaints = load(path, format, strict)
    header = own.Header(own.VERSION, path.name, format or format_of(path) or "")
    try:
        count = own.save(sessions, out, header)
    except OSError as error:
        raise BadInput(f"{str(out)!r} cannot be written: {error.strerror}") from None
    return "\n".join([f"{out}: {count:,} sessions", *problems(complaints)])


def stats(path: Path, format: str | None = None, strict: bool = False) -> tuple[Stats, Complaints]:
    """The figures of a trace."""
    sessions, complaints = load(path, format, strict)
    return analyse(sessions), complaints


NAMES = ("p10", "p25", "p50", "p75", "p90", "p95", "p99", "mean")


def as_text(found: Stats) -> str:
    """The figures as a page of text."""
    plain = msgspec.to_builtins(found)
    lines = [f"{'':24}" + "".join(f"{name:>11}" for name in NAMES)]
    for name, value in plain.items():
        if isinstance(value, list) and value:
            lines.append(f"{name.replace('_', ' '):24}" + "".join(f"{number:>11,.4g}" for number in value))
    lines.append("")
    for name, value in plain.items():
        if isinstance(value, int | float):
            lines.append(f"{name.replace('_', ' '):24}{value:>11,.5g}")
    for name, unit in (("dispersion", "s"), ("hit_by_size", "tokens"), ("hit_by_lifetime", "s")):
        table: dict[str, float] = plain[name]
        if table:
            lines += ["", name.replace("_", " ")]
            lines += [f"  {float(key):>14,.0f} {unit:8}{value:>8.4g}" for key, value in levelled(table)]
    return "\n".join(lines)


def levelled(table: dict[str, float]) -> Iterable[tuple[str, float]]:
    """A table without the rows after which nothing changes any more."""
    rows = list(table.items())
    while len(rows) > 2 and rows[-1][1] == rows[-2][1] == rows[-3][1]:
        rows.pop()
    return rows


def fit(path: Path, out: Path, name: str, format: str | None = None, strict: bool = False) -> tuple[Fit, str]:
    """Fit an archetype to a trace or a run; write it as TOML, and its charts beside it. What was done, as text."""
    if not name or not all(c.isalnum() or c in "-_" for c in name):
        raise BadInput(f"an archetype's name has letters, digits, - and _, got {name!r}")
    sessions, complaints = load(path, format, strict)
    made = fit_archetype(sessions, name)
    try:
        save(made, out, path.name)
    except OSError as error:
        raise BadInput(f"{str(out)!r} cannot be written: {error.strerror}") from None
    lines = [f"{out}: archetype {name!r}; how well it fits: {out.with_suffix('.html')}"]
    lines += [f"careful: {warning}" for warning in made.warnings]
    return made, "\n".join([*lines, *problems(complaints)])
