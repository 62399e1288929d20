"""A gate for the systems that build: JUnit XML, and Markdown to be a comment on a pull request.

The XML keeps to what Jenkins' schema allows (junit-10.xsd; pytest's xunit2 does, too). A promise that could not be
judged is `skipped`, a broken one a `failure`; what was said is both in the element's text and in its `message`, since
some readers show only one of the two.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any
from xml.etree import ElementTree

from collectors.gate import Gate
from collectors.text import MARKS, duration_text, number

ELEMENTS = {"fail": "failure", "undecided": "skipped"}
NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, escaped or not."""


def junit(suite: str, gate: Gate | None, seconds: float, started: str = "") -> bytes:
    """The gate as a JUnit XML file: one test case for each promise. `seconds` is how long the run took."""
    checks = gate["checks"] if gate else []
    counts = {
        "tests": str(len(checks)),
        "failures": str(sum(check["verdict"] == "fail" for check in checks)),
        "errors": "0",
        "time": f"{seconds:.3f}",
    }
    skipped = {"skipped": str(sum(check["verdict"] == "undecided" for check in checks))}
    root = ElementTree.Element("testsuites", {"name": "agentload", **counts})
    body = ElementTree.SubElement(root, "testsuite", {"name": plain(suite), **counts, **skipped})
    if started:
        body.set("timestamp", plain(started)[:19])
    for check in checks:
        case = {"classname": f"agentload.{plain(check['group'])}", "name": plain(check["name"]), "time": "0"}
        element = ElementTree.SubElement(body, "testcase", case)
        said = plain(check["said"])
        if check["verdict"] == "pass":
            ElementTree.SubElement(element, "system-out").text = said
        else:
            ElementTree.SubElement(element, ELEMENTS[check["verdict"]], {"message": said}).text = said
    if gate and gate["reasons"]:
        ElementTree.SubElement(body, "system-out").text = plain("\n".join(gate["reasons"]))
    ElementTree.indent(root)
    found: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return found + b"\n"


def plain(text: str) -> str:
    """The text without what XML cannot say."""
    return NO_XML.sub("?", text)


SYMBOLS = {"pass": "✅", "fail": "❌", "undecided": "❔"}


def markdown(title: str, gate: Gate | None, facts: Iterable[str], figures: Mapping[str, Any] | None = None) -> str:
    """The gate as Markdown: what came of it, each promise, the `facts` around it, and the latencies folded away."""
    lines = [f"### {SYMBOLS[gate['verdict']] + ' ' if gate else ''}{cell(title)}: {headline(gate)}", ""]
    if gate:
        lines += ["| | promise | what was seen |", "| --- | --- | --- |"]
        lines += [
            f"| {MARKS[check['verdict']]} | {cell(check['name'])} | {cell(check['said'])} |" for check in gate["checks"]
        ]
        lines += ["", *(f"- {cell(reason)}" for reason in gate["reasons"])]
    lines += [f"- {cell(fact)}" for fact in facts]
    return "\n".join([*lines, *(latencies(figures) if figures else [])]) + "\n"


def headline(gate: Gate | None) -> str:
    """What came of the promises, in five words."""
    if not gate:
        return "nothing was promised"
    verdicts = [check["verdict"] for check in gate["checks"]]
    counts = {word: verdicts.count(key) for key, word in (("fail", "broken"), ("undecided", "undecided"))}
    said = [f"{count} {word}" for word, count in counts.items() if count]
    return f"{', '.join(said)} of {len(verdicts)}" if said else f"all {len(verdicts)} kept"


def facts_of(summary: Mapping[str, Any]) -> list[str]:
    """What a run was, and whether it can be trusted, in a few lines."""
    run, endpoint, verdict, tokens = (summary[key] for key in ("run", "endpoint", "verdict", "tokens"))
    where = f"{endpoint['model'] or 'unknown model'} at {endpoint['url'] or 'unknown address'}"
    return [
        where + (" (a simulated cluster)" if endpoint["simulated"] else ""),
        f"{number(run['seconds'])} s, up to {run['agents_peak']:,} agents, {run['sessions']:,} sessions, "
        f"{run['calls']:,} calls, {number(tokens['input'])} tokens in and {number(tokens['output'])} out",
        "trustworthy" if verdict["trustworthy"] else "not trustworthy: " + "; ".join(verdict["reasons"]),
    ]


def latencies(serving: Mapping[str, Any]) -> list[str]:
    """The latencies of a run as a table that is folded away."""
    names = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2e": "E2E", "response_time": "response time"}
    rows = [
        f"| {title} | {' | '.join(duration_text(serving[key][p]) for p in ('p50', 'p95', 'p99'))} |"
        for key, title in names.items()
        if serving[key]["count"]
    ]
    head = ["| | p50 | p95 | p99 |", "| --- | --- | --- | --- |"]
    return ["", "<details><summary>Latencies</summary>", "", *head, *rows, "", "</details>"] if rows else []


def cell(text: str) -> str:
    """Recorded text as text: nothing in it is markup, ends a cell, or calls somebody by name."""
    flat = " ".join(plain(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\|*_`#\[\]~])", r"\\\1", flat).replace("@", "@\u200b")
