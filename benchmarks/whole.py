"""What the whole `agentload run` process pays for a streamed token, and for a call whose tokens come at once.

Start-up and report are taken out: two runs of different length are compared, and only what the longer one cost and did
more counts. Chains, records and files are in it; the live view, which needs a terminal, is not.
"""

import statistics

from agentload.null import null_server
from benchmarks import floor
from benchmarks.command import fixed, run
from benchmarks.rows import Row

TOKENS = 64
FEW = 24
"""Agents whose tokens the sdk client can still take one by one, on one core."""
APART = 1 / 500
"""Seconds between the starts of two agents, as `--agents` has them."""


def slope(options: list[str], agents: int, client: str, lengths: tuple[float, float]) -> tuple[float, float]:
    """Seconds of CPU for a call more, and tokens of a call, between runs of those two lengths (seconds)."""
    with null_server(*options) as url:
        short, long = (run(url, *fixed(agents, length, TOKENS, client=client)) for length in lengths)
    calls = len(long.answered) - len(short.answered)
    return (long.cpu - short.cpu) / calls, long.tokens / len(long.calls)


def cost(options: list[str], agents: int, client: str, lengths: tuple[float, float], rounds: int) -> float:
    """The median of some slopes, in seconds of CPU for a call."""
    return statistics.median(slope(options, agents, client, lengths)[0] for _ in range(rounds))


def section(rounds: int = 2) -> list[Row]:
    name, spaced = "agentload run", ["--itl", "0.01"]
    bare = [statistics.median(floor.per_token(0.01, n, 10, TOKENS, APART) for _ in range(rounds)) for n in (100, FEW)]
    wire = cost(spaced, 100, "wire", (1, 5), rounds) / TOKENS
    both = [
        [slope(spaced, FEW, client, lengths)[0] / TOKENS for client, lengths in (("wire", (1, 17)), ("sdk", (1, 5)))]
        for _ in range(rounds + 1)  # in turn: what the machine does meanwhile, it does to both
    ]
    few, sdk = (statistics.median(costs) for costs in zip(*both, strict=True))
    call = cost(["--coalesced", "--ttft", "0.05"], 50, "wire", (1, 5), rounds)
    return [
        Row(name, "a protocol that only reads, CPU per token, 100 streams", bare[0] * 1e6, "µs"),
        Row(name, f"the same with {FEW} streams", bare[1] * 1e6, "µs"),
        Row(name, "CPU per token, one token per write, 100 agents", wire * 1e6, "µs", most=18),
        Row(name, f"the same with {FEW} agents", few * 1e6, "µs"),
        Row(name, f"the same with the sdk client, {FEW} agents", sdk * 1e6, "µs"),
        Row(name, "share of that with 100 agents", 100 * wire / sdk, "%", most=10),
        Row(name, f"share of that with {FEW} agents", 100 * few / sdk, "%", most=10),
        Row(name, f"CPU per call of {TOKENS} tokens in one write", call * 1e3, "ms", most=0.6),
    ]
