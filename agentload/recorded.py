"""A trace as the population of a run: which session each agent follows, and when they start."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from agentload.errors import BadInput
from agentload.spec import Count
from agentload.traces.detect import read
from agentload.traces.graph import Session
from agentload.traces.source import Complaints
from agents.chain import Agent
from agents.draws import NonNegative, Positive
from agents.replay import Pace, replay
from agents.sized import Room


class Replay(Struct, frozen=True, forbid_unknown_fields=True):
    """How a trace becomes a run."""

    trace: str  # a file, a folder of files, or a run folder
    format: str = ""  # "" tells it from the content
    strict: bool = False  # the first damaged line ends it; else damaged lines are skipped
    first: Count | None = None  # only so many sessions of it
    longest_gap: NonNegative = 10.0  # seconds; people, and gaps that nobody explains, take no longer
    longest_wait: Positive = 600.0  # seconds; no tool takes longer
    speed: Positive = 1.0  # recorded seconds in a second, of gaps, tools and arrivals
    scale: Positive = 1.0  # multiplies every token count, for small models
    arrivals: Literal["profile", "recorded"] = "profile"  # when sessions start
    bust: bool = True  # copies of a session share no prefix with each other

    def pace(self) -> Pace:
        return Pace(self.longest_gap, self.longest_wait, self.speed, self.scale)


class Recorded:
    """The sessions of a trace, and agents that follow them; copies where there are more agents than sessions."""

    def __init__(self, how: Replay, sessions: Sequence[Session] | None = None) -> None:
        self.how = how
        self.complaints = Complaints(fatal=how.strict)
        found = read(Path(how.trace), self.complaints, how.format or None) if sessions is None else sessions
        self.sessions = list(islice(found, how.first))
        if not self.sessions:
            worst = f": {self.complaints.found[0]}" if self.complaints.found else ""
            raise BadInput(f"trace {how.trace!r} holds no session that can be used{worst}")
        if how.arrivals == "recorded":
            if any(session.start is None for session in self.sessions):
                raise BadInput(f"trace {how.trace!r} does not say when sessions start; use arrivals = 'profile'")
            self.sessions.sort(key=lambda session: session.start or 0.0)

    def agent(self, number: int, room: Room, salt: int) -> Agent:
        """The agent of session `number` of the run."""
        copy, which = divmod(number, len(self.sessions))
        return replay(self.sessions[which], self.how.pace(), room, salt, copy if self.how.bust else 0)

    def times(self) -> NDArray[np.float64]:
        """When sessions start, as recorded, from 0 on."""
        starts = np.array([session.start or 0.0 for session in self.sessions])
        return np.asarray((starts - starts.min()) / self.how.speed)

    def longest(self) -> int:
        """Tokens of the longest call, prompt and reply, as it will be asked for."""
        from agentload.traces.analyse import timed

        sizes = (one.call.input + one.call.output for session in self.sessions for one in timed(session))
        return round(max(sizes, default=0) * self.how.scale)
