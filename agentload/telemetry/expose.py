"""The run's own metrics on a page for Prometheus, while it goes on.

Records come in batches and become sums; the page is written from those when it is asked for. The verdict is the
report's, by the same limits, on what is known so far.
"""

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from agentload.errors import BadInput
from agentload.prepare import Prepared
from agentload.screen import Watch
from agentload.telemetry.tap import Record
from collectors.health import LIMITS
from collectors.records import Call, Session, Tool

WAITS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
PACES = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5)
WHOLE = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
LAGS = (0.0005, 0.001, 0.002, 0.005, LIMITS.send_lag, 0.02, 0.05, 0.1, 0.5, 1)

HISTOGRAMS = {  # name: upper edges in seconds, what it is
    "ttft_seconds": (WAITS, "Time to first token of answered calls, from send."),
    "itl_seconds": (PACES, "Gaps between output pieces of answered calls."),
    "tpot_seconds": (PACES, "Time per output token after the first, one value for each answered call."),
    "e2e_seconds": (WHOLE, "From send to the end of the answer, of answered calls."),
    "send_lag_seconds": (LAGS, "How late calls were sent: the load's own fault, not the server's."),
}
COUNTERS = {  # name: labels, what it is
    "calls": (("archetype", "tenant", "status"), "Model calls that ended, attempts counted."),
    "tokens": (("account", "archetype", "tenant"), "Tokens of model calls, each in one account."),
    "tool_calls": (("archetype", "ok"), "Tool calls that ended."),
    "sessions": (("archetype", "tenant", "outcome"), "Sessions that ended."),
    "sub_agents": (("archetype", "tenant", "outcome"), "Sub-agents that ended."),
}


class Buckets:
    """How many values were at most each edge, how many there were, and their sum."""

    def __init__(self, edges: Iterable[float]) -> None:
        self.edges = np.array([*edges])
        self.counts: NDArray[np.int64] = np.zeros(len(self.edges) + 1, np.int64)
        self.total = 0.0

    def add(self, values: list[float]) -> None:
        where = np.searchsorted(self.edges, values, side="left")
        self.counts += np.bincount(where, minlength=len(self.counts))
        self.total += float(np.sum(values))

    def rows(self) -> list[tuple[str, float]]:
        below = np.cumsum(self.counts).tolist()
        return list(zip([*map(repr, self.edges.tolist()), "+Inf"], below, strict=True))

    def share_within(self, edge: float) -> float:
        """Share of values at most one of the edges; 1 of nothing."""
        whole = int(self.counts.sum())
        return float(self.counts[: int(np.searchsorted(self.edges, edge)) + 1].sum()) / whole if whole else 1.0


