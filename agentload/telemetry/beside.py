"""Everything that goes on beside a run: pages that are read, and who is told of its records."""

from typing import TYPE_CHECKING, Any

from agentload.doors import open_door
from agentload.prepare import Prepared
from agentload.screen import Watch
from agentload.session import Clock
from agentload.spec import Spec
from agentload.telemetry.scrape import Scraper, pages
from agentload.telemetry.tap import Tap
from agentload.telemetry.traces import Traces, wanted
from agentload.terminal import warn
from collectors.store import Store

if TYPE_CHECKING:
    from agentload.telemetry.expose import Exposed, Live


class Beside:
    """What a spec's `telemetry` asks for, while a `with` block lasts. To be entered before anything is asked of the
    endpoint: its counters and the ledger then begin together, and an address that cannot be had stops the run."""

    def __init__(self, spec: Spec, watch: Watch) -> None:
        self.spec, self.watch = spec, watch
        self.scraper = Scraper(pages(spec))
        self.taps: list[Tap] = []
        self.live: Live | None = None
        self.exposed: Exposed | None = None
        self.traces: Traces | None = None
        self.sent: dict[str, Any] = {}

    def __enter__(self) -> "Beside":
        options, traced = self.spec.telemetry, wanted(self.spec)
        if options.metrics_port is not None:
            from agentload.telemetry.expose import Exposed, Live

            self.live = Live(self.watch)
            self.exposed = Exposed(self.live, options.metrics_host, options.metrics_port)
            warn(f"the run's metrics are at {self.exposed.url}")
            open_door("the metrics", options.metrics_host, "the page asks nobody for a password")
            self.taps.append(Tap(self.live.take, "exposed"))
        if traced:
            self.traces = Traces()
            self.taps.append(Tap(self.traces.take, "traces"))
        self.scraper.__enter__()
        return self

    def begin(self, prepared: Prepared, store: Store, clock: Clock) -> None:
        """The run has a clock: from now on records are passed on, and figures of servers recorded."""
        if self.live is not None:
            self.live.about(prepared)
        if self.traces is not None:
            self.traces.about(prepared, clock.anchor()["unix"])
        self.watch.taps += self.taps
        for tap in self.taps:
            tap.start()
        self.scraper.begin(store.emit, clock.epoch)

    def end(self) -> None:
        """The last record was made: wait, for some seconds at most, until servers' counters stand still and everybody
        has been told."""
        self.scraper.settle()
        self._close()

    def __exit__(self, *_: object) -> None:
        self.scraper.__exit__()
        self._close()
        if self.exposed is not None:
            self.exposed.close()

    def _close(self) -> None:
        """Hand on what is left, and see the exporting process off; once."""
        for tap in self.taps:
            tap.close()
        self.watch.taps.clear()
        if self.traces is not None:
            self.sent = self.traces.close() | {"dropped": sum(tap.dropped for tap in self.taps)}
            self.traces = None
            if lost := self.sent["failed"] + self.sent["dropped"] or self.sent.get("error"):
                why = f"{lost:,} spans were not taken" if isinstance(lost, int) else lost
                warn(f"{why}; the run itself is whole")

    def describe(self) -> dict[str, Any]:
        """What came of it, for the run's header."""
        return {"pages": self.scraper.describe()} | ({"otlp": self.sent} if self.sent else {})
