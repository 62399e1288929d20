"""Is the cluster in the box to be believed? Writes docs/validation.md and its charts from measurements made now.

    python -m benchmarks.validation                       # all of it; wants a quiet machine for the last two sections
    python -m benchmarks.validation --only anchors cliff  # these sections; the others stay as they are

`steady` and `bursts` compare `run` with `simulate` and take real time, 40 s for each seed of each load and 15 s more
for what still runs; everything else is virtual and takes CPU time only, two minutes of it.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import cliff, heldout, silicon
from benchmarks.cliff import virtual
from benchmarks.page import DOCS, heading, renew, table
from collectors.load import Run, load_run

SMALL = {"scale": 0.25}
FULL = SMALL | {"box": {"kv_tokens": 60_000}}
STEADY: dict[str, dict[str, Any]] = {
    "light": SMALL | {"profile": {"type": "held", "agents": 8, "stagger": 8.0}},
    "busy": SMALL | {"profile": {"type": "held", "agents": 32, "stagger": 8.0}},
    "open loop": SMALL | {"profile": {"type": "poisson", "rate": 1.0}},
    "full cache": FULL | {"profile": {"type": "held", "agents": 16, "stagger": 8.0}},
}
BURSTS: dict[str, dict[str, Any]] = {
    "busy, all at once": SMALL | {"profile": {"type": "held", "agents": 32}},
    "full cache, all at once": FULL | {"profile": {"type": "held", "agents": 16}},
}
MIX = [{"archetype": "coder", "weight": 2}, {"archetype": "support"}, {"archetype": "chat"}]
SHORT = {"coder": {"steps": {"type": "lognormal", "median": 8, "sigma": 0.5, "low": 1, "high": 30}}}
LIMITS = {
    "calls": 0.03, "throughput": 0.03, "TTFT p50": 0.05, "TTFT p99": 0.15, "session p50": 0.05, "session p99": 0.15,
}  # fmt: skip
"""Shares by which `simulate` may be off; of the hit rate it is a point."""


def steady(seconds: float, seeds: int) -> str:
    said, broken = compare(STEADY, seconds, seeds)
    plain = STEADY["full cache"]
    noisy = [plain | {"box": plain["box"] | {"sigma": sigma}} for sigma in (0.05, 0.03)]
    one, two = (figures([virtual(spec(load, seed, seconds)) for seed in range(seeds)]) for load in noisy)
    apart = {name: two[name] / one[name] - 1 for name in ("throughput", "TTFT p50", "session p50")}
    chaos = ", ".join(f"{name} {error:+.1%}" for name, error in apart.items())
    chaos += f", hit rate {100 * (two['hit rate'] - one['hit rate']):+.1f} points"
    return f"""## Real time against virtual time

The same specs, `agentload run` against a served box and `agentload simulate`, {seeds} runs of {seconds:g} s each.
Limits: throughput 3 %, TTFT and session latency 5 % at the median and 15 % at p99, hit rate one point.

{verdict(broken)}

What differs:

- A real run carries its machine: the loopback, the client and the server's write lag add one to four milliseconds to
  each call, on a machine shared with others more. Of a TTFT of 40 to 60 ms that is 2–7 %, always in the same direction.
- A moment's difference decides which conversation a full cache forgets next. A prompt of 54,000 tokens that is found or
  not is 1.3 s of prefill for everybody in the batch, and the p99 of a few hundred calls is a handful of calls: one such
  event can double it. How much that is shows without any real run: of the load "full cache", simulations that differ
  in nothing but the noise of steps (σ 0.05 and 0.03, the same mean) differ by {chaos}.
- The noise of steps (σ = 0.05) is another draw as soon as one call is a moment later.

{said}
"""


def bursts(seconds: float, seeds: int) -> str:
    said, broken = compare(BURSTS, seconds, seeds)
    return f"""## All agents at once

The same comparison where no stagger spreads the first calls. In such a burst a real client does not send in the order
of the agents: the text of a long prompt takes a moment to make and goes out after the short ones. Virtual time does
the same (of calls made in one instant the short ones leave first); before it did, TTFT p99 was 57 % too high in one of
these runs.

{verdict(broken)}

