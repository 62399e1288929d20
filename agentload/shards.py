"""A simulation in independent parts, each in a process of its own: `agentload simulate --shards N`.

The replicas are split evenly into N clusters, and the sessions among them such that each cluster meets the same mix of
archetypes and tenants. Which session goes where, and what becomes of it, is decided by spec, seed and N alone, whatever
runs them. That is another system than one cluster of all replicas: a router chooses among its own part's replicas only,
so load is evened out, and prefixes are found again, within a part.

A part is this module as a program. It reads a `Job` from its standard input, runs it, and answers with an `Ended`;
its records are in a folder where a run that is cut off is recovered from, and become the run's when it has ended. When
its input closes, the run is over, or has died: it ends as if interrupted.
"""

import _thread
import contextlib
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import msgspec
from msgspec import Struct, structs

from agentload.box.options import BoxOptions, Failure
from agentload.errors import BadInput, Failed
from agentload.prepare import Prepared
from agentload.spec import Spec
from agentload.terminal import warn
from collectors.load import SPOOLS
from collectors.store import Store


class Job(Struct, frozen=True):
    """What a part is told."""

    prepared: Prepared  # of the whole run
    index: int
    count: int
    folder: str  # for its records


class Ended(Struct, frozen=True):
    """What became of a simulation, or of a part of one."""

    reason: str
    now: float  # seconds on its clock
    started: int  # sessions
    offered: int | None
    gaps: tuple[dict[int, float], float, float]  # between tokens, see `agentload.box.gaps.Gaps`
    peak_bytes: int
    cpu_seconds: float


NEVER = Ended("interrupted", 0.0, 0, None, ({}, 0.0, 0.0), 0, 0.0)
"""A part that was interrupted before it began."""


class Share:
    """The sessions (or seats of a held population) that a part has.

    Each kind of session is dealt out in turn, every kind beginning with another part. Dealing out the sessions one by
    one would not do: they come in a pattern, and a part could get one kind only.
    """

    def __init__(self, index: int = 0, count: int = 1, order: Sequence[Hashable] = (0,)) -> None:
        self.index, self.count = index, count
        kinds = list(dict.fromkeys(order))
        total, before = Counter(order), Counter[Hashable]()
        self._turns = []  # of each place in the pattern: the part that it goes to, and by how many the next time
        for kind in order:
            self._turns.append((before[kind] + kinds.index(kind), total[kind]))
            before[kind] += 1

    def takes(self, number: int) -> bool:
        """Whether a session, or a seat, is this part's."""
        if self.count == 1:
            return True
        rounds, place = divmod(number, len(self._turns))
        first, step = self._turns[place]
        return (first + rounds * step) % self.count == self.index


def check(spec: Spec, count: int) -> None:
    """Refuse what cannot be split into so many parts."""
    box = spec.box
    if count < 1:
        raise BadInput(f"--shards must be 1 or more, got {count}")
    if count == 1:
        return
    for name, replicas in (("replicas", box.replicas), ("prefill", box.prefill)):
        if replicas % count:
            fitting = [str(n) for n in range(2, min(replicas, 64) + 1) if not replicas % n]
            advice = (
                f"take {', '.join(fitting)}, or other box.{name}"
                if fitting
                else f"give the spec box.{name} = {count}, {2 * count}, …"
            )
            raise BadInput(f"--shards {count} does not split box.{name} = {replicas} evenly; {advice}")
    shared = {
        "box.scaling": box.scaling is not None,
        "box.queued": box.queued is not None,
        "box.quota": box.quota.requests is not None or box.quota.tokens is not None,
        "limits.tokens (--max-tokens)": spec.limits.tokens is not None,
        "limits.cost (--max-cost)": spec.limits.cost is not None,
        "limits.error_rate (--max-error-rate)": spec.limits.error_rate is not None,
    }
    for name, given in shared.items():
        if given:
            raise BadInput(f"{name} looks at the whole cluster, and --shards {count} makes parts that know nothing of "
                           f"each other; leave one of them out")  # fmt: skip


def part(box: BoxOptions, index: int, count: int) -> BoxOptions:
    """The cluster of one part: its replicas, and their failures."""
    replicas, prefill = box.replicas // count, box.prefill // count

    def local(failure: Failure) -> Failure | None:
        apart = failure.replica >= box.replicas  # one that does nothing but prompts
        owner, number = divmod(failure.replica - apart * box.replicas, prefill if apart else replicas)
        return structs.replace(failure, replica=number + apart * replicas) if owner == index else None

    failures = tuple(failure for failure in map(local, box.failures) if failure is not None)
    return structs.replace(box, replicas=replicas, prefill=prefill, failures=failures)


class Parts:
    """The processes of a sharded simulation."""

    def __init__(self, prepared: Prepared, count: int, folder: Path) -> None:
        self.jobs = [Job(prepared, i, count, str(folder / SPOOLS / str(i))) for i in range(count)]
        self.processes = min(count, len(os.sched_getaffinity(0)))
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._over = threading.Event()

    def run(self, store: Store) -> list[Ended]:
        """Run all parts, as many at once as there are cores, and bring their records together in a store."""
        with ThreadPoolExecutor(self.processes) as pool:
            futures = [pool.submit(self._run, job) for job in self.jobs]
            try:
                wait(futures)
            except KeyboardInterrupt:
                self._end()
                wait(futures)
            ended = [future.result() for future in futures]
        for job in self.jobs:
            if Path(job.folder).exists():
                store.join(Path(job.folder))
        with contextlib.suppress(OSError):
            (store.folder / SPOOLS).rmdir()
        return ended

    def _run(self, job: Job) -> Ended:
        """One part, in a process."""
        if self._over.is_set():
            return NEVER
        command = [sys.executable, "-m", "agentload.shards"]
        plain = msgspec.msgpack.encode(job)
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, start_new_session=True) as process:
            assert process.stdin is not None and process.stdout is not None
            self._running[job.index] = process
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(b"%d\n" % len(plain) + plain)
                process.stdin.flush()
            answer = process.stdout.read()
        code = process.returncode
        if answer:
            return msgspec.msgpack.decode(answer, type=Ended)
        if self._over.is_set():
            return NEVER
        self._end()
        raise Failed(f"part {job.index} of {job.count} of the simulation ended with exit code {code}")

    def _end(self) -> None:
        """End all parts: their input closes."""
        self._over.set()
        for process in self._running.values():
            if process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()


def main() -> None:
    """One part of a simulation, as a process."""
    from agentload.simulation import simulate_part

    source = sys.stdin.buffer
    job = msgspec.msgpack.decode(source.read(int(source.readline())), type=Job)

    def watch() -> None:
        os.read(source.fileno(), 1)  # past Python's buffer, whose lock would still be held at the end
        _thread.interrupt_main()

    threading.Thread(target=watch, daemon=True).start()
    try:
        sys.stdout.buffer.write(msgspec.msgpack.encode(simulate_part(job)))
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        warn(f"{job.folder} takes no more records ({error.strerror or error})")
        sys.exit(1)


if __name__ == "__main__":
    main()
