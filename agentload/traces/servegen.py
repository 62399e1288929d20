"""ServeGen client chunks: not requests but rates and lengths by window, from which requests are drawn.

Source: alibaba/ServeGen. `chunk-N-trace.csv` has, for each window, its start (s), rate (requests/s), coefficient of
variation of the gaps, and their family with two parameters; `chunk-N-dataset.json` beside it, the distributions of
lengths by window. The draws are seeded by the file's name, so the same file makes the same requests.
"""

import ast
import csv
import io
import itertools
import math
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from agentload.traces.graph import Agent, Session, Thread
from agentload.traces.source import Damaged, Source, explained

NAME = re.compile(r"chunk-(.+)-trace\.csv")
MOST_REQUESTS = 10_000_000
"""Of one window, beyond which its rate is not believed."""
Lengths = tuple[NDArray[np.int64], NDArray[np.float64]]


def read(source: Source) -> Iterator[Session]:
    rng = np.random.default_rng(zlib.crc32(source.path.name.encode()))
    windows = list(read_windows(source))
    lengths = read_lengths(source)
    if not windows or not lengths:
        return
    match = NAME.fullmatch(source.path.name)
    client = match[1] if match else source.path.name
    starts = sorted(lengths)
    width = min((b[0] - a[0] for a, b in itertools.pairwise(windows) if b[0] > a[0]), default=600.0)
    for at, rate, cv in windows:
        nearest = max((start for start in starts if start <= at), default=starts[0])
        inputs, outputs, reasoning = lengths[nearest]
        for number, time in enumerate(arrivals(at, width, rate, cv, rng)):
            output = pick(outputs, rng)
            call = Thread().grown(pick(inputs, rng), output, 0, reasoning=round(output * reasoning))
            yield Session(f"client-{client}-{at:g}-{number}", Agent((call,)), time)


def arrivals(at: float, width: float, rate: float, cv: float, rng: np.random.Generator) -> Iterator[float]:
    """Gamma renewals with the window's rate and variation, from a random point within a gap."""
    if rate <= 0:
        return
    shape = 1 / cv**2 if cv > 0 else 1e6
    time = at - float(rng.random()) * float(rng.gamma(shape, 1 / (shape * rate)))
    while (time := time + float(rng.gamma(shape, 1 / (shape * rate)))) < at + width:
        if time >= at:
            yield time


def pick(lengths: Lengths, rng: np.random.Generator) -> int:
    values, shares = lengths
    return int(values[min(int(np.searchsorted(shares, rng.random() * shares[-1])), len(values) - 1)])


def read_windows(source: Source) -> Iterator[tuple[float, float, float]]:
    """Start, rate and coefficient of variation of each window."""
    for number, line in source.lines():
        try:
            cells = next(csv.reader(io.StringIO(line.decode())))
            if len(cells) < 3:
                raise Damaged("", f"must have 6 cells, has {len(cells)}")
            at, rate, cv = (as_number(cells[i], name) for i, name in enumerate(("start", "rate", "cv")))
            if rate * 600 > MOST_REQUESTS:
                raise Damaged("rate", f"must be below {MOST_REQUESTS // 600:,} requests/s, got {rate:g}")
        except Damaged as damage:
            source.complain(number, damage.field, damage.reason)
        except (UnicodeDecodeError, csv.Error, StopIteration) as error:
            source.complain(number, "", f"not CSV: {error}")
        else:
            yield at, rate, cv


def as_number(text: str, name: str) -> float:
    try:
        value = float(text or 0)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1e9:
        raise Damaged(name, f"must be a number from 0 to 1e9, got {text[:40]!r}")
    return value


def read_lengths(source: Source) -> dict[float, tuple[Lengths, Lengths, float]]:
    """Input and output lengths and the share of reasoning, by window."""
    path = Path(str(source.path).replace("-trace.csv", "-dataset.json"))
    if path == source.path or not path.is_file():
        source.complain(0, "", f"the lengths are missing: {path.name} is not beside it")
        return {}
    beside = Source(path, source.complaints)
    found: dict[float, tuple[Lengths, Lengths, float]] = {}
    with beside.open() as file:
        try:
            plain = msgspec.json.decode(file.read(), type=dict[str, dict[str, Any]])
        except RecursionError:
            beside.complain(1, "", "the JSON is nested too deeply")
            return {}
        except (msgspec.DecodeError, UnicodeDecodeError, OSError, EOFError, zlib.error) as error:
            beside.complain(1, *explained(error))
            return {}
    for window, fields in plain.items():
        try:
            inputs = as_lengths(fields.get("input_tokens"), f"{window}.input_tokens")
            outputs = as_lengths(fields.get("output_tokens"), f"{window}.output_tokens")
            found[as_number(window, "window")] = inputs, outputs, mean_ratio(fields.get("reason_ratio"))
        except Damaged as damage:
            beside.complain(1, damage.field, damage.reason)
    return found


def as_lengths(text: Any, place: str) -> Lengths:
    """`{length: probability, …}`, written as a Python literal in a string."""
    table = literal(text)
    if not isinstance(table, dict) or not table:
        raise Damaged(place, "must be a table of lengths and probabilities")
    if not all(isinstance(v, int | float) and 0 <= v <= 1e9 for pair in table.items() for v in pair):
        raise Damaged(place, "lengths and probabilities must be numbers from 0 up")
    if not sum(table.values()) > 0:
        raise Damaged(place, "probabilities must not all be 0")
    return np.array([int(key) for key in table], np.int64), np.cumsum([float(value) for value in table.values()])


def mean_ratio(text: Any) -> float:
    """The mean share of reasoning: a number, or a table as above; 0 where there is none."""
    table = literal(text)
    if isinstance(table, int | float):
        return min(max(float(table), 0.0), 1.0)
    if not isinstance(table, dict):
        return 0.0
    pairs = [
        (float(k), float(v)) for k, v in table.items() if isinstance(k, int | float) and isinstance(v, int | float)
    ]
    total = sum(share for _, share in pairs)
    return min(max(sum(k * v for k, v in pairs) / total, 0.0), 1.0) if total > 0 else 0.0


def literal(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
