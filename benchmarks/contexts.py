"""Long conversations: what they do to the streams beside them, and whether their own TTFT stays true."""

import numpy as np
from numpy.typing import NDArray

from agentload.null import null_server
from benchmarks.command import fixed, run
from benchmarks.rows import Row

STEPS, GROWTH = 10, 50_000
"""A chain that reaches 500,000 tokens (about 2.5 MB of JSON)."""

SPEC = f"""
duration = 15
drain = 15
sessions = 100000

[profile]
type = "held"
agents = 250
stagger = 2

[[population]]
archetype = "long"
weight = 1

[[population]]
archetype = "fixed"
weight = 4

[archetypes.long]
base = "fixed"
task_tokens = {GROWTH}
growth_tokens = {GROWTH}
steps = {STEPS}
output_tokens = 32

[archetypes.fixed]
task_tokens = 100
output_tokens = 64
steps = 1
"""


def section() -> list[Row]:
    name = "long contexts"
    with null_server("--ttft", "0.2", "--itl", "0.02") as url:
        ran = run(url, spec=SPEC)
    lag = ran.calls.sent - ran.calls.due - ran.calls.connect
    short, long = (1e3 * float(np.percentile(lag[ran.calls.archetype == kind], 99)) for kind in ("fixed", "long"))
    longest = float(ran.calls.input_tokens.max())
    with null_server("--ttft", "0.02", "--itl", "0.02") as url:
        many = run(url, *fixed(16, 6, 16, prompt=43_000))
        truth = many.truth(url)
    recorded = many.answered.first - many.answered.sent
    true = truth[:, 1] - truth[:, 0]
    return [
        Row(name, "p99 send lag of 200 short agents beside 50 long ones", short, "ms", most=10),
        Row(name, "p99 send lag of the long ones", long, "ms"),
        Row(name, "longest conversation", longest, "tokens", least=450_000),
        Row(name, "peak memory of that run", ran.peak_bytes / 1e6, "MB"),
        Row(name, "TTFT p50 less the truth, 16 agents at 43K tokens", ms_apart(recorded, true, 50), "ms", most=2),
        Row(name, "TTFT p99 less the truth", ms_apart(recorded, true, 99), "ms"),
    ]


def ms_apart(recorded: NDArray[np.float64], true: NDArray[np.float64], q: float) -> float:
    return 1e3 * float(np.percentile(recorded, q) - np.percentile(true, q))
