"""`agentload forecast`: a TOML file of assumptions, measured sessions beside them, the result as a folder."""

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from agentload.errors import BadInput
from agentload.spec import explained, read_text
from agentload.sweep import read as read_sweep
from collectors.forecast import Forecast, bands, draw, inputs, runs_out, source_of, tornado
from collectors.humans import SessionTable, joined, session_table
from collectors.load import load_run
from collectors.steady import CannotSay
from collectors.store import write_file
from collectors.study import inside


def read(path: Path | None = None, changes: dict[str, Any] | None = None) -> Forecast:
    """The assumptions in a TOML file, or those that ship with agentload, with some of them changed. BadInput, one line,
    for what is none."""
    path = Path(str(resources.files("agentload") / "forecast.toml")) if path is None else path
    try:
        plain = tomllib.loads(read_text(path)) | (changes or {})
    except FileNotFoundError:
        raise BadInput(f"forecast {str(path)!r} does not exist; name a TOML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"forecast {str(path)!r} cannot be read: {error}") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"forecast {str(path)!r} is not TOML: {error}") from None
    try:
        return msgspec.convert(plain, Forecast)
    except msgspec.ValidationError as error:
        raise BadInput(f"{path}: {explained(str(error), plain, Forecast)}") from None


def measured(folders: list[Path]) -> SessionTable:
    """The sessions of run folders, and of sweep folders' whole sessions. BadInput where there are none."""
    tables = []
    for folder in folders:
        if (folder / "sweep.json").is_file():
            census = read_sweep(folder).census.values()
            if not census:
                raise BadInput(f"the sweep {str(folder)!r} has no whole sessions; sweep with --census")
            runs = [load_run(inside(folder, name)) for name in census]
        else:
            try:
                runs = [load_run(folder)]
            except FileNotFoundError as error:
                raise BadInput(str(error)) from None
        tables += [session_table(run.calls, run.sessions) for run in runs]
    try:
        return joined(tables)
    except CannotSay as error:
        raise BadInput(str(error)) from None


def forecast(assumptions: Forecast, folders: list[Path], out: Path) -> Path:
    """Draw the paths and write forecast.json, its tables and its page into a new folder; return that folder.

    `folders` hold the runs or sweeps whose sessions are resampled, where the assumptions give no tokens per session.
    """
    from agentload.prepare import check_folder
    from collectors.outlook import write_forecast

    tokens = None
    if assumptions.tokens is None:
        if not folders:
            raise BadInput("tokens per session are neither given nor measured; name a run or sweep folder, or `tokens`")
        tokens = measured(folders).total
    check_folder(out)
    found = result(assumptions, tokens, [str(folder) for folder in folders])
    folder = new_folder(out)
    write_file(folder / "forecast.json", msgspec.json.format(msgspec.json.encode(found), indent=1))
    write_forecast(folder, found)
    return folder


def result(assumptions: Forecast, tokens: Any, folders: list[str]) -> dict[str, Any]:
    """forecast.json."""
    try:
        drawn = draw(assumptions, tokens)
    except ValueError as error:
        raise BadInput(str(error)) from None
    listed = {
        name: {"value": msgspec.to_builtins(value), "source": source_of(assumptions, name)}
        for name, value in inputs(assumptions).items()
    }
    if tokens is not None:
        listed["tokens"] = {
            "value": float(np.mean(tokens)),
            "source": f"{len(tokens)} measured sessions, resampled: {', '.join(folders) or 'given'}",
        }
    return {
        "schema": 1,
        "assumptions": msgspec.to_builtins(assumptions),
        "inputs": listed,
        "months": assumptions.months,
        "paths": assumptions.paths,
        "bands": bands(drawn),
        "tornado": tornado(drawn, ("tokens", "gpus", "cost", "revenue")),
        "runs_out": runs_out(drawn),
    }


def new_folder(out: Path) -> Path:
    """A folder of its own, named by its time."""
    import datetime

    started = datetime.datetime.now().strftime("%Y-%m-%dT%H-%M-%S")
    for suffix in ("", *(f"-{n}" for n in range(2, 100))):
        folder = out / f"{started}-forecast{suffix}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise BadInput(f"--out {str(out)!r} holds a hundred forecasts of this second; wait a moment")
