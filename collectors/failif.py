"""`compare --fail-if`: conditions on the change between two runs, and whether they can be shown to hold.

`ttft_p95 > +10%` holds where the whole 95 % interval of the change lies above 10 %: what may be noise fails nothing.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from collectors.compare import KINDS, signed
from collectors.gate import Gate
from collectors.slo import together


class Condition(Struct, frozen=True):
    """What must not be: the change of a figure beyond a limit."""

    text: str  # as it was written
    figure: str  # of KINDS
    above: bool  # else below
    limit: float  # of the change: a share of A's value, or for shares a difference of shares


def parse(text: str) -> Condition:
    """`FIGURE > +10%`, or `FIGURE < -5%`; for a figure that is a share itself, `> +1 points`. Raises ValueError, one
    line, otherwise."""
    match = re.fullmatch(r"\s*([^<>=\s]*)\s*([<>])=?\s*([+-]?)\s*(\d+(?:\.\d+)?|\.\d+)\s*(%|points?)\s*", text)
    if not match:
        raise ValueError(f"condition {text!r} must be FIGURE > +N% or FIGURE < -N%, as in 'ttft_p95 > +10%'")
    name, sign, minus, size, unit = match.groups()
    if name not in KINDS:
        near = difflib.get_close_matches(name, KINDS, n=1)
        meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(KINDS)}"
        raise ValueError(f"figure {name!r} does not exist; {meant}")
    if KINDS[name].relative != (unit == "%"):
        how = "in percent, as in '> +10%'" if KINDS[name].relative else "in points, as in '> +1 points'"
        raise ValueError(f"condition {text!r}: {name} is compared {how}")
    return Condition(text.strip(), name, sign == ">", float(size) / 100 * (-1 if minus == "-" else 1))


def judge(conditions: Iterable[Condition], found: Mapping[str, Any]) -> Gate:
    """The conditions on two runs (what `collectors.compare` found) as a gate: `fail` where one is shown to hold.

    Where one of the runs is not trustworthy, nothing is `pass`: it may not have carried its load.
    """
    rows = {row["name"]: row for row in found["figures"]}
    checks = [check(condition, rows.get(condition.figure)) for condition in conditions]
    if not all(found["trustworthy"]):
        checks = [c | {"verdict": "undecided"} if c["verdict"] == "pass" else c for c in checks]
    return {"verdict": together(c["verdict"] for c in checks), "reasons": found["warnings"], "checks": checks}


def check(condition: Condition, row: Mapping[str, Any] | None) -> dict[str, Any]:
    """One condition as a line of the gate."""
    line = {"group": "compare", "name": f"not {condition.text}"}
    if row is None:
        return line | {"verdict": "undecided", "said": f"the runs have no {condition.figure}"}
    if row["low"] is None:
        return line | {"verdict": "undecided", "said": row["sentence"]}
    edge = row["low"] if condition.above else row["high"]
    holds = edge > condition.limit if condition.above else edge < condition.limit
    beyond = row["change"] > condition.limit if condition.above else row["change"] < condition.limit
    said = row["sentence"]
    if beyond and not holds:
        limit = signed(condition.limit, KINDS[condition.figure].relative)
        said += f"; beyond {limit}, but not by more than chance explains"
    return line | {"verdict": "fail" if holds else "pass", "said": said}
