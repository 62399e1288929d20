"""What is judged, and told to the systems that build: JUnit XML and Markdown of a run, and of two."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from agentload.errors import BadInput
from agentload.terminal import say


class Files(NamedTuple):
    """Where a run's verdict is written beside its folder, for the systems that build. BadInput where it cannot be."""

    junit: Path | None = None
    markdown: Path | None = None

    def check(self, judged: bool) -> None:
        """`judged`: whether there is anything to judge. JUnit XML of nothing would pass for ever."""
        if self.junit is not None and not judged:
            raise BadInput(f"--junit {str(self.junit)!r} has nothing to say: there is no promise or condition to judge")
        for name, path in self._asdict().items():
            if path is not None and (path.is_dir() or not os.access(path.parent, os.W_OK)):
                raise BadInput(f"--{name} {str(path)!r} cannot be written; name a file in a folder that is there")


NO_FILES = Files()


def write_files(files: Files, name: str, summary: dict[str, Any]) -> None:
    """The verdict as JUnit XML and as Markdown, where asked for."""
    from collectors import ci

    gate, run = summary["slo"], summary["run"]
    if files.junit is not None:
        files.junit.write_bytes(ci.junit(name, gate, run["seconds"], run["started"] or ""))
    if files.markdown is not None:
        files.markdown.write_text(ci.markdown(f"agentload {name}", gate, ci.facts_of(summary), summary["serving"]))


def compare(a: Path, b: Path, fail_if: list[str], *, as_json: bool, files: Files = NO_FILES) -> int:
    """Print what can be said of two runs, or of two capacity results, and judge it; return the exit code."""
    from collectors import failif
    from collectors.compare import compare as compare_folders
    from collectors.compare import to_text
    from collectors.gate import exit_code
    from collectors.text import gate_lines

    files.check(bool(fail_if))
    try:
        conditions = [failif.parse(text) for text in fail_if]
        found = compare_folders(a, b)
        if conditions and found["kind"] != "runs":
            raise ValueError("--fail-if judges two runs; of capacity results, look at the intervals of their limits")
    except (FileNotFoundError, ValueError) as error:
        raise BadInput(str(error)) from None
    gate = failif.judge(conditions, found) if conditions else None
    write_comparison(files, found, gate)
    text = "\n".join([to_text(found), "", *gate_lines(gate)]).rstrip()
    say(json.dumps(found | {"gate": gate}, indent=2) if as_json else text)
    return exit_code(gate)


def write_comparison(files: Files, found: dict[str, Any], gate: dict[str, Any] | None) -> None:
    """What a comparison came to, as JUnit XML and as Markdown, where asked for."""
    from collectors import ci

    if files.junit is not None:
        files.junit.write_bytes(ci.junit(f"{found['a']} and {found['b']}", gate, 0.0))
    if files.markdown is not None:
        facts = [f"A is {found['a']}, B is {found['b']}", *found["warnings"]]
        facts += [row["sentence"] for row in found["figures"] if row["verdict"] in ("up", "down")] + found["notes"]
        files.markdown.write_text(ci.markdown("agentload compare", gate, facts))
