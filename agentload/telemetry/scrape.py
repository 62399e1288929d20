"""The servers' own metrics, read once a second while a run goes on.

Every page has a thread, so that one that is slow or down holds up no other, and of a page only the lines are parsed
that `collectors.vocabulary` knows: a dozen of some thousand, well under a millisecond, since whatever Python does here
the event loop beside it waits for. A page larger than `LIMIT` is given up, and one that fails is asked less and less
often.
"""

import math
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from msgspec import structs

from agentload.errors import BadInput
from agentload.fetch import answered
from agentload.spec import Spec
from agents.endpoint import Endpoint
from agents.request import headers, trusted
from collectors.records import Sample
from collectors.vocabulary import KNOWN, WORDS, Figure, translate

PERIOD = 1.0
"""Seconds between two readings of a page."""
LIMIT = 16 << 20
"""Bytes of a page. vLLM's is 0.1 MB, the largest that were seen (gateways with a series per key) some MB."""
PATIENCE = 2.0
"""Seconds that a page may keep silent."""
LONGEST_PAUSE = 15.0
"""Seconds between two tries of a page that fails."""
SETTLING, LONGEST_SETTLING = 0.1, 5.0
"""Seconds between two readings after the run, and how long counters get to stand still: vLLM's preemptions came up to
two seconds late."""
PATHS = ("/metrics", "/prometheus/metrics")
"""Where an endpoint's own page is looked for; the second is TensorRT-LLM's."""
PLAIN = {"Accept": "text/plain;version=0.0.4", "User-Agent": "agentload"}


class Lines(Protocol):
    """An HTTP answer, as far as it is needed here."""

    status: int

    def read1(self, size: int) -> bytes: ...


class Page:
    """One page of metrics: where it is, and what became of reading it. BadInput where its ca_file cannot be read."""

    def __init__(self, urls: list[str], endpoint: Endpoint | None = None, *, certain: bool = True) -> None:
        self.urls = urls  # the first that has metrics is the one
        self.certain = certain  # that there is one: named by the user, or found
        self.headers, self.tls = dict(PLAIN), None
        if endpoint is not None:  # the key goes where it belongs, and nowhere else
            self.headers = headers(endpoint) | PLAIN
        if any(url.startswith("https://") for url in urls):
            try:
                self.tls = trusted(endpoint or Endpoint())
            except ValueError as error:
                raise BadInput(str(error)) from None
        self.tried = threading.Event()
        self.absent = False  # there is no such page
        self.since = math.inf  # when the run was over
        self.quiet = False  # two readings since then said the same, and that nothing is running
        self.read = self.failed = 0
        self.error = ""
        self.servers: set[str] = set()
        self._asked = -math.inf
        self._counters: dict[tuple[str, str, str], float] = {}

    @property
    def url(self) -> str:
        return self.urls[0]

    def ask(self) -> Iterator[Sample]:
        """Read the page once; what it says, and whether it could be read. Times are of `time.perf_counter`."""
        began = time.perf_counter()
        rows = self._rows()
        self.tried.set()
        if self.absent:
            return
        yield Sample(began, self.url, "", "", "up", float(rows is not None))
        yield Sample(began, self.url, "", "", "seconds", time.perf_counter() - began)
        self.read += rows is not None
        self.failed += rows is None
        for server, series, word, value in rows or []:
            self.servers.add(server)
            yield Sample(began, self.url, server, series, word, value)
        counters = {row[:3]: row[3] for row in rows or [] if WORDS[row[2]].counter and row[2] != "energy"}
        busy = any(row[3] for row in rows or [] if row[2] in ("running", "waiting"))
        self.quiet = rows is None or (self._asked >= self.since and counters == self._counters and not busy)
        self._asked, self._counters = began, counters

    def _rows(self) -> list[tuple[str, str, str, float]] | None:
        """What the page says; None where it could not be read."""
        while self.urls:
            try:
                with answered(self.url, self.headers, self.tls, PATIENCE) as answer:
                    lines, anything = read(answer)
                self.error = "" if anything else f"no metrics there (HTTP {answer.status})"
                if anything:
                    self.urls, self.certain = [self.url], True
                    self.tried.set()  # the figures are in hand: what they say may wait for the parser to be imported
                    return translate(parse(lines))
            except (OSError, ValueError) as error:
                self.error = str(error) or type(error).__name__
                return None
            if self.certain:
                return None
            if len(self.urls) == 1:
                break
            del self.urls[0]
        self.absent = True
        return None


def read(answer: Lines) -> tuple[list[bytes], bool]:
    """The lines of a page that are understood, and whether it is one of metrics at all. ValueError for one that is too
    large."""
    if not 200 <= answer.status < 300:
        return [], False
    known, end = [], time.perf_counter() + 2 * PATIENCE
    rest, size, typed = b"", 0, False
    while piece := answer.read1(1 << 16):
        size += len(piece)
        if size > LIMIT:
            raise ValueError(f"the page is larger than {LIMIT >> 20} MB")
        if time.perf_counter() > end:
            raise TimeoutError(f"the page took longer than {2 * PATIENCE:g} s")
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > 1 << 20:
            raise ValueError("a line is longer than 1 MB: not a page of metrics")
        for line in lines:
            if line.startswith(b"#"):
                typed = typed or line.startswith(b"# TYPE ")
            elif name_of(line) in NAMES:
                known.append(line)
    if name_of(rest) in NAMES:
        known.append(rest)
    return known, typed or bool(known)


