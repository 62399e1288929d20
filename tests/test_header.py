"""run.json is what collectors.header says, field by field, and summary.json has the parts that it names."""

from pathlib import Path

import msgspec
import pytest

import agentload
from collectors.header import Header
from collectors.summary import PARTS

OLD = Path(__file__).parent / "data" / "run-schema-1" / "run.json"
SMALL = {
    "sessions": 3,
    "population": [{"archetype": "fixed"}],
    "profile": {"type": "held", "agents": 2},
    "box": {"speed": 20},
}


def test_a_header_of_the_first_schema_is_one() -> None:
    header = msgspec.json.decode(OLD.read_bytes(), type=Header)

    assert (header.schema, header.virtual, header.profile.agents) == (1, True, 4)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_writes_what_is_documented_and_nothing_else(workers: int, tmp_path: Path) -> None:
    run = agentload.run(SMALL, out=tmp_path, workers=workers)

    header = msgspec.json.decode((run.folder / "run.json").read_bytes(), type=Header)
    assert set(run.summary) == set(PARTS)
    assert header.duration is not None
    assert header.health is not None
    assert len(header.health.workers or {}) == workers


def test_so_does_a_simulation(tmp_path: Path) -> None:
    run = agentload.simulate({key: value for key, value in SMALL.items() if key != "box"}, out=tmp_path)

    assert msgspec.json.decode((run.folder / "run.json").read_bytes(), type=Header).virtual
