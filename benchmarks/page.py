"""A page of docs/ that is made section by section: what is not made now stays as it was."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """A table in Markdown."""
    lines = [list(map(str, head)), *(list(map(str, row)) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def renew(path: Path, head: str, sections: Mapping[str, str], order: Iterable[str]) -> None:
    """Write the page: `head`, then the sections (which begin with `## ` and their heading) in the order of headings."""
    old = re.split(r"(?m)^(?=## )", path.read_text())[1:] if path.exists() else []
    known = {heading(section): section for section in old} | dict(sections)
    path.write_text(
        "\n\n".join(part.strip() for part in (head, *(known[name] for name in order if name in known))) + "\n"
    )


def heading(section: str) -> str:
    return section.split("\n", 1)[0].removeprefix("## ").strip()
