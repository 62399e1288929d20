"""agentload from Python: three functions that do what the commands do, and what they leave behind as columns.

import agentload
results = agentload.simulate({"population": [{"archetype": "coder"}], "sessions": 20,
                              "profile": {"type": "held", "agents": 8}})
results.calls.first - results.calls.sent      # NumPy: time to first token of every call, in seconds
results.sessions.to_pandas()                  # or .arrow(), or .to_polars()
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import msgspec

from agentload import commands
from agentload import spec as specs
from agentload.errors import BadInput
from agentload.spec import Spec
from collectors import load
from collectors.report import write_report
from collectors.summary import summarise

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

__all__ = ["BadInput", "Records", "Results", "SpecLike", "load_run", "run", "simulate"]

T = TypeVar("T")
SpecLike: TypeAlias = Spec | Mapping[str, Any] | Path | str
"""A spec, its plain values as TOML has them, or the path of a TOML file."""


class Records(load.Columns):
    """One kind of record as columns: `records.sent` is a NumPy array with one item for each.

    The columns are those of `collectors.records`: instants in seconds on the run clock, NaN where something never
    happened. Every function of `collectors.metrics` takes them.
    """

    def __init__(self, columns: load.Columns, folder: Path, name: str) -> None:
        super().__init__(lambda column: getattr(columns, column), len(columns))
        self._folder, self._name = folder, name

    def arrow(self) -> "pa.Table":
        """The same as an Arrow table, read from the run folder; nulls where something never happened."""
        return load.read_table(self._folder, self._name)

    def to_pandas(self) -> "pd.DataFrame":
        """The same as a pandas data frame. ModuleNotFoundError where pandas is not installed."""
        found: pd.DataFrame = self.arrow().to_pandas()
        return found

    def to_polars(self) -> "pl.DataFrame":
        """The same as a Polars data frame. ModuleNotFoundError where Polars is not installed."""
        import polars

        found: pl.DataFrame = polars.from_arrow(self.arrow())
        return found


class Results:
    """A run that ended, was cut off or still goes on: its folder, what run.json says, and its records."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        found = load.load_run(folder)
        self.header: dict[str, Any] = found.header
        self.calls = Records(found.calls, folder, "calls")
        self.tools = Records(found.tools, folder, "tools")
        self.sessions = Records(found.sessions, folder, "sessions")
        self.server = Records(found.server, folder, "server")

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Every number of the report: what summary.json has, made anew where there is none."""
        file = self.folder / "summary.json"
        if file.is_file():
            found: dict[str, Any] = msgspec.json.decode(file.read_bytes())
            return found
        return summarise(load.Run(self.header, self.calls, self.tools, self.sessions, self.server))

    @property
    def trustworthy(self) -> bool:
        """Whether the machine that made the load was fast enough for the figures to be the endpoint's."""
        return bool(self.summary["verdict"]["trustworthy"])

    @property
    def kept(self) -> bool | None:
        """Whether the promises of the spec (`slo`) were kept; None where none was made or it cannot be said."""
        gate = self.summary.get("slo")
        return {"pass": True, "fail": False}.get(gate["verdict"]) if gate else None

    def __repr__(self) -> str:
        return f"<{len(self.sessions):,} agents, {len(self.calls):,} calls in {self.folder}>"


def run(spec: SpecLike | None = None, *, out: Path | str = "runs", workers: int = 0, yes: bool = False) -> Results:
    """Run agents against the spec's endpoint, or a simulated cluster where it names none, and write a report.

    Without a spec: a mixed population. `workers` processes share the work. `yes` confirms a first run against an
    endpoint on the internet, which the spec's limits should bound. Raises BadInput before anything is sent where the
    spec is wrong or the endpoint cannot be used. What goes wrong later is in the records.
    """
    fleet = commands.ALONE | {"workers": workers}
    with commands.aimed(made(spec), Path(out), {"yes": yes}) as there:
        folder, _ = apart(lambda: commands.perform(there, Path(out), True, fleet))
    write_report(folder)
    return load_run(folder)


def simulate(spec: SpecLike | None = None, *, out: Path | str = "runs", shards: int = 1) -> Results:
    """Run agents in virtual time against the simulated cluster, as fast as this machine goes, and write a report.

    With `shards`, as so many independent clusters in processes of their own, each with its part of replicas and agents.
    Raises BadInput where the spec is wrong, or asks for what only real time has.
    """
    from agentload.simulation import simulate as run_virtually

    folder, _ = run_virtually(made(spec), Path(out), shards=shards)
    write_report(folder)
    return load_run(folder)


def load_run(folder: Path | str) -> Results:
    """The run in a folder, of this version of agentload or an older one, finished or not.

    Raises BadInput where there is none, or a newer agentload wrote it.
    """
    try:
        return Results(Path(folder))
    except (FileNotFoundError, ValueError) as error:
        raise BadInput(str(error)) from None


def made(spec: SpecLike | None) -> Spec:
    """The spec that is meant."""
    match spec:
        case Spec():
            return spec
        case Mapping():
            return specs.decode(dict(spec))
        case None:
            return commands.resolve(None, {})
    return specs.decode(specs.read(Path(spec)), str(spec))


def apart(do: Callable[[], T]) -> T:
    """What it returns, from a thread of its own where this one runs an event loop already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return do()
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(do).result()
