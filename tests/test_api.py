"""agentload from Python: what the commands do is what the functions do, and runs of older versions stay readable."""

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import agentload
from agentload import commands
from agentload.cli import app
from collectors import metrics
from collectors.load import TABLES, load_run
from collectors.records import SCHEMA
from collectors.summary import summarise

OLD = Path(__file__).parent / "data" / "run-schema-1"
"""A simulated run that the first version with a schema wrote."""

SPEC = {
    "seed": 3,
    "salt": 1,
    "sessions": 12,
    "population": [{"archetype": "chat"}],
    "profile": {"type": "held", "agents": 4},
    "slo": {"error_rate": 0.5},
}


def test_importing_it_imports_nothing_else() -> None:
    code = "import sys, agentload; print([m for m in ('numpy', 'msgspec', 'typer', 'pyarrow') if m in sys.modules])"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_name_it_offers_is_there_and_no_other() -> None:
    assert all(getattr(agentload, name) for name in agentload.__all__)
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        agentload.runn  # type: ignore[attr-defined]  # noqa: B018


def test_simulating_from_python_is_simulating_from_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "spec.toml"
    file.write_text('seed = 3\nsalt = 1\nsessions = 12\npopulation = [{ archetype = "chat" }]\n'
                    'profile = { type = "held", agents = 4 }\nslo = { error_rate = 0.5 }\n')  # fmt: skip

    ours = agentload.simulate(SPEC, out=tmp_path / "api")
    CliRunner().invoke(app, ["simulate", str(file), "--out", str(tmp_path / "command"), "-q"])

    theirs = agentload.load_run(next((tmp_path / "command").iterdir()))
    assert ours.calls.arrow().equals(theirs.calls.arrow())
    assert ours.sessions.arrow().equals(theirs.sessions.arrow())
    assert {key: ours.summary[key] for key in ("tokens", "serving", "jobs", "slo")} == {
        key: theirs.summary[key] for key in ("tokens", "serving", "jobs", "slo")
    }
    assert ours.trustworthy
    assert ours.kept is True
    assert (ours.folder / "report.html").is_file()


def test_a_run_in_a_notebook_whose_loop_is_running(tmp_path: Path) -> None:
    spec = SPEC | {"sessions": 2, "population": [{"archetype": "fixed"}], "box": {"speed": 50}}

    async def cell() -> agentload.Results:
        return agentload.run(spec, out=tmp_path)

    results = asyncio.run(cell())

    assert len(results.sessions) == 2
    assert results.summary["run"]["calls"] == len(results.calls) - int((results.calls.session < 0).sum())


def test_columns_are_numpy_and_arrow_and_say_the_same() -> None:
    run = agentload.load_run(OLD)

    table = run.calls.arrow()

    assert isinstance(run.calls.first, np.ndarray)
    assert isinstance(table, pa.Table)
    np.testing.assert_array_equal(run.calls.input_tokens, table["input_tokens"].to_numpy())
    assert metrics.ttft(run.calls).shape == (len(run.calls),)
    assert repr(run) == f"<{len(run.sessions)} agents, {len(run.calls)} calls in {OLD}>"


@pytest.mark.parametrize("name", ["pandas", "polars"])
def test_frames_where_their_library_is_installed(name: str) -> None:
    records = agentload.load_run(OLD).sessions
    try:
        frame = getattr(records, f"to_{name}")()
    except ModuleNotFoundError as error:
        assert error.name == name
    else:
        assert list(frame.columns) == records.arrow().column_names


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (SPEC | {"sesions": 3}, "unknown field `sesions`; did you mean `sessions`?"),
        (SPEC | {"population": [{"archetype": "codr"}]}, "archetype 'codr' does not exist"),
        (Path("nowhere.toml"), "'nowhere.toml' does not exist"),
    ],
)
def test_a_wrong_spec_is_said_in_a_line(spec: object, said: str) -> None:
    with pytest.raises(agentload.BadInput, match=said):
        agentload.run(spec)  # type: ignore[arg-type]


def test_an_endpoint_on_the_internet_is_confirmed_as_on_the_command_line(tmp_path: Path) -> None:
    with pytest.raises(agentload.BadInput, match=r"the first run against 8\.8\.8\.8 must be confirmed"):
        agentload.run(SPEC | {"endpoint": {"url": "http://8.8.8.8/v1"}}, out=tmp_path)

    assert list(tmp_path.iterdir()) == []


# Older runs, and newer ones.


def test_a_run_of_the_first_schema_is_read_and_reported_as_it_was() -> None:
    run = agentload.load_run(OLD)
    then = json.loads((OLD / "summary.json").read_text())

    now = json.loads(json.dumps(summarise(load_run(OLD))))
    assert run.header["schema"] == 1
    assert (len(run.calls), len(run.sessions)) == (118, 8)
    for part in ("tokens", "jobs", "drift", "errors", "verdict"):
        assert then[part].items() <= now[part].items(), part
    assert then["serving"]["ttft"] == now["serving"]["ttft"]


def older(folder: Path, without: dict[str, list[str]]) -> Path:
    """The run again, as it would have been written before those columns were there."""
    shutil.copytree(OLD, folder)
    for name, columns in without.items():
        pq.write_table(pq.read_table(folder / f"{name}.parquet").drop_columns(columns), folder / f"{name}.parquet")
    return folder


def test_a_column_that_an_older_file_lacks_has_its_default(tmp_path: Path) -> None:
    folder = older(
        tmp_path / "run", {"calls": ["tenant", "throttled", "itl", "wanted_input_tokens"], "tools": ["kind"]}
    )

    run = agentload.load_run(folder)

    n = len(run.calls)
    assert run.calls.tenant.tolist() == [""] * n
    assert run.calls.throttled.tolist() == [0.0] * n
    assert np.isnan(run.calls.wanted_input_tokens).all()
    assert len(run.calls.itl.values) == 0
    assert set(run.tools.kind) == {"simulated"}
    assert run.calls.arrow().column_names == list(TABLES["calls"].__struct_fields__)
    assert CliRunner().invoke(app, ["report", str(folder)]).exit_code == 0


def test_a_stream_of_an_older_version_is_made_whole(tmp_path: Path) -> None:
    folder = older(tmp_path / "run", {"calls": ["tenant"]})
    table = pq.read_table(folder / "calls.parquet")
    with pa.OSFile(str(folder / "calls.arrows"), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    (folder / "calls.parquet").unlink()

    assert CliRunner().invoke(app, ["report", str(folder)]).exit_code == 0
    assert pq.read_schema(folder / "calls.parquet").names == list(TABLES["calls"].__struct_fields__)


def test_records_of_something_else_are_refused(tmp_path: Path) -> None:
    folder = older(tmp_path / "run", {"calls": ["sent"]})

    with pytest.raises(agentload.BadInput, match="records without 'sent' are not agentload's call records"):
        agentload.load_run(folder)


def test_a_run_of_a_newer_version_is_refused_with_what_to_do(tmp_path: Path) -> None:
    folder = older(tmp_path / "run", {})
    header = json.loads((folder / "run.json").read_text()) | {"schema": SCHEMA + 1}
    (folder / "run.json").write_text(json.dumps(header))

    with pytest.raises(agentload.BadInput, match=rf"newer agentload wrote this run \(schema {SCHEMA + 1}, .* update"):
        agentload.load_run(folder)
    with pytest.raises(agentload.BadInput, match="newer agentload wrote this run"):
        commands.report(folder, as_json=False)
