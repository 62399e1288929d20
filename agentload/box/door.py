"""What happens to a request before it reaches a replica: limits that turn it away, and faults made on purpose."""

import math

from msgspec import Struct

from agentload.box.options import Faults, Quota
from agentload.box.protocol import Refused

MINUTE = 60.0


class Bucket:
    """A limit per minute that fills evenly: full at first, and never more than that."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.left = float(limit)
        self._at = 0.0

    def fill(self, now: float) -> None:
        self.left = min(float(self.limit), self.left + (now - self._at) * self.limit / MINUTE)
        self._at = now

    def wait(self, amount: float) -> float:
        """Seconds until there is that much (or all there can be); 0 when there is."""
        return max(0.0, min(amount, self.limit) - self.left) * MINUTE / self.limit

    @property
    def reset(self) -> float:
        """Seconds until it is full."""
        return (self.limit - self.left) * MINUTE / self.limit


class Pass(Struct, frozen=True):
    """A request let in: the headers that say what is left of its limits, and the fault it will meet ("" for none)."""

    headers: dict[str, str]
    fault: str = ""


class Door:
    """Quotas of every API key, the limit on waiting requests, and which requests go wrong. Time is the cluster's."""

    def __init__(self, quota: Quota, queued: int | None, faults: Faults, seed: int) -> None:
        self.quota, self.queued, self.faults = quota, queued, faults
        self.crowded = self.limited = 0  # requests turned away, with 503 and with 429
        self._seed = seed & (2**64 - 1)
        self._number = 0
        self._buckets: dict[str, dict[str, Bucket]] = {}

    def enter(self, key: str, tokens: int, waiting: int, now: float) -> Pass:
        """Let a request of so many tokens in, or raise Refused (429 over a quota, 503 when too many wait)."""
        if self.queued is not None and waiting >= self.queued:
            self.crowded += 1
            raise Refused(503, f"{waiting} requests wait already; try again later", "ServiceUnavailableError")
        headers = self._charge(key, tokens, now)
        self._number += 1
        fault = self._fault(key)
        if fault == "error":
            raise Refused(500, "a fault made on purpose", "InternalServerError")
        return Pass(headers, fault)

    def _charge(self, key: str, tokens: int, now: float) -> dict[str, str]:
        limits = {"requests": self.quota.requests, "tokens": self.quota.tokens}
        buckets = self._buckets.get(key)
        if buckets is None:
            buckets = self._buckets[key] = {name: Bucket(limit) for name, limit in limits.items() if limit is not None}
        if not buckets:
            return {}
        wants = {"requests": 1, "tokens": tokens}
        for bucket in buckets.values():
            bucket.fill(now)
        short = {name: bucket.wait(wants[name]) for name, bucket in buckets.items()}
        name = max(short, key=lambda name: short[name])
        if short[name] > 0:
            self.limited += 1
            retry = {"Retry-After": str(math.ceil(short[name])), "retry-after-ms": str(math.ceil(1e3 * short[name]))}
            limit = buckets[name].limit
            raise Refused(
                429, f"Rate limit reached: {limit} {name} per min. Please try again in {short[name]:.3f}s.",
                "rate_limit_exceeded", headers=left(buckets) | retry,
            )  # fmt: skip
        for name, bucket in buckets.items():
            bucket.left -= min(wants[name], bucket.limit)
        return left(buckets)

    def _fault(self, key: str) -> str:
        faults = self.faults
        if faults.key and key != faults.key:
            return ""
        share = (hash((self._seed, self._number, 1)) & (2**53 - 1)) / 2**53
        for name in ("error", "reset", "stall", "slow", "broken"):
            share -= getattr(faults, name)
            if share < 0:
                return name
        return ""


def left(buckets: dict[str, Bucket]) -> dict[str, str]:
    """OpenAI's headers: limits, what is left of them, and when they are whole again."""
    headers = {}
    for name, bucket in buckets.items():
        headers[f"x-ratelimit-limit-{name}"] = str(bucket.limit)
        headers[f"x-ratelimit-remaining-{name}"] = str(int(max(0.0, bucket.left)))
        headers[f"x-ratelimit-reset-{name}"] = duration(bucket.reset)
    return headers


def duration(seconds: float) -> str:
    """As OpenAI writes it: 850ms, 1s, 6m0s."""
    if seconds < 1:
        return f"{math.ceil(1e3 * seconds)}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
