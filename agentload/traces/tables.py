"""Traces in CSV with one request a row: Azure's LLM inference traces, BurstGPT, and per-call tables of agent sessions.

Azure (2023 and 2024): `TIMESTAMP,ContextTokens,GeneratedTokens`, seconds with up to seven digits behind the point.
BurstGPT: `Timestamp,[Session ID,Elapsed time,]Model,Request tokens,Response tokens,Total tokens,Log Type`; a response
of 0 tokens is a failure and is left out, with a count. Shape: `trace,agent,turn,t,in,out,hit,api,think,stop`, one row
for each call of an agent session, `hit` the tokens of its longest prefix seen before, `stop` "t" where tools follow and
"e" where a person does.
"""

import csv
import datetime
import io
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from agentload.traces.graph import Agent, Gap, Session, Start, Step, Thread, Tool, Tools
from agentload.traces.source import Damaged, Gather, Source

AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
BURST = ("Timestamp", "Model", "Request tokens", "Response tokens")
SHAPE = ("trace", "agent", "turn", "t", "in", "out", "hit")
MOST_TOKENS = 1_000_000_000


def rows(source: Source, wanted: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows by column name. A header without the wanted columns is complained of, and nothing is read."""
    header: list[str] = []
    for number, line in source.lines():
        try:
            cells = next(csv.reader(io.StringIO(line.decode("utf-8-sig" if number == 1 else "utf-8"))))
        except (UnicodeDecodeError, csv.Error, StopIteration) as error:
            source.complain(number, "", f"not CSV: {error}")
            continue
        if not header:
            header = [cell.strip() for cell in cells]
            missing = [name for name in wanted if name not in header]
            if missing:
                source.complain(number, missing[0], f"there is no such column; there are {', '.join(header)[:100]}")
                return
        elif len(cells) != len(header):
            source.complain(number, "", f"must have {len(header)} cells, has {len(cells)}")
        else:
            yield number, dict(zip(header, cells, strict=True))


def whole(row: dict[str, str], name: str, least: int = 0) -> int:
    """A count of tokens."""
    value = number(row, name)
    if value != int(value) or not least <= value <= MOST_TOKENS:
        raise Damaged(name, f"must be a whole number from {least} to {MOST_TOKENS:,}, got {row[name][:40]!r}")
    return int(value)


def number(row: dict[str, str], name: str, empty: float | None = None) -> float:
    """A number; `empty` where the cell is."""
    text = row.get(name, "").strip()
    if not text and empty is not None:
        return empty
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) <= 1e12:
        raise Damaged(name, f"must be a number, got {text[:40]!r}")
    return value


def read_azure(source: Source) -> Iterator[Session]:
    zero: datetime.datetime | None = None
    for line, row in rows(source, AZURE):
        try:
            now, fraction = instant(row["TIMESTAMP"])
            input, output = whole(row, "ContextTokens"), whole(row, "GeneratedTokens")
        except Damaged as damage:
            source.complain(line, damage.field, damage.reason)
            continue
        zero = zero or now
        start = (now - zero).total_seconds() + fraction
        yield Session(f"line-{line}", Agent((Thread().grown(input, output, 0),)), start)


def instant(text: str) -> tuple[datetime.datetime, float]:
    """A date and time, and the part of a second behind it (which may have seven digits)."""
    seconds, _, fraction = text.strip().partition(".")
    fraction = fraction.partition("+")[0].rstrip("Z")
    try:
        when = datetime.datetime.fromisoformat(seconds.removesuffix("+00:00")).replace(tzinfo=None)
        return when, float(f"0.{fraction}") if fraction else 0.0
    except ValueError:
        raise Damaged("TIMESTAMP", f"must be a date and time, got {text[:40]!r}") from None


def read_burstgpt(source: Source) -> Iterator[Session]:
    open_: Gather[tuple[float, float, int, int]] = Gather()
    for line, row in rows(source, BURST):
        try:
            at, took = number(row, "Timestamp"), max(0.0, number(row, "Elapsed time", 0.0))
            input, output = whole(row, "Request tokens"), whole(row, "Response tokens")
            if not output:
                raise Damaged("Response tokens", "is 0: a failed request, left out")
        except Damaged as damage:
            source.complain(line, damage.field, damage.reason)
            continue
        session = row.get("Session ID", "").strip()
        made = (at, took, input, output)
        if session:
            for name, calls in open_.add(session, made):
                yield conversation(name, calls)
        else:
            yield conversation(f"line-{line}", [made])
    for name, calls in open_.rest():
        yield conversation(name, calls)


def conversation(name: str, calls: list[tuple[float, float, int, int]]) -> Session:
    """The requests of one session, in order of time; what they share is not recorded."""
    calls = sorted(calls)
    steps: list[Step] = []
    end = calls[0][0]
    for at, took, input, output in calls:
        if at > end:
            steps.append(Gap(at - end, person=True))
        steps.append(Thread().grown(input, output, 0, seconds=took or None))
        end = max(at + took, end)
    return Session(name[:1000], Agent(tuple(steps)), calls[0][0])


Shape = tuple[int, float, int, int, int, float | None, float, str]


def read_shape(source: Source) -> Iterator[Session]:
    open_: OrderedDict[str, dict[str, list[Shape]]] = OrderedDict()
    for line, row in rows(source, SHAPE):
        try:
            api = number(row, "api", -1.0)
            made = (
                whole(row, "turn"), number(row, "t"), whole(row, "in", 1), whole(row, "out"), whole(row, "hit"),
                None if api < 0 else api, max(0.0, number(row, "think", 0.0)), row.get("stop", "").strip(),
            )  # fmt: skip
            agent = str(whole(row, "agent"))
        except Damaged as damage:
            source.complain(line, damage.field, damage.reason)
            continue
        trace = row["trace"].strip()
        if trace not in open_ and len(open_) >= 1_000:
            yield table(*open_.popitem(last=False))
        open_.setdefault(trace, {}).setdefault(agent, []).append(made)
        open_.move_to_end(trace)
    while open_:
        yield table(*open_.popitem(last=False))


def table(name: str, agents: dict[str, list[Shape]]) -> Session:
    """A session and its sub-agents, each started by the last call of the main thread before it."""
    main = sorted(agents.pop("0", []) or agents.pop(next(iter(agents))))
    others = sorted((sorted(calls) for calls in agents.values()), key=lambda calls: calls[0][1])
    steps: list[Step] = []
    thread = Thread()
    for i, call in enumerate(main):
        steps += shaped(call, thread, main[i - 1] if i else None)
        until = main[i + 1][1] if i + 1 < len(main) else math.inf
        born = [calls for calls in others if calls[0][1] < until]
        others = others[len(born) :]
        if born:
            end = call[1] + (call[5] or 0.0)
            children = tuple(Agent(tuple(alone(calls)), delay=max(0.0, calls[0][1] - end)) for calls in born)
            steps.append(Start(children))
    return Session(name[:1000], Agent(tuple(steps)))


def alone(calls: list[Shape]) -> Iterator[Step]:
    thread = Thread()
    for i, call in enumerate(calls):
        yield from shaped(call, thread, calls[i - 1] if i else None)


def shaped(call: Shape, thread: Thread, before: Shape | None) -> Iterator[Step]:
    _, _, input, output, hit, api, think, _ = call
    if think and before is not None:
        yield Gap(think, person=True) if before[7] == "e" else Tools((Tool(seconds=think),))
    yield thread.grown(input, output, hit, seconds=api)