NAMES = frozenset(name.encode() for name in KNOWN)


def name_of(line: bytes) -> bytes:
    """The metric's name, which ends at the labels or at the value."""
    return line.partition(b"{")[0].partition(b" ")[0]


def parse(lines: Iterable[bytes]) -> Iterator[Figure]:
    """Lines in Prometheus' text format, without those that say nothing (NaN). ValueError where one makes no sense."""
    from prometheus_client.parser import text_string_to_metric_families

    for family in text_string_to_metric_families(b"\n".join([*lines, b""]).decode(errors="replace")):
        for sample in family.samples:
            if math.isfinite(sample.value):
                yield Figure(sample.name, sample.labels, sample.value)


class Scraper:
    """Reads pages while a `with` block lasts. What is read before `begin` is kept until then."""

    def __init__(self, pages: list[Page]) -> None:
        self.pages = pages
        self._emit: Callable[[Sample], None] | None = None
        self._kept: list[Sample] = []
        self._epoch = time.perf_counter()
        self._lock = threading.Lock()
        self._hurry, self._over = threading.Event(), threading.Event()

    def __enter__(self) -> "Scraper":
        """Start reading, and wait a little until every page was tried: counters are then known from before the first
        call."""
        for page in self.pages:
            threading.Thread(target=self._watch, args=(page,), name="metrics", daemon=True).start()
        end = time.perf_counter() + PATIENCE
        for page in self.pages:
            page.tried.wait(max(0.0, end - time.perf_counter()))
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._emit = None
            self._over.set()
            self._hurry.set()

    def begin(self, emit: Callable[[Sample], None], epoch: float) -> None:
        """From now on hand samples to `emit`, from other threads, timed by a clock that is 0 at `epoch`."""
        with self._lock:
            self._emit, self._epoch = emit, epoch
            for sample in self._kept:
                emit(structs.replace(sample, time=sample.time - epoch))
            self._kept.clear()

    def settle(self) -> None:
        """Read more often until every page's counters stand still, for a few seconds at most. No sample follows."""
        end = time.perf_counter() + LONGEST_SETTLING
        for page in self.pages:
            page.quiet, page.since = page.absent or not page.read, time.perf_counter()
        self._hurry.set()
        while not all(page.quiet for page in self.pages) and time.perf_counter() < end:
            time.sleep(SETTLING / 4)
        self.__exit__()

    def describe(self) -> list[dict[str, Any]]:
        """The pages, for the run's header."""
        return [
            {"url": page.url, "servers": sorted(page.servers), "read": page.read, "failed": page.failed,
             "error": page.error}
            for page in self.pages if not page.absent
        ]  # fmt: skip

    def _watch(self, page: Page) -> None:
        pause = PERIOD
        while not self._over.is_set() and not page.absent:
            for sample in page.ask():
                self._take(sample)
            pause = PERIOD if page.error == "" else min(2 * pause, LONGEST_PAUSE)
            if self._hurry.is_set():
                self._over.wait(SETTLING)
            else:
                self._hurry.wait(self._until_next(pause))

    def _until_next(self, pause: float) -> float:
        """Seconds until the next whole second of the run clock that is about `pause` away."""
        now = time.perf_counter() - self._epoch
        return max(0.0, math.floor(now + pause + 0.05) - now)

    def _take(self, sample: Sample) -> None:
        with self._lock:
            if self._emit is not None:
                self._emit(structs.replace(sample, time=sample.time - self._epoch))
            elif not self._over.is_set():
                self._kept.append(sample)


def pages(spec: Spec) -> list[Page]:
    """The pages that a spec names, and those that its endpoints may have."""
    named, endpoint = spec.telemetry.metrics_urls, spec.endpoint
    homes = {urllib.parse.urlsplit(url)[:2] for url in spec.urls or [endpoint.url]}
    found = [Page([url], endpoint if urllib.parse.urlsplit(url)[:2] in homes else None) for url in named]
    for root in roots(spec) if spec.telemetry.scrape else ():
        candidates = [root + path for path in PATHS if root + path not in named]
        if len(candidates) == len(PATHS):  # else it is named already
            found.append(Page(candidates, endpoint, certain=False))
    return found


def roots(spec: Spec) -> dict[str, None]:
    """What comes before /v1 in the endpoints' URLs."""
    found: dict[str, None] = {}
    for url in spec.urls or [spec.endpoint.url]:
        parts = urllib.parse.urlsplit(url)
        if not (parts.query or parts.username or parts.password):  # Azure, and who needs a password: no such page
            found[f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/v1')}"] = None
    return found
