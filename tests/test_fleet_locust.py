"""A plain `locust -f locustfile.py`, with our users: Locust's statistics and our run folder say the same."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collectors.load import Run, load_run
from collectors.metrics import alive, peak, roots
from tests.fleet_made import HOUSE, MIX


def documents(text: str) -> Iterator[Any]:
    """The JSON documents in a text, whatever space there is between them or none: processes share a pipe."""
    decoder = json.JSONDecoder()
    while text := text.lstrip():
        document, end = decoder.raw_decode(text)
        text = text[end:]
        yield document


def locust(*arguments: str, folder: Path) -> tuple[Run, dict[str, int]]:
    """A run of the example; its records, and Locust's number of requests by name."""
    spec = folder / "spec.toml"
    spec.write_text("box = { speed = 5.0, sigma = 0.0 }\n" + MIX.read_text().replace("duration = 60", "duration = 3"))
    environment = os.environ | {"SPEC": str(spec), "OUT": str(folder / "runs"), "PYTHONPATH": str(HOUSE)}
    command = [sys.executable, "-m", "locust", "--headless", "--json", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False, cwd=HOUSE)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr, ended.stderr
    stats = max(documents(ended.stdout), key=len)  # workers print theirs, too, which are empty
    counts = {row["name"]: row["num_requests"] for row in stats}
    (made,) = (folder / "runs").iterdir()
    return load_run(made), counts


@pytest.mark.parametrize("processes", [[], ["--processes", "2"]])
def test_locusts_statistics_and_our_records_agree(processes: list[str], tmp_path: Path) -> None:
    run, counts = locust("-f", "examples/locustfile.py", "-u", "5", "-r", "5", "-t", "4s", *processes, folder=tmp_path)
    made = (run.calls.session >= 0) & (run.calls.status == "ok")

    assert made.sum() > 20
    assert sum(counts.values()) == made.sum()
    assert counts == {name: (run.calls.archetype[made] == name).sum() for name in counts}
    assert set(counts) - {"explorer"} == {"coder", "support", "chat"}  # coders may start explorers
    assert len(set(run.calls.worker[made].tolist())) == (2 if processes else 1)
    numbers = roots(run.sessions).session.tolist()
    assert len(set(numbers)) == len(numbers)
    assert set(run.calls.session[made].tolist()) <= set(numbers)
    assert peak(alive(roots(run.sessions))) == 5  # every user holds a slot: one session after the other
    starts, ends = np.sort(roots(run.sessions).start), np.sort(roots(run.sessions).end)
    assert np.median(starts[5:] - ends[:-5]) < 0.1  # and takes it again at once
    summary = json.loads(next((tmp_path / "runs").glob("*/summary.json")).read_text())
    assert summary["serving"]["calls_per_second"] > 0


def test_a_shape_has_as_many_users_as_the_population_and_ends_with_it(tmp_path: Path) -> None:
    run, counts = locust("-f", "examples/locustfile.py,examples/shape.py", folder=tmp_path)

    assert sum(counts.values()) > 20
    assert peak(alive(roots(run.sessions))) == 6
    assert 2.0 < run.header["duration"] < 6.0
