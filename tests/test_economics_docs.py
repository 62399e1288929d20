"""docs/economics.md does what it says."""

import doctest
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs" / "economics.md"


def test_every_example_of_the_economics_page_prints_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = doctest.testfile(str(DOCS), module_relative=False, optionflags=doctest.IGNORE_EXCEPTION_DETAIL)

    assert found.attempted > 40
    assert found.failed == 0
