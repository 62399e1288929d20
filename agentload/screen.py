"""The run while it runs: a few running figures, and the view of them in the terminal."""

import array
import asyncio
import collections
import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from agentload.session import World
from agentload.spec import Limits
from agentload.terminal import harmless
from collectors.records import OURS, Call, Session, Tool
from collectors.sketch import Sketch

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

TICK = 0.05
"""Seconds between two looks at how late the event loop is."""
BATCH = 4_000
"""Values that a sketch takes at once. In a run each time costs about 130 us, for one value or for all."""
WINDOW = 10.0
"""Seconds that the view's rates and latencies look back."""


class Samples:
    """A sketch that is fed in batches, since one value alone costs as much as a hundred."""

    def __init__(self) -> None:
        self.sketch, self.batch, self.largest = Sketch(), array.array("d"), 0.0

    def add(self, value: float) -> None:
        self.batch.append(value)
        self.largest = max(self.largest, value)
        if len(self.batch) >= BATCH:
            self.drain()

    def extend(self, values: Sequence[float]) -> None:
        self.batch.extend(values)
        self.largest = max(self.largest, max(values))
        if len(self.batch) >= BATCH:
            self.drain()

    def summary(self) -> dict[str, float]:
        """Quantiles, mean and count, as the report has them."""
        quantiles = {f"p{round(100 * q)}": self.quantile(q) for q in (0.5, 0.9, 0.95, 0.99)}
        count = self.sketch.count
        return quantiles | {"mean": self.sketch.total / count if count else 0.0, "max": self.largest, "count": count}

    def drain(self) -> None:
        self.sketch.add(np.array(self.batch))
        del self.batch[:]

    def quantile(self, q: float) -> float:
        if self.batch:
            self.drain()
        return self.sketch.quantile(q)


class Watch:
    """Sees every record as it is made. Constant memory, however long the run."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.calls = self.failed = self.sessions = self.agents_done = self.tools = 0
        self.fresh = self.cached = self.output = self.reasoning = 0
        self.statuses: collections.Counter[str] = collections.Counter()
        self.recent: collections.deque[bool] = collections.deque(maxlen=100)
        self.send_lag, self.ttft, self.itl, self.loop_lag = Samples(), Samples(), Samples(), Samples()
        self.now = self.alive = self.in_flight = self.loop_lag_p99 = 0.0
        self.taps: list[Callable[[Call | Tool | Session], None]] = []  # who else is told of every record
        self.history: collections.deque[tuple[float, int, int, int, int]] = collections.deque(maxlen=64)

    @property
    def tokens(self) -> int:
        return self.fresh + self.cached + self.output

    def emit(self, record: Call | Tool | Session) -> None:
        """Count one record."""
        for tap in self.taps:
            tap(record)
        if isinstance(record, Call):
            self.calls += 1
            self.fresh += record.input_tokens - record.cached_tokens
            self.cached += record.cached_tokens
            self.output += record.output_tokens
            self.statuses[record.status] += 1
            self.failed += record.status != "ok"
            if record.status not in OURS:
                self.recent.append(record.status == "ok")
            self.send_lag.add(max(0.0, record.sent - record.due - record.connect - record.throttled))
            if record.first is not None:
                self.ttft.add(record.first - record.sent)
            if record.itl and record.status == "ok":
                self.itl.extend(record.itl)
        elif isinstance(record, Tool):
            self.tools += 1
        elif record.agent == "":
            self.sessions += 1

    def beyond(self, limits: Limits) -> str:
        """The name of the limit that is reached; "" where none is."""
        if limits.tokens is not None and self.tokens >= limits.tokens:
            return "max_tokens"
        prices = limits.prices
        if limits.cost is not None and prices and prices.cost(self.fresh, self.cached, self.output) >= limits.cost:
            return "max_cost"
        return "max_error_rate" if limits.error_rate is not None and self.error_rate() > limits.error_rate else ""

    def error_rate(self) -> float:
        """Share of the last 100 calls that failed, those that agents gave up on left out; 0 before there are 20."""
        return 1.0 - sum(self.recent) / len(self.recent) if len(self.recent) >= 20 else 0.0

    async def tick(self, world: World) -> None:
        """Measure how late the event loop is, and look at the world now and then."""
        due = world.clock.now()
        while True:
            due += TICK
            await asyncio.sleep(max(0.0, due - world.clock.now()))
            now = world.clock.now()
            lag = max(0.0, now - due)
            self.loop_lag.add(lag)
            due = max(due, now - TICK)
            self.now, self.alive, self.in_flight = now, world.alive, world.in_flight
            if not self.history or now - self.history[-1][0] >= 1.0:
                self.history.append((now, self.calls, self.fresh, self.cached, self.output))
                self.loop_lag_p99 = self.loop_lag.quantile(0.99)

    def health(self) -> dict[str, Any]:
        """Loop lag for the run's header, in seconds."""
        return {
            "loop_lag_p50": self.loop_lag.quantile(0.5),
            "loop_lag_p99": self.loop_lag.quantile(0.99),
            "loop_lag_max": self.loop_lag.largest,
        }

    def rates(self) -> tuple[float, float, float, float]:
        """Calls, fresh input, cached input and output tokens per second over the last `WINDOW` seconds."""
        last = (self.now, self.calls, self.fresh, self.cached, self.output)
        first = next((row for row in self.history if row[0] >= self.now - WINDOW), last)
        span = last[0] - first[0]
        if span <= 0:
            return 0.0, 0.0, 0.0, 0.0
        calls, fresh, cached, output = ((b - a) / span for a, b in zip(first[1:], last[1:], strict=True))
        return calls, fresh, cached, output


