"""The gate: did a run keep its promises? Every objective of its spec, judged and said in a line.

A promise is kept only where its whole interval says so, and broken likewise; what lies between is undecided. So is one
that a run kept which is not trustworthy: it may not have carried the load. One that such a run broke is broken.
"""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import structs

from collectors import slo
from collectors.health import Verdict as Trust
from collectors.load import Columns, Run
from collectors.slo import Judged, Slo
from collectors.text import duration_text, number

Gate = dict[str, Any]
"""`verdict`, `reasons` for doubt, and `checks`, each with `group`, `name`, `verdict` and what is `said`."""

BROKEN, UNDECIDED = 1, 3
EXIT = {"pass": 0, "fail": BROKEN, "undecided": UNDECIDED}
"""What a command that judges ends with."""

LONGER = (2, 3, 5, 10, 20, 50, 100)
"""How many times as many items are tried, to say how long a run would have to be."""


def judge_run(run: Run, trust: Trust) -> Gate | None:
    """The objectives of the run's spec, judged; None where it has none."""
    table = (run.header.get("spec") or {}).get("slo")
    if not table:
        return None
    calls, sessions = slo.counted(run)
    checks = [
        check(tier.name, objective, calls, sessions, trust.trustworthy)
        for tier in slo.from_table(table)
        for objective in tier.slos
    ]
    reasons = [] if trust.trustworthy else [f"this run is not trustworthy: {reason}" for reason in trust.reasons]
    return {"verdict": slo.together(c["verdict"] for c in checks), "reasons": reasons, "checks": checks}


def check(tier: str, objective: Slo, calls: Columns, sessions: Columns, trustworthy: bool) -> dict[str, Any]:
    """One objective as a line of the gate, with its numbers."""
    row = {"group": tier, "name": str(objective)}
    try:
        judged = slo.judge(objective, calls, sessions)
    except ValueError as error:  # an older run that kept no gaps
        return row | {"verdict": "undecided", "said": str(error)}
    found = judged.verdict
    said = say(objective, judged)
    if found == "pass" and not trustworthy:
        found, said = "undecided", f"{said}, but the run is not trustworthy"
    return row | {"said": said} | structs.asdict(judged) | {"verdict": found}


def say(objective: Slo, judged: Judged) -> str:
    """What was measured, over how much, and what is needed."""
    if not judged.items:
        return "nothing that counts was measured" + (f"; {judged.cut:,} were cut off" if judged.cut else "")
    things = {"itl": "gaps", "session": "sessions"}.get(objective.metric, "calls")
    kept = "were answered" if objective.percentile is None else "kept it"
    said = (
        f"{shown(objective)(judged.value)}; {exact(judged.share)} of {judged.items:,} {things} {kept} "
        f"[{exact(judged.low)}, {exact(judged.high)}], {exact(judged.needed)} are needed"
    )
    if judged.part != "all":
        said += f", in the {judged.part}: queues were growing"
    return said + (f"; {longer(judged)}" if judged.verdict == "undecided" else "")


def longer(judged: Judged) -> str:
    """How many times as many items would tell, if they were as good as these."""
    for times in LONGER:
        low, high = slo.wilson(judged.share or 0.0, judged.effective * times)
        if slo.verdict_of(low, high, judged.needed) != "undecided":
            return f"too short to tell: a run about {times} times as long would"
    return "too close to the limit to tell"


def shown(objective: Slo) -> Callable[[float | None], str]:
    """How a value of that metric is written; an infinite one came from calls that were not answered."""
    if objective.percentile is None:
        return exact
    write = number if objective.at_least else duration_text
    unit = " tokens/s" if objective.at_least else ""
    return lambda value: "not answered" if value is None else f"{write(value)}{unit}"


def exact(value: float | None) -> str:
    """A share as a percentage that tells 99.96 % from 100 %; "–" for nothing."""
    return "–" if value is None else f"{100 * value:.4g}%"


def exit_code(gate: Mapping[str, Any] | None) -> int:
    """0 where every promise was kept or none was made, 1 where one was broken, 3 where that cannot be said."""
    return EXIT[gate["verdict"]] if gate else 0
