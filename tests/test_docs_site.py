"""The documentation's site: its navigation has every page, whoever wrote it."""

import runpy
from pathlib import Path

HOOKS = Path(__file__).parent.parent / "docs" / "hooks"


def test_a_page_that_nobody_put_in_order_is_in_the_navigation() -> None:
    navigation = runpy.run_path(str(HOOKS / "pages.py"))["navigation"]

    nav = navigation(["new.md", "recipes/b.md", "index.md", "recipes/a.md", "specs.md"])

    assert nav == [
        "index.md",
        {"Concepts": ["specs.md"]},
        {"Recipes": ["recipes/a.md", "recipes/b.md"]},
        {"More": ["new.md"]},
    ]
