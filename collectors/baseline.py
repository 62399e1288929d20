"""The figures of a run with their intervals, small enough to keep: what a later run is compared with.

`intervals` puts them into summary.json; `Stored` reads them back as a side of a comparison, without the records.
"""

from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any

import msgspec
import numpy as np

from collectors.load import Array, Run
from collectors.resample import FEWEST, TAIL, Side
from collectors.slo import Z

RESAMPLES = 400
DRAWS = 20_000_000
"""Sessions drawn in all at most: a run of a million sessions takes fewer resamples, whose edges agree the better."""
LEAST = 100


def intervals(run: Run, seed: int = 0) -> dict[str, dict[str, float | None]]:
    """Every figure that runs are compared by: `value`, and `low` and `high` of its 95 % interval.

    The interval is the percentile bootstrap over sessions (`collectors.resample`); null where there are too few.
    """
    side = Side(run, np.random.default_rng(seed))
    if not side.sessions:
        return {}
    drawn = side.resampled(max(LEAST, min(RESAMPLES, DRAWS // side.sessions)))
    found: dict[str, dict[str, float | None]] = {}
    for name, value in side.values().items():
        edges = np.full(2, np.nan)
        if side.tails[name] >= TAIL and np.isfinite(drawn[name]).all():
            edges = np.percentile(drawn[name], (2.5, 97.5))
        numbers = {"value": value, "low": float(edges[0]), "high": float(edges[1])}
        found[name] = {key: number if np.isfinite(number) else None for key, number in numbers.items()}
    return found


class Stored:
    """A run of which only the summary is left, as a side of a comparison."""

    def __init__(self, summary: Mapping[str, Any], rng: np.random.Generator) -> None:
        self.figures: dict[str, dict[str, float | None]] = summary["intervals"]
        self.sessions, self.calls = summary["run"]["sessions"], summary["run"]["calls_counted"]
        self.few = self.sessions < FEWEST
        self.rng = rng
        known = {name: figure["low"] is not None for name, figure in self.figures.items()}
        self.tails = {name: np.inf if said else 0.0 for name, said in known.items()}

    def values(self) -> dict[str, float]:
        """The figures as measured."""
        return {name: _number(figure["value"]) for name, figure in self.figures.items()}

    def resampled(self, count: int) -> dict[str, Array]:
        """As many values of each figure as its interval makes likely: normal to either side of what was measured, each
        with the width that its edge has, in logarithms where it is positive (latencies and rates are skewed)."""
        normal = np.array([NormalDist().inv_cdf((i + 0.5) / count) for i in range(count)])
        found = {}
        for name, figure in self.figures.items():
            value, low, high = (_number(figure[key]) for key in ("value", "low", "high"))
            scale, back = (np.log, np.exp) if low > 0 else (np.asarray, np.asarray)
            middle, below, above = (float(scale(x)) for x in (value, low, high))
            width = np.where(normal < 0, middle - below, above - middle) / Z
            found[name] = back(middle + self.rng.permutation(normal * width))
        return found


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def summary_file(path: Path) -> Path | None:
    """The summary.json that stands for a run without its records; None where they are there, or no summary is."""
    if path.is_file():
        return path if path.suffix == ".json" else None
    records = any((path / f"calls{end}").exists() for end in (".parquet", ".arrows"))
    file = path / "summary.json"
    return file if file.is_file() and not records else None


def read_summary(file: Path) -> dict[str, Any]:
    """A summary with intervals in it. Raises ValueError, one line, for another file."""
    try:
        summary = msgspec.json.decode(file.read_bytes())
    except msgspec.DecodeError as error:
        raise ValueError(f"{file} is not JSON: {error}") from None
    if not isinstance(summary, dict) or not isinstance(summary.get("intervals"), dict):
        raise ValueError(
            f"{file} has no intervals to compare by; make it again from its records with `agentload report`"
        )
    return summary
