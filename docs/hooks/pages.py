"""The navigation of the documentation: the order below, and after it whatever other page lies in docs/.

A page that nobody put in order is found all the same: in its folder's section, or under "More". Its heading names it.
"""

from collections.abc import Iterable
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files

ORDER = {
    "": ["index.md", "quickstart.md", "report.md"],
    "Concepts": ["concepts.md", "agents.md", "specs.md", "box.md", "simulate.md", "limits.md"],
    "Recipes": [],
    "What it means": ["economics.md", "validation.md", "comparison.md"],
    "Joined to others": ["ci.md", "python.md", "metrics.md", "otel.md", "traces.md"],
    "Relied upon": ["security.md", "crashes.md", "soak.md"],
    "Reference": [],
}
"""Sections, and the pages of docs/ that they begin with; those of the folder of the same name follow."""

REST = "More"


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Lay the navigation out over the pages that there are."""
    config.nav = navigation([file.src_uri for file in files.documentation_pages()])


def navigation(pages: Iterable[str]) -> list[Any]:
    """Every page in one section, pages in `ORDER` first."""
    left = sorted(pages)
    nav: list[Any] = []
    for section, first in ORDER.items():
        inside = [page for page in first if page in left]
        inside += [page for page in left if section and page.startswith(f"{section.lower()}/")]
        left = [page for page in left if page not in inside]
        nav += [{section: inside}] if section and inside else inside
    return [*nav, {REST: left}] if left else nav
