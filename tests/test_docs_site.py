"""The documentation's site: every page in its navigation, and a reference that says what the code says."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from agentload.cli import app
from agentload.spec import Spec
from collectors.load import TABLES

HOUSE = Path(__file__).parent.parent
HOOKS = HOUSE / "docs" / "hooks"


def test_a_page_that_nobody_put_in_order_is_in_the_navigation() -> None:
    navigation = runpy.run_path(str(HOOKS / "pages.py"))["navigation"]

    nav = navigation(["new.md", "recipes/b.md", "index.md", "recipes/a.md", "specs.md"])

    assert nav == [
        "index.md",
        {"Concepts": ["specs.md"]},
        {"Recipes": ["recipes/a.md", "recipes/b.md"]},
        {"More": ["new.md"]},
    ]


@pytest.fixture(scope="module")
def reference() -> dict[str, str]:
    """The generated pages, as Markdown."""
    found: dict[str, Any] = runpy.run_path(str(HOOKS / "reference.py"))
    return {name: page() for name, page in found["PAGES"].items()}


def test_the_reference_has_every_command_and_every_option(reference: dict[str, str]) -> None:
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]  # the app is a group
        assert re.search(rf"^## {name}\b", reference["commands"], re.MULTILINE)
        for option in [opt for parameter in command.params for opt in parameter.opts if opt.startswith("--")]:
            assert f"`{option}`" in reference["commands"], option


def test_the_reference_has_every_field_with_its_limits_default_and_comment(reference: dict[str, str]) -> None:
    rows = reference["spec"].splitlines()

    assert all(any(row.startswith(f"| `{name}` |") for row in rows) for name in Spec.__struct_fields__)
    assert "| `seed` | whole number ≥ 0 | `0` |" in reference["spec"]
    assert "| `drain` | number ≥ 0 | `30` | how long running sessions may go on after that |" in rows
    assert '| `mode` | `"live"` or `"sized"` | `"sized"` |' in reference["spec"]
    assert "| `profile` | a [load profile](#load-profiles)" in reference["spec"]
    assert 'type = "hawkes"' in reference["spec"]


def test_the_reference_has_every_column_and_every_metric_with_its_formula(reference: dict[str, str]) -> None:
    for record in TABLES.values():
        assert all(f"| `{name}` |" in reference["records"] for name in record.__struct_fields__)
    assert (
        "| `first` | double, may be null | first output token: text, reasoning or tool call, never the role chunk |"
        in (reference["records"])
    )
    assert "def ttft(calls: Columns) -> Array:\n    return calls.first - calls.sent\n" in reference["metrics"]


def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]

    built = subprocess.run(
        command, cwd=HOUSE, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )

    assert (built.returncode, built.stdout, built.stderr) == (0, "", "")
    for page in tmp_path.rglob("*.html"):
        fetched = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(https?:[^"]*)"', page.read_text())
        assert fetched == [], page.name
