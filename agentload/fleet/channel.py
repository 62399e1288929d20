"""What travels between a master and its workers over Locust's channel, and how nothing of it is lost or doubled.

A worker numbers its batches and keeps each until it is acknowledged; one that is not is sent again. The master takes
each number once. Clocks are compared by round trips, as NTP does.
"""

import time
import zlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Struct

from agentload.realtime import Share
from agentload.screen import Samples
from collectors.records import Call, Session, Tool

if TYPE_CHECKING:
    from locust.rpc import Message
    from locust.runners import DistributedRunner

    from agentload.fleet.hub import Mailbox

HELLO, JOB, READY, PING, PONG = (
    "agentload-hello",
    "agentload-job",
    "agentload-ready",
    "agentload-ping",
    "agentload-pong",
)
BEGIN, TAKE, BATCH, ACK, STOP = (
    "agentload-begin",
    "agentload-take",
    "agentload-batch",
    "agentload-ack",
    "agentload-stop",
)

MAX_BATCH = 1 << 30
"""Bytes of a batch, unpacked."""
SHIP = 0.5
"""Seconds between two batches of a worker."""
RESEND = 2.0
"""Seconds after which a batch that was not acknowledged is sent again."""
WORKER_PATIENCE = 5.0
"""Seconds of silence after which a worker takes its master for gone, and starts no more sessions."""
MASTER_PATIENCE = 10.0
"""Seconds of silence after which a master takes a worker for lost and deals its share anew. The longer of the two, so
that nobody takes over sessions from a worker that still starts them."""


def listen(
    runner: "DistributedRunner", mailbox: "Mailbox", listeners: Mapping[str, Callable[["Message", float], None]]
) -> None:
    """Have messages put into the mailbox, with the instant at which each came."""
    for name, listener in listeners.items():

        def arrived(
            environment: object, msg: "Message", listener: Callable[["Message", float], None] = listener
        ) -> None:
            mailbox.put(listener, msg, time.perf_counter())

        runner.custom_messages.pop(name, None)  # of an earlier run in this process
        runner.register_message(name, arrived)


class Dealt(Struct, frozen=True):
    """Every `of`-th seat or arrival from `index` on, without the sessions that a lost worker had begun."""

    index: int
    of: int
    begun: tuple[int, ...] = ()

    @property
    def share(self) -> Share:
        return Share(self.index, self.of, frozenset(self.begun))

    def split(self, parts: int, begun: tuple[int, ...]) -> "list[Dealt]":
        """The same in equal parts. Every (parts × of)-th from index, index + of, … on: together, each exactly once."""
        return [Dealt(self.index + self.of * i, self.of * parts, (*self.begun, *begun)) for i in range(parts)]


class Gaps(Struct, frozen=True):
    """Gaps between output pieces since the run began: the filled buckets of a `Sketch`, and its exact figures."""

    buckets: list[int] = []
    counts: list[int] = []
    total: float = 0.0
    largest: float = 0.0

    @classmethod
    def of(cls, samples: Samples) -> "Gaps":
        samples.drain()
        filled = np.flatnonzero(samples.sketch.counts)
        counts = samples.sketch.counts[filled]
        return cls(filled.tolist(), counts.tolist(), samples.sketch.total, samples.largest)

    def add_to(self, samples: Samples) -> None:
        samples.sketch.counts[self.buckets] += np.array(self.counts, np.int64)
        samples.sketch.total += self.total
        samples.largest = max(samples.largest, self.largest)


class State(Struct, frozen=True):
    """How a worker is doing. Times are seconds; lags are p99 since it began."""

    now: float = 0.0  # run clock
    alive: int = 0  # agents, sub-agents included
    in_flight: int = 0  # model calls
    send_lag: float = 0.0
    loop_lag: float = 0.0
    cpu_share: float = 0.0  # of one core
    taken: int = 0  # shares dealt to it
    done: int = 0  # of those, shares whose last session has ended
    gaps: Gaps = Gaps()


class Batch(Struct, frozen=True):
    """What a worker saw since its last batch. `last` is its farewell, with its health for the header."""

    number: int
    state: State
    begun: list[tuple[int, str, float]]  # sessions: number, archetype, when
    calls: list[Call]
    tools: list[Tool]
    sessions: list[Session]
    last: bool = False
    health: dict[str, Any] = {}

    @property
    def records(self) -> int:
        return len(self.calls) + len(self.tools) + len(self.sessions)


def pack(batch: Batch) -> bytes:
    """Records repeat themselves: zlib at its fastest makes them about a tenth."""
    return zlib.compress(msgspec.msgpack.encode(batch), 1)


def unpack(blob: bytes) -> Batch:
    """A batch. ValueError for one that is larger than any can be, or is none."""
    inflate = zlib.decompressobj()
    plain = inflate.decompress(blob, MAX_BATCH)
    if inflate.unconsumed_tail:
        raise ValueError(f"a batch of more than {MAX_BATCH} bytes")
    return msgspec.msgpack.decode(plain, type=Batch)


class Outbox:
    """A worker's batches on their way: kept until acknowledged, sent again when that takes too long."""

    def __init__(self, send: Callable[[int, bytes], None]) -> None:
        self.send = send
        self.waiting: dict[int, tuple[bytes, float]] = {}  # number: batch, when last sent

    def put(self, number: int, blob: bytes) -> None:
        self.waiting[number] = blob, time.perf_counter()
        self.send(number, blob)

    def acknowledged(self, number: int) -> None:
        self.waiting.pop(number, None)

    def resend(self) -> None:
        """Send again what should have been acknowledged by now."""
        now = time.perf_counter()
        for number, (blob, sent) in list(self.waiting.items()):
            if now - sent > RESEND:
                self.waiting[number] = blob, now
                self.send(number, blob)


class Inbox:
    """What has come from one worker: takes each number once, whatever comes twice or out of order."""

    def __init__(self) -> None:
        self.through = -1  # every number up to here has come
        self.ahead: set[int] = set()  # and these beyond it
        self.last: int | None = None  # number of the farewell

    def take(self, number: int) -> bool:
        """Whether this number is new."""
        if number <= self.through or number in self.ahead:
            return False
        self.ahead.add(number)
        while self.through + 1 in self.ahead:
            self.through += 1
            self.ahead.remove(self.through)
        return True

    @property
    def whole(self) -> bool:
        """The farewell has come, and all before it."""
        return self.last is not None and self.through >= self.last


class Offset(NamedTuple):
    """How far a worker's clock is ahead of ours, and how wrong that can be at most, in seconds."""

    seconds: float
    uncertainty: float


def offset(trips: list[tuple[float, float, float, float]]) -> Offset:
    """From round trips (sent, received there, answered there, back): that of the quickest one.

    NTP's formula (RFC 5905, section 8): offset = ((t2 - t1) + (t3 - t4)) / 2. The true one lies within half of the time
    that the message was under way, so the quickest trip is the surest.
    """

    def under_way(trip: tuple[float, float, float, float]) -> float:
        return (trip[3] - trip[0]) - (trip[2] - trip[1])

    best = min(trips, key=under_way)
    return Offset(((best[1] - best[0]) + (best[2] - best[3])) / 2, under_way(best) / 2)
