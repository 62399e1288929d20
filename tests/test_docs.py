"""What the documents show is true: their specs decode, their commands exist."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

from agentload import spec as specs
from agentload.cli import app

HOUSE = Path(__file__).parent.parent
PAGES = [HOUSE / "README.md", *sorted((HOUSE / "docs").glob("*.md"))]
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


COMMANDS = [line for page in PAGES for block in blocks(page, "console") for line in block.splitlines()]


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("$ agentload")])
def test_every_command_in_the_documents_has_the_options_it_shows(line: str) -> None:
    words = shlex.split(line.partition("#")[0].removeprefix("$ ").replace("…", "x"))
    command = get_command(app).commands[words[1]]  # type: ignore[attr-defined]  # the app is a group
    known = {option for parameter in command.params for option in parameter.opts}

    assert {word for word in words[2:] if word.startswith("-")} <= known


def test_the_example_specs_decode() -> None:
    for file in (HOUSE / "examples").glob("*.toml"):
        specs.decode(specs.read(file), str(file))
