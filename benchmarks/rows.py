"""What a section of the benchmarks gives: rows of a table, each with its target where there is one."""

import os
import platform
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple


class Row(NamedTuple):
    """One figure. `most` and `least` are what it must stay within, None where it is only there to be compared with."""

    section: str
    what: str
    value: float | None  # None where it could not be measured; `note` says why
    unit: str
    most: float | None = None
    least: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.value is None or (self.most is None and self.least is None):
            return None
        return (self.most is None or self.value <= self.most) and (self.least is None or self.value >= self.least)

    def target(self) -> str:
        if self.most is not None:
            return f"≤ {figure(self.most)}"
        return "" if self.least is None else f"≥ {figure(self.least)}"


def figure(value: float) -> str:
    """Three digits, or all of a large number's."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def to_markdown(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table, which is also what the terminal shows."""
    head = ("", "", "", "target", "", "")
    body = []
    for row in rows:
        value = "–" if row.value is None else f"{figure(row.value)} {row.unit}"
        met = {None: "", True: "met", False: "missed"}[row.met]
        body.append((row.section, row.what, value, row.target(), met, row.note))
    widths = [max(len(line[i]) for line in (head, *body)) for i in range(len(head))]

    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))} |"

    return "\n".join([line(head), line("-" * width for width in widths), *map(line, body)])


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": model or platform.processor(),
        "system": platform.system() + " " + platform.release(),
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "load": os.getloadavg()[0],  # others' work on these cores, when the benchmarks began
        "versions": {name: metadata.version(name) for name in ("uvloop", "httptools", "msgspec", "openai", "numpy")},
    }
