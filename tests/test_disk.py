"""A folder that takes no more records, or is gone: nothing that was recorded is lost, and it is said in one line."""

import contextlib
import os
import resource
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from agentload.box.options import BoxOptions
from agentload.box.serve import BoxProcess
from agentload.commands import resolve
from agentload.disk import FULL, Disk, finish, open_store, report
from agentload.errors import BadInput, Failed
from agentload.realtime import run
from agentload.screen import Watch
from collectors.load import load_run
from collectors.records import Call
from collectors.recovery import recover
from collectors.store import Store
from tests.fleet_made import until


def a_call(session: int) -> Call:
    return Call(session, "", "coder", 0, 0, 1.0, 1.0, 1.1, 1.5, 2.0, 2.0, input_tokens=100, output_tokens=11)


def emit(store: Store, first: int, last: int) -> None:
    for session in range(first, last):
        store.begin()
        store.emit(a_call(session))


def sessions(folder: Path) -> list[int]:
    return load_run(folder).calls.session.tolist()


@contextlib.contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """A full disk for this process: the system refuses to make any file larger."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_loses_nothing_and_tears_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = open_store(tmp_path / "run", {"seed": 1})
    disk = Disk(store)
    emit(store, 0, 10)
    disk.write()
    with no_file_above((tmp_path / "run" / "calls.arrows").stat().st_size + 1_000):  # less than the next piece needs
        emit(store, 10, 1_000)
        for _ in range(3):
            disk.write()

        assert sessions(tmp_path / "run") == list(range(10))
        assert load_run(tmp_path / "run").header["unrecorded_calls"] == 990
        assert not disk.given_up
    disk.write()

    assert sessions(tmp_path / "run") == list(range(1_000))
    first, second = capsys.readouterr().err.splitlines()
    assert "takes no records (File too large): they stay in memory for 10 s, then the run ends" in first
    assert "takes records again; none was lost" in second
    finish(store, {"seed": 1, "duration": 2.0})
    assert sessions(tmp_path / "run") == list(range(1_000))
    assert load_run(tmp_path / "run").header["unrecorded_calls"] == 0


@pytest.mark.parametrize("how", ["deleted", "moved", "one file deleted"])
def test_a_folder_that_goes_is_made_again_with_every_record(
    how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    store = open_store(folder, {"seed": 1})
    emit(store, 0, 500)
    store.flush()
    if how == "deleted":
        shutil.rmtree(folder)
    elif how == "moved":
        folder.rename(tmp_path / "away")
    else:
        (folder / "calls.arrows").unlink()
    emit(store, 500, 700)
    Disk(store).write()

    assert sessions(folder) == list(range(700))
    assert load_run(folder).header["seed"] == 1
    assert f"{folder} was deleted or moved away: it was made again, with every record" in capsys.readouterr().err
    assert recover(folder) is False  # it is held, as before
    emit(store, 700, 800)
    finish(store, {"seed": 1, "duration": 2.0})
    assert sessions(folder) == list(range(800))


def test_a_run_whose_folder_takes_no_more_goes_elsewhere_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere").mkdir()
    folder = tmp_path / "run"
    store = open_store(folder, {"seed": 1})
    emit(store, 0, 500)
    store.flush()
    shutil.rmtree(folder)
    folder.write_text("")  # and a file where it was: it cannot be made again
    emit(store, 500, 700)
    finish(store, {"seed": 1, "duration": 2.0})

    assert store.folder.parent == tmp_path / "elsewhere"
    assert sessions(store.folder) == list(range(700))
    assert load_run(store.folder).header == {"seed": 1, "duration": 2.0, "unrecorded_calls": 0}
    assert f"the whole run is in {store.folder}" in capsys.readouterr().err


def test_a_run_whose_records_find_no_place_ends_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentload.disk.PATIENCE", 0.3)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def sabotage() -> None:
        begun: Path = until(lambda: next(tmp_path.glob("runs/*/calls.begun"), None))
        shutil.rmtree(begun.parent)
        begun.parent.write_text("")  # a file where the folder was

    thread = threading.Thread(target=sabotage)
    with BoxProcess(BoxOptions(speed=10.0)) as url:
        spec = resolve(None, {"url": url, "archetype": ["fixed"], "agents": 4, "duration": 60.0})
        thread.start()
        folder, stopped = uvloop.run(run(spec, tmp_path / "runs", Watch()))
    thread.join()

    result = load_run(folder)
    assert stopped == FULL
    assert result.header["duration"] < 20
    assert len(result.calls) > 8
    assert set(result.calls.session[result.calls.session >= 0]) == set(result.sessions.session)
    first, last = capsys.readouterr().err.splitlines()
    assert "takes no records (File exists): they stay in memory" in first
    assert f"the whole run is in {folder}" in last


def test_records_that_find_no_place_at_all_are_counted(tmp_path: Path) -> None:
    store = open_store(tmp_path / "run", {"seed": 1})
    emit(store, 0, 10)
    store.flush()
    with no_file_above(6_000):
        emit(store, 10, 500)
        with pytest.raises(Failed, match=r"490 records are lost: neither .*run .* takes them"):
            finish(store, {"seed": 1, "duration": 2.0})

    os.close(store._held)  # what the system does when the process ends
    assert recover(tmp_path / "run") is True
    run = load_run(tmp_path / "run")
    assert run.calls.session.tolist() == list(range(10))
    assert run.header["unrecorded_calls"] == 490


def test_a_report_that_cannot_be_written_is_still_a_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = open_store(tmp_path / "run", {"seed": 1})
    emit(store, 0, 10)
    finish(store, {"seed": 1, "duration": 2.0})
    with no_file_above(2_000):
        page, summary = report(tmp_path / "run")

    assert page is None
    assert summary["run"]["calls"] == 10
    assert "takes no report (File too large); make room, then: agentload report" in capsys.readouterr().err


def test_a_folder_that_takes_nothing_is_bad_input(tmp_path: Path) -> None:
    with no_file_above(10), pytest.raises(BadInput, match="cannot hold run folders: File too large"):
        open_store(tmp_path / "run", {"seed": 1})


def test_a_report_says_how_many_calls_have_no_record(tmp_path: Path) -> None:
    store = open_store(tmp_path / "run", {"seed": 1})
    emit(store, 0, 10)
    store.flush()
    for _ in range(3):
        store.begin()  # in flight
    os.close(store._held)

    _, summary = report(tmp_path / "run")

    assert summary["run"]["calls_unrecorded"] == 3
    assert "3 calls were begun and have no record: their process was killed" in summary["verdict"]["notes"]
