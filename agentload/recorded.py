"""A trace as the population of a run: which session each agent follows, and when they start."""

import hashlib
import math
import tempfile
import weakref
from array import array
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct, structs
from numpy.typing import NDArray

from agentload.errors import BadInput
from agentload.rehearse import FIRST_TOKEN, PER_TOKEN
from agentload.spec import Replay, Spec, Traced
from agentload.traces.detect import files, format_of, read
from agentload.traces.graph import Agent as Script
from agentload.traces.graph import Call, Gap, Join, Session, Start, Tools, agents
from agentload.traces.source import Complaints
from agents.chain import Agent
from agents.replay import Pace, Way, replay
from agents.text import Room

IN_MEMORY = 64 * 2**20
"""Bytes of encoded sessions beyond which they are kept in a file."""


class Totals(Struct):
    """What some sessions ask for; `seconds` is about how long they take, one after the other."""

    sessions: int = 0
    calls: int = 0
    input: float = 0.0  # tokens
    output: float = 0.0
    seconds: float = 0.0


class Recorded:
    """The sessions of a trace, encoded in a file that may lie in memory, and agents that follow them."""

    def __init__(self, how: Replay, pace: Pace, sessions: Iterable[Session] | None = None) -> None:
        self.how, self.pace = how, pace
        self.complaints = Complaints(fatal=how.strict)
        self.digest = how.digest
        self.totals = Totals()
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115  # as long-lived as this
        weakref.finalize(self, self._file.close)
        self._ends, self._starts, self._sizes = array("q", [0]), array("d"), array("q")
        found = read(Path(how.trace), self.complaints, how.format or None) if sessions is None else sessions
        encoder = msgspec.msgpack.Encoder()
        for session in islice(found, how.first):
            data = encoder.encode(session)
            self._file.write(data)
            self._ends.append(self._ends[-1] + len(data))
            self._starts.append(math.nan if session.start is None else session.start)
            self.count(session.root)
        if not self._starts:
            worst = f": {self.complaints.found[0]}" if self.complaints.found else ""
            raise BadInput(f"trace {how.trace!r} holds no session that can be used{worst}")
        self.order = np.argsort(np.array(self._starts), kind="stable")  # those of unknown start last, as they came

    def __len__(self) -> int:
        return len(self._starts)

    def count(self, root: Script) -> None:
        """Add a session to the totals."""
        totals = self.totals
        totals.sessions += 1
        totals.seconds += lasted(root, self.pace)
        for _, agent in agents(root):
            for step in agent.steps:
                if isinstance(step, Call):
                    totals.calls += 1
                    totals.input += step.input * self.pace.scale
                    totals.output += max(1.0, step.output * self.pace.scale)
                    self._sizes.append(step.input + step.output)

    def session(self, which: int) -> Session:
        """One session, by its place in the order of starts."""
        at = int(self.order[which])
        self._file.seek(self._ends[at])
        data = self._file.read(self._ends[at + 1] - self._ends[at])
        return msgspec.msgpack.decode(data, type=Session)

    def agent(self, which: int, room: Room, way: Way) -> Agent:
        """An agent that follows one session."""
        return replay(self.session(which), self.pace, room, way)

    def times(self) -> NDArray[np.float64]:
        """When sessions start, as recorded, from 0 on. BadInput where that is not recorded of all."""
        starts = np.array(self._starts)[self.order]
        if np.isnan(starts).any():
            raise BadInput(
                f"trace {self.how.trace!r} does not say when its sessions start; hold agents, or give a rate"
            )
        return np.asarray((starts - starts[0]) / self.pace.speed)

    def about(self, context: int | None) -> dict[str, Any]:
        """What a run's header says of its trace, and of how it is followed."""
        sizes = np.array(self._sizes) * self.pace.scale
        return {
            "trace": Path(self.how.trace).name,
            "format": self.how.format or format_of(Path(self.how.trace)),
            "digest": self.digest,
            "sessions": self.totals.sessions,
            "calls": self.totals.calls,
            "damaged": self.complaints.count,
            "longest_call_tokens": float(sizes.max(initial=0.0)),
            "calls_too_long": 0 if context is None else int((sizes > context).sum()),
            **msgspec.to_builtins(self.pace),
        }


def lasted(agent: Script, pace: Pace) -> float:
    """About how long an agent takes, as `agentload.rehearse` has it: until it and its sub-agents have ended."""
    seconds = agent.delay / pace.speed
    ends: list[float] = []  # of its sub-agents
    for step in agent.steps:
        match step:
            case Call():
                seconds += FIRST_TOKEN + PER_TOKEN * step.output * pace.scale
            case Gap():
                seconds += pace.gap(step)
            case Tools(calls):
                seconds += max((pace.tool(tool) for tool in calls), default=0.0)
            case Start(children, wait):
                born = [seconds + lasted(child, pace) for child in children]
                ends += born
                seconds = max([seconds, *sorted(born)[:wait]])
            case Join(numbers):
                seconds = max([seconds, *(ends[n] for n in numbers or range(len(ends)))])
    return max([seconds, *ends])


def recorded(spec: Spec) -> Recorded:
    """The trace that a spec replays. BadInput where it is not the one that the spec means."""
    how = spec.replay
    assert how is not None
    found = _read_once(structs.replace(how, digest="", jitter=0.0, bust=True), spec.pace())
    if how.digest and how.digest != found.digest:
        raise BadInput(f"trace {how.trace!r} has the digest {found.digest}, and this spec replays {how.digest}; "
                       "name the file it was made with, or leave out replay.digest")  # fmt: skip
    return found


@lru_cache(maxsize=1)
def _read_once(how: Replay, pace: Pace) -> Recorded:
    """A command needs its trace more than once: for what to expect, for the spec as resolved, for the run."""
    path = Path(how.trace)
    if not path.exists():
        raise BadInput(f"trace {how.trace!r} does not exist")
    return Recorded(structs.replace(how, digest=digest(path)), pace)


def resolved(spec: Spec) -> Spec:
    """The spec with its trace's digest and, where nothing else ends it, each session once."""
    how = spec.replay
    assert how is not None
    if how.digest and (spec.duration or spec.sessions):
        return spec
    found = recorded(spec)
    if isinstance(spec.profile, Traced):
        found.times()
    sessions = len(found) if spec.duration is None and spec.sessions is None else spec.sessions
    return structs.replace(spec, replay=structs.replace(how, digest=found.digest), sessions=sessions)


def digest(path: Path) -> str:
    """BLAKE2b of what a trace's files hold, 128 bits as hexadecimal digits."""
    is_run = path.is_dir() and (path / "run.json").exists()
    parts = sorted(path.glob("*.parquet")) or sorted(path.glob("*.arrows")) if is_run else files(path)
    sums = hashlib.blake2b(digest_size=16)
    for part in parts:
        try:
            with part.open("rb") as file:
                while chunk := file.read(1 << 20):
                    sums.update(chunk)
        except OSError as error:
            raise BadInput(f"trace {str(part)!r} cannot be read: {error.strerror}") from None
    return sums.hexdigest()
