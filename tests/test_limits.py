"""The limit on open files is raised where it can be, and named where it cannot."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from agentload.limits import raise_file_limit

HOUSE = Path(__file__).parent.parent


def raised(soft: int, hard: int, wanted: int) -> list[str]:
    """What another process with those limits says, and the limits it then has. (A hard limit never comes back.)"""
    code = (
        "import resource; from agentload.limits import raise_file_limit\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        f"print(raise_file_limit({wanted})); print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HOUSE)
    return out.stdout.splitlines()


@pytest.mark.parametrize(("wanted", "limits"), [(200, "200 300"), (300, "300 300"), (100, "100 300"), (50, "100 300")])
def test_the_limit_is_raised_to_what_is_wanted_and_never_lowered(wanted: int, limits: str) -> None:
    assert raised(100, 300, wanted) == ["None", limits]


def test_a_limit_that_is_too_low_is_raised_as_far_as_it_goes_and_named() -> None:
    message, limits = raised(100, 300, 1_000)

    assert limits == "300 300"
    assert message.startswith("1000 open files are needed, one for each connection, but this process can have 300:")
    assert "hard limit is 300" in message
    assert "--workers" in message


def test_a_limit_that_is_high_enough_is_left_alone() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    assert raise_file_limit(16) is None
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
