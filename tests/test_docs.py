"""What the documents show is true: their specs decode. Their commands have `tests/test_docs_commands.py`."""

import re
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
