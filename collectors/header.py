"""run.json, field by field: the header of a run folder, what was asked for, of what, by what.

It is written when the run starts and again, whole, when it ends; one that was cut off lacks what only the end knows.
`tests/test_header.py` holds that nothing else is written.
"""

from typing import Any

from msgspec import Struct

Phase = tuple[str, float, float | None, bool]


class Anchor(Struct, forbid_unknown_fields=True):
    """What ties the run clock to others: its zero, on both."""

    monotonic: float  # s, CLOCK_MONOTONIC of the machine that ran it (of the master, of several); 0 in virtual time
    unix: float  # s since 1970; measured again at the end


class EndpointFacts(Struct, forbid_unknown_fields=True):
    """The endpoint as it turned out to be."""

    url: str  # base URL; in virtual time a description
    model: str
    client: str  # "wire" or "sdk"; "none" in virtual time
    simulated: bool  # the cluster in the box, whose times are a model's
    server: str  # what it said it was
    context_length: int | None  # tokens of prompt and reply; null where nobody says
    features: dict[str, Any]  # what it takes and gives (`agents.endpoint.Features`)
    calibration: dict[str, Any]  # tokens that its tokenizer and template make of a word, a message, a request


class Machine(Struct, forbid_unknown_fields=True):
    """The machine that made the load."""

    system: str
    python: str
    cores: int | None


class Shape(Struct, forbid_unknown_fields=True):
    """What the load profile comes to."""

    agents: int | None  # closed loop: most agents at once
    rate: float | None  # open loop: sessions per second, on average


class Health(Struct, forbid_unknown_fields=True, kw_only=True):
    """What the run saw of itself; of several workers the worst, or the sum for sessions and bytes."""

    loop_lag_p50: float | None = None  # s by which the event loop woke up late
    loop_lag_p99: float | None = None
    loop_lag_max: float | None = None
    send_lag_p99: float | None = None  # s by which calls were sent late, as seen while it ran
    cpu_share: float | None = None  # of one core, that the sending process used
    machine_cpu: float | None = None  # of all cores, that anybody used
    sessions_offered: int | None = None  # open loop: sessions that the schedule had; null where it was cut short
    sessions_started: int | None = None
    peak_memory_bytes: int | None = None  # resident
    interrupted: bool = False
    stop_reason: str | None = None  # "done", "duration", "interrupted", "max_tokens", "max_error_rate", …
    workers: dict[str, Any] | None = None  # the same of each worker, with its records, batches and clock (s, s/s)
    simulation_seconds: float | None = None  # virtual time: s of wall time that it took
    simulation_cpu_seconds: float | None = None
    shards: int | None = None  # independent clusters that it was split into, to be simulated side by side
    shard_replicas: int | None = None  # replicas of each


class Page(Struct, forbid_unknown_fields=True):
    """One `/metrics` page that was read while it ran."""

    url: str
    servers: list[str]  # who spoke there
    read: int  # times that it was read
    failed: int  # times that it could not be
    error: str  # what was wrong last; "" where nothing was


class Exported(Struct, forbid_unknown_fields=True):
    """What became of the spans of a run that was exported to OpenTelemetry."""

    spans: int  # that the receiver took
    failed: int  # that it did not
    dropped: int  # records that were never made spans: too many waited
    error: str = ""  # why the figures are not whole; "" where they are


class Header(Struct, forbid_unknown_fields=True, kw_only=True):
    """run.json. Times are seconds on the run clock unless a name or a line here says otherwise. No secret is in it."""

    schema: int  # version of this file and of the records; what it is today is `collectors.records.SCHEMA`
    agentload: str  # version of agentload that wrote it
    run_id: str  # random; the X-Request-Id of every call begins with it
    started: str  # wall time, ISO 8601 with its offset from UTC
    seed: int
    salt: int  # what made this run's text unlike any other's; the same salt makes the same text
    spec: dict[str, Any]  # as resolved, every default filled in
    spec_toml: str  # the same as TOML, itself a valid spec
    endpoint: EndpointFacts
    machine: Machine
    versions: dict[str, str]  # of the libraries that matter for timing and records
    phases: list[Phase]  # name, start, stop (null: open), and whether it is counted
    replay: dict[str, Any] | None = None  # the trace that was replayed, where one was
    profile: Shape
    clock_anchor: Anchor
    virtual: bool = False  # whether it ran in virtual time
    duration: float | None = None  # s; missing while it runs, and of a run that was killed
    health: Health | None = None
    itl: dict[str, float | int | None] | None = None  # gaps between output pieces (s), from a sketch within 1 %
    pages: list[Page] | None = None  # `/metrics` pages of the servers
    otlp: Exported | None = None
