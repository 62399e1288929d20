"""Operating points made up for tests: plausible, and every field can be set."""

from typing import Any

from collectors.points import Point
from collectors.steady import Estimate


def made_point(value: float = 8.0, tokens: float = 1_000.0, **fields: Any) -> Point:
    """A point whose tokens are 70 % cached input, 20 % fresh input and 10 % output."""
    shares = {"input_fresh": 0.2, "input_cached": 0.7, "output_reasoning": 0.02, "output_visible": 0.05}
    plain: dict[str, Any] = {
        "series": "coder", "value": value, "agents": value, "runs": ("run",), "seconds": 600.0, "warmup": 0.0,
        "steady": True, "tokens": Estimate(tokens, 0.95 * tokens, 1.05 * tokens), "batches": (tokens,) * 20,
        "accounts": {**{name: share * tokens for name, share in shares.items()}, "output_arguments": 0.03 * tokens},
        "tokens_per_agent_hour": tokens * 3600 / value if value else 0.0, "calls": 500, "call_seconds": 2.0,
        "calls_per_second": tokens / 500, "in_flight": tokens / 250, "little_gap": 0.0, "ttft_p50": 0.1,
        "ttft_p95": 0.3,
        "speed": 50.0, "context": 20_000.0, "hit": 0.8, "resent": 0.9, "held": 1e5, "running": 5e4,
        "time_share": {"model": 0.5, "tool": 0.4, "wait": 0.0, "join": 0.0, "other": 0.1}, "jobs_per_hour": 60.0,
        "job_seconds": 480.0, "jobs": 10, "error_rate": 0.0, "wasted": 0.0, "attempts": 1.0, "agents_per_session": 1.0,
        "limited": (), "simulated": True,
    }  # fmt: skip
    return Point(**plain | fields)