@contextlib.contextmanager
def shown(watch: Watch, title: str, duration: float | None, console: "Console | None") -> Iterator[None]:
    """Show the view while inside; nothing where there is no terminal."""
    if console is None or not console.is_terminal:
        yield
        return
    from rich.live import Live

    view = View(watch, title, duration)
    with Live(view, console=console, refresh_per_second=4, transient=True):
        yield


class View:
    """The picture of a `Watch`, drawn anew each time Rich asks."""

    def __init__(self, watch: Watch, title: str, duration: float | None) -> None:
        self.watch, self.title, self.duration = watch, title, duration

    def __rich__(self) -> "RenderableType":
        from rich.markup import escape
        from rich.panel import Panel
        from rich.table import Table

        w = self.watch
        calls, fresh, cached, output = w.rates()
        left = "" if self.duration is None else f"{max(0.0, self.duration - w.now):.0f} s left"
        table = Table.grid(padding=(0, 2))
        rows = [
            ("agents", f"{w.alive:.0f} alive", f"{w.in_flight:.0f} calls in flight", f"{w.sessions} sessions ended"),
            ("calls", f"{calls:.1f}/s", f"{w.calls} so far", f"{w.tools} tool calls"),
            ("tokens/s", f"{fresh:,.0f} fresh input", f"{cached:,.0f} cached input", f"{output:,.0f} output"),
            ("TTFT", f"p50 {milliseconds(w.ttft.quantile(0.5))}", f"p99 {milliseconds(w.ttft.quantile(0.99))}", ""),
            ("ITL", f"p50 {milliseconds(w.itl.quantile(0.5))}", f"p99 {milliseconds(w.itl.quantile(0.99))}", ""),
            ("send lag", f"p99 {milliseconds(w.send_lag.quantile(0.99))}", "", ""),
            ("errors", *errors(w)),
        ]
        for name, *cells in rows:
            table.add_row(f"[bold]{name}[/bold]", *cells)
        return Panel(
            table, title=f"agentload  {escape(harmless(self.title))}", subtitle=f"{w.now:.0f} s  {left}", expand=False
        )


def milliseconds(seconds: float) -> str:
    return "–" if math.isnan(seconds) else f"{1000 * seconds:,.1f} ms"


def errors(watch: Watch) -> tuple[str, str, str]:
    """How many calls failed, and of what mostly."""
    worst = [f"{n} {status}" for status, n in watch.statuses.most_common(3) if status != "ok"]
    return f"{watch.failed}", *[*worst, "", ""][:2]  # type: ignore[return-value]  # always two more
