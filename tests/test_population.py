"""Populations that grow and shrink while a run goes on, against the box."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from test_run import QUICK, run

from agentload.box.serve import BoxProcess

STEPS = """
duration = 2
drain = 1
population = [{{ archetype = "fixed" }}]
profile = {{ type = "steps", levels = [6, 2], each = 1.0 }}
leaving = "{leaving}"
begin = "{begin}"
[archetypes.fixed]
steps = 100
tools = []
output_tokens = 60
task_tokens = 100
growth_tokens = 80
"""


@pytest.fixture(scope="module")
def box() -> Iterator[str]:
    with BoxProcess(QUICK) as url:
        yield url


@pytest.mark.parametrize(("leaving", "most"), [("cancel", 2), ("finish", 6)])
def test_agents_that_leave_finish_their_session_or_are_cancelled(
    box: str, tmp_path: Path, leaving: str, most: int
) -> None:
    spec = tmp_path / "s.toml"
    spec.write_text(STEPS.format(leaving=leaving, begin="fresh"))
    result = run(str(spec), "--url", box, out=tmp_path / "runs")
    rows = result.sessions

    second_half = ((rows.start < 1.5) & (rows.end > 1.5)).sum()
    assert second_half == most
    assert (rows.outcome == "cancelled").sum() == 6 - most
    cut = result.calls.status == "cancelled"
    assert np.abs(result.calls.end[cut & (result.calls.end < 1.5)] - 1.0).max(initial=0) < 0.2


def test_agents_that_begin_mid_session_do_not_march_in_phase(box: str, tmp_path: Path) -> None:
    spec = tmp_path / "s.toml"
    spec.write_text(STEPS.format(leaving="finish", begin="mid-session"))
    calls = run(str(spec), "--url", box, out=tmp_path / "runs").calls
    first = (calls.session >= 0) & (calls.session < 6) & (calls.step == 0)

    assert len(set(calls.input_tokens[first].tolist())) == first.sum() == 6
    assert np.ptp(calls.input_tokens[first]) > 1_000
