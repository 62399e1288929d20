"""What the documents show is true: their specs decode. Their commands have `tests/test_docs_commands.py`."""

import re
import shutil
import tomllib
from pathlib import Path

import pytest

from agentload import spec as specs

HOUSE = Path(__file__).parent.parent
PAGES = [HOUSE / "README.md", *sorted((HOUSE / "docs").rglob("*.md"))]
WHOLE = 'population = [{ archetype = "coder" }]\nprofile = { type = "held", agents = 3 }\nduration = 5\n'


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.mark.parametrize("text", [block for page in PAGES for block in blocks(page, "toml")])
def test_every_spec_in_the_documents_decodes(text: str) -> None:
    plain = tomllib.loads(text)
    for key, value in tomllib.loads(WHOLE).items():
        if not (key in ("profile", "duration") and "phases" in plain):
            plain.setdefault(key, value)
    if "archetypes" in plain:
        plain["population"] = [{"archetype": name} for name in plain["archetypes"]]

    specs.decode(plain)


def test_the_example_specs_decode() -> None:
    for file in (HOUSE / "examples").glob("*.toml"):
        specs.decode(specs.read(file), str(file))


@pytest.mark.parametrize("page", [HOUSE / "docs" / "python.md"])
def test_the_python_that_is_shown_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(HOUSE / "tests" / "data" / "run-schema-1", tmp_path / "runs" / "2026-11-23T14-02-11-coder")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}

    for block in blocks(page, "python"):
        lines = [line for line in block.splitlines() if "pandas" not in line and "polars" not in line]
        exec(compile("\n".join(lines), str(page), "exec"), names)  # noqa: S102  # our own page