{said}
"""


def verdict(broken: list[str]) -> str:
    return "All are within their limits." if not broken else f"**Outside their limits**: {'; '.join(broken)}."


def spec(load: dict[str, Any], seed: int, seconds: float) -> dict[str, Any]:
    plain = {"salt": 1, "duration": seconds, "drain": 15.0, "longest_wait": 3.0, "population": MIX, "archetypes": SHORT}
    return plain | load | {"seed": seed}


def compare(loads: dict[str, dict[str, Any]], seconds: float, seeds: int) -> tuple[str, list[str]]:
    """A table of run and simulation with all calls of all seeds together, and what in it is outside its limit."""
    rows, broken, differing, busiest = [], [], 0, 0.0
    for name, load in loads.items():
        pairs = []
        for seed in range(seeds):
            busiest = max(busiest, os.getloadavg()[0])
            plain = spec(load, seed, seconds)
            pairs.append((really(plain), virtual(plain)))
            print(f"  {name}, seed {seed}", file=sys.stderr, flush=True)
        differing += sum(unlike(*pair) for pair in pairs)
        real, again = (figures([pair[i] for pair in pairs]) for i in range(2))
        for figure, value in real.items():
            points = figure == "hit rate"
            error = again[figure] - value if points else again[figure] / value - 1
            held = abs(error) <= LIMITS.get(figure, 0.01)
            said = f"{100 * error:+.2f} points" if points else f"{error:+.1%}"
            rows.append((name, figure, f"{value:.4g}", f"{again[figure]:.4g}", said, "yes" if held else "**no**"))
            if not held:
                broken.append(f"{name}: {figure} by {said}")
    made = table(("load", "figure", "run", "simulate", "difference", "within"), rows)
    machine = f"{os.cpu_count()} cores, whose load was {busiest:.1f} at most before a run"
    return f"{made}\n\nOf the calls made in both, {differing} differ in their sizes. Made on {machine}.", broken


def really(plain: dict[str, Any]) -> Run:
    """A run of that spec against a box that is started for it."""
    import tomli_w

    with tempfile.TemporaryDirectory() as out:
        file = Path(out) / "spec.toml"
        file.write_text(tomli_w.dumps(plain))
        command = [sys.executable, "-m", "agentload", "run", str(file), "-q", "--out", out]
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
        return load_run(Path(ended.stdout.strip().splitlines()[-1]).parent)


def unlike(real: Run, again: Run) -> int:
    """Calls made in both whose sizes differ; none, if both ran the same program."""
    sizes = []
    for run in (real, again):
        c = run.calls
        ok = (c.session >= 0) & (c.status == "ok")
        columns = (c.session, c.agent, c.step, c.input_tokens, c.output_tokens)
        rows = zip(*(column[ok].tolist() for column in columns), strict=True)
        sizes.append({row[:3]: row[3:] for row in rows})
    return sum(sizes[0][call] != sizes[1][call] for call in sizes[0].keys() & sizes[1].keys())


def figures(runs: list[Run]) -> dict[str, float]:
    """What is compared, over all calls and sessions of some runs."""
    ttft, length, cached, inputs, output, ended = [], [], 0, 0, 0, 0.0
    for run in runs:
        c, s = run.calls, run.sessions
        ok = (c.session >= 0) & (c.status == "ok")
        done = (s.agent == "") & (s.outcome == "done")
        ttft += (c.first - c.sent)[ok].tolist()
        length += (s.end - s.start)[done].tolist()
        cached += int(c.cached_tokens[ok].sum())
        inputs += int(c.input_tokens[ok].sum())
        output += int(c.output_tokens[ok].sum())
        ended += float(c.end[ok].max())
    return {
        "calls": len(ttft),
        "throughput": output / ended,
        "TTFT p50": float(np.quantile(ttft, 0.5)),
        "TTFT p99": float(np.quantile(ttft, 0.99)),
        "session p50": float(np.quantile(length, 0.5)),
        "session p99": float(np.quantile(length, 0.99)),
        "hit rate": cached / inputs,
    }


ORDER = (
    "Against measured silicon", "Rows that the fit did not see", "Many steps at once", "The eviction cliff",
    "A preemption storm", "Real time against virtual time", "All agents at once",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=40.0, help="of each real run")
    parser.add_argument("--seeds", type=int, default=3, help="real runs of each load")
    parser.add_argument("--only", nargs="+", default=[], metavar="SECTION", help="make these sections only")
    given = parser.parse_args()
    parts: dict[str, Callable[[], str]] = {
        "anchors": silicon.anchors, "heldout": heldout.heldout, "stepping": silicon.stepping, "cliff": cliff.cliff,
        "storm": silicon.storm,
        "steady": lambda: steady(given.seconds, given.seeds), "bursts": lambda: bursts(given.seconds, given.seeds),
    }  # fmt: skip
    unknown = set(given.only) - set(parts)
    if unknown:
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    head = "# Is the cluster in the box to be believed?\n\nMade by `python -m benchmarks.validation`; do not edit."
    for name in given.only or parts:
        began = time.perf_counter()
        section = parts[name]()
        renew(DOCS / "validation.md", head, {heading(section): section}, ORDER)
        print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
