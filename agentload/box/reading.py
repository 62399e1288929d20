"""The figures of a simulated cluster in virtual time, all replicas together, as if its page had been read."""

from collections.abc import Callable
from typing import Any

from agentload.box.cluster import Cluster
from collectors.records import Sample

PAGE = "the cluster in the box"
SERVER = "vllm"
"""Whose words and meanings its figures have."""
PERIOD = 1.0
"""Seconds between two readings, twice that after every `MANY` readings: what is kept does not grow with the hours."""
MANY = 3_600

COUNTERS = {
    "prefix_queries": "queries",
    "prefix_hits": "hits",
    "prompt_tokens": "prompt",
    "cached_tokens": "cached",
    "generation_tokens": "generated",
    "preemptions": "preemptions",
}
"""Words of `collectors.vocabulary`, and what `agentload.box.request.Counts` calls them."""


class Readings:
    """Reads a cluster again and again; `enter` has something done at an instant of virtual time, and `series` tells
    apart the parts of a simulation that is split."""

    def __init__(
        self,
        cluster: Cluster,
        emit: Callable[[Sample], None],
        enter: Callable[[float, Callable[[Any], None], Any], object],
        series: str = "",
    ) -> None:
        self.cluster, self.emit, self.enter, self.series = cluster, emit, enter, series
        self.count, self.period = 0, PERIOD
        enter(0.0, self.again, 0.0)

    def again(self, at: float) -> None:
        """Read now, and after a period once more."""
        self.now(at)
        self.count += 1
        if self.count % MANY == 0:
            self.period *= 2
        self.enter(at + self.period, self.again, at + self.period)

    def now(self, at: float) -> None:
        """What the cluster says at that instant."""
        cluster, counts = self.cluster, self.cluster.counts()
        said = {"running": cluster.running, "waiting": cluster.queued, "kv_usage": cluster.usage}
        said |= {word: getattr(counts, name) for word, name in COUNTERS.items()}
        self.emit(Sample(at, PAGE, "", "", "up", 1.0))
        for word, value in said.items():
            self.emit(Sample(at, PAGE, SERVER, self.series, word, float(value)))
