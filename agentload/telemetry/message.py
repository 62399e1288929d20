"""What a run tells the process that exports its traces: what it is, and then its records, batch by batch."""

from msgspec import Struct

from collectors.records import Call, Session, Tool


class About(Struct, frozen=True):
    """What spans say of the run that they belong to."""

    run_id: str
    version: str
    model: str
    url: str
    stream: bool
    operation: str  # "chat", or "text_completion"
    epoch: float  # Unix time of the run clock's zero
    endpoint: str  # where they go, as the user said; "" leaves it to the environment
    sample: float


class Batch(Struct, frozen=True):
    """Records on their way to the exporting process."""

    calls: list[Call]
    tools: list[Tool]
    sessions: list[Session]