class Live(Collector):
    """The page: what `take` was given, and what the `watch` sees."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.info = {"version": metadata.version("agentload")}
        self._lock = threading.Lock()
        self._counts: dict[str, Counter[tuple[str, ...]]] = {name: Counter() for name in COUNTERS}
        self._times: dict[str, dict[str, Buckets]] = {name: {} for name in HISTOGRAMS}

    def about(self, prepared: Prepared) -> None:
        """Say what runs against what."""
        spec = prepared.spec
        self.info |= {"run_id": prepared.run_id, "mode": spec.mode, "model": spec.endpoint.model}

    def take(self, rows: list[Record]) -> None:
        """Count a batch of records."""
        times: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in HISTOGRAMS}
        with self._lock:
            for row in rows:
                match row:
                    case Call():
                        self._count(row)
                        measure(row, times)
                    case Tool():
                        self._counts["tool_calls"][row.archetype, str(row.ok).lower()] += 1
                    case Session():
                        kind = "sub_agents" if row.agent else "sessions"
                        self._counts[kind][row.archetype, row.tenant, row.outcome] += 1
            for name, by_archetype in times.items():
                for archetype, values in by_archetype.items():
                    found = self._times[name]
                    found.setdefault(archetype, Buckets(HISTOGRAMS[name][0])).add(values)

    def _count(self, call: Call) -> None:
        self._counts["calls"][call.archetype, call.tenant, call.status] += 1
        who, tokens = (call.archetype, call.tenant), self._counts["tokens"]
        tokens["input_fresh", *who] += call.input_tokens - call.cached_tokens
        tokens["input_cached", *who] += call.cached_tokens
        tokens["output_reasoning", *who] += call.reasoning_tokens
        tokens["output_arguments", *who] += call.argument_tokens
        tokens["output_visible", *who] += call.output_tokens - call.reasoning_tokens - call.argument_tokens

    def collect(self) -> Iterator[Metric]:
        """What Prometheus asks for."""
        watch = self.watch
        yield InfoMetricFamily("agentload_run", "What runs against what.", value=self.info)
        yield GaugeMetricFamily("agentload_agents", "Agents alive, sub-agents included.", value=watch.alive)
        yield GaugeMetricFamily("agentload_calls_in_flight", "Model calls in flight.", value=watch.in_flight)
        yield GaugeMetricFamily("agentload_run_seconds", "Seconds on the run clock.", value=watch.now)
        yield GaugeMetricFamily(
            "agentload_loop_lag_p99_seconds", "p99 of the event loop's lag so far.", value=watch.loop_lag_p99
        )
        with self._lock:
            yield GaugeMetricFamily("agentload_trustworthy", "1 while this machine is not the limit.", self._verdict())
            for name, (labels, text) in COUNTERS.items():
                counter = CounterMetricFamily(f"agentload_{name}", text, labels=labels)
                for key, value in self._counts[name].items():
                    counter.add_metric(key, value)
                yield counter
            for name, (_, text) in HISTOGRAMS.items():
                histogram = HistogramMetricFamily(f"agentload_{name}", text, labels=["archetype"])
                for archetype, buckets in self._times[name].items():
                    histogram.add_metric([archetype], buckets.rows(), buckets.total)
                yield histogram

    def _verdict(self) -> float:
        """Of the report's limits, those that can be known meanwhile: send lag and the event loop's, each at p99."""
        late = Buckets(LAGS)
        for buckets in self._times["send_lag_seconds"].values():
            late.counts += buckets.counts
        return float(late.share_within(LIMITS.send_lag) >= 0.99 and self.watch.loop_lag_p99 <= LIMITS.loop_lag)


def measure(call: Call, times: dict[str, dict[str, list[float]]]) -> None:
    """What a call adds to the histograms: latencies of answered ones, and the send lag of all."""
    who = call.archetype
    times["send_lag_seconds"][who].append(max(0.0, call.sent - call.due - call.connect - call.throttled))
    if call.status != "ok":
        return
    times["e2e_seconds"][who].append(call.end - call.sent)
    if call.first is None or call.last is None:
        return
    times["ttft_seconds"][who].append(call.first - call.sent)
    if call.output_tokens >= 2:
        times["tpot_seconds"][who].append((call.last - call.first) / (call.output_tokens - 1))
    times["itl_seconds"][who].extend(call.itl or ())


class Exposed:
    """The page served while a `with` block lasts. BadInput where the address cannot be had."""

    def __init__(self, live: Live, host: str, port: int) -> None:
        registry = CollectorRegistry()
        registry.register(live)
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except (OSError, OverflowError) as error:
            raise BadInput(f"metrics cannot be served at {host}:{port}: {error}; name another --metrics-port") from None
        self.url = f"http://{host}:{self._server.server_port}/metrics"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def exported() -> set[str]:
    """Names of all series that the page can have, as queries name them."""
    names: set[Any] = set()
    live = Live(Watch())
    for family in live.collect():
        if family.type == "histogram":
            names |= {f"{family.name}{end}" for end in ("_bucket", "_sum", "_count")}
        else:
            names.add(family.name + {"counter": "_total", "info": "_info"}.get(family.type, ""))
    return names
