"""`agentload forecast` from file to page."""

import json
from pathlib import Path

import pytest

from agentload.errors import BadInput
from agentload.forecasting import forecast, measured, read
from collectors.records import Session
from collectors.store import Store, write_header
from tests.collect_made import made_run

SPEC = """
months = 24
paths = 2_000
agents = { low = 1, likely = 2, high = 8, source = "a guess" }

[adopters]
curve = "bass"
ceiling = 1e6

[supply]
gpus = { low = 1_000, high = 2_000 }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "forecast.toml"
    file.write_text(SPEC)
    return file


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    store = Store(folder)
    for record in made_run():
        store.emit(record)
    store.close()
    write_header(folder, {"duration": 60.0})
    return folder


def test_a_forecast_is_a_folder_with_page_csv_and_every_input(file: Path, run: Path, tmp_path: Path) -> None:
    folder = forecast(read(file), [run], tmp_path / "out")
    found = json.loads((folder / "forecast.json").read_text())
    page = (folder / "forecast.html").read_text()

    assert {path.name for path in folder.iterdir()} == {"forecast.json", "forecast.html", "forecast.csv"}
    assert found["inputs"]["agents"]["source"] == "a guess"
    assert "measured sessions, resampled" in found["inputs"]["tokens"]["source"]
    assert len(found["bands"]["tokens"]["p50"]) == 24
    assert found["runs_out"]["share"][0] == 0.0
    assert "tokens a month" in page and "What drives the spread" in page and "a guess" in page
    assert (folder / "forecast.csv").read_text().count("\n") == 25


def test_sessions_that_were_measured_are_those_that_ended(run: Path) -> None:
    table = measured([run])
    done = [r for r in made_run() if isinstance(r, Session) and r.agent == "" and r.outcome in ("done", "failed")]

    assert len(table) == len(done)


def test_the_shipped_assumptions_are_ranges_with_sources(run: Path, tmp_path: Path) -> None:
    folder = forecast(read(None, {"paths": 1_000}), [run], tmp_path / "out")
    found = json.loads((folder / "forecast.json").read_text())

    assert all(row["source"] for row in found["inputs"].values() if isinstance(row["value"], dict))
    assert found["runs_out"]["share"][-1] > 0


def test_an_input_may_be_changed(file: Path) -> None:
    assert read(file, {"agents": 4}).agents == 4.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("months = 12", "missing required field `adopters`"),
        (SPEC.replace("agents", "agnts", 1), "unknown field `agnts`"),
        (SPEC.replace("likely = 2", "likely = 20"), "low <= likely <= high"),
        (SPEC.replace("paths = 2_000", "paths = 2"), "paths"),
        ("months = ", "is not TOML"),
    ],
)
def test_a_bad_file_gets_one_clear_line(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)

    with pytest.raises(BadInput, match=said) as error:
        read(file)
    assert "\n" not in str(error.value)


def test_tokens_must_be_given_or_measured(file: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="neither given nor measured"):
        forecast(read(file), [], tmp_path)
    with pytest.raises(BadInput, match="not a run folder"):
        measured([tmp_path / "nothing"])
    with pytest.raises(BadInput, match="does not exist"):
        read(tmp_path / "nothing.toml")
