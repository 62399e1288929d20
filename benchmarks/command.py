"""The whole `agentload run` command as a process, against the null server: what it cost and what it recorded."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agentload.null import read_log
from collectors.load import Columns, load_run
from collectors.metrics import agents_calls

COMMAND = [sys.executable, "-m", "agentload"]


class Ran(NamedTuple):
    """A run that has ended."""

    cpu: float  # s, user and system, of the whole process
    user: float  # s, of those
    peak_bytes: int  # resident memory
    launched: float  # on `time.perf_counter`'s clock
    summary: Mapping[str, Any]
    calls: Columns  # of agents, calibration left out
    run_id: str
    epoch: float  # zero of the run clock on `time.perf_counter`'s

    @property
    def answered(self) -> Columns:
        return self.calls.where(self.calls.status == "ok")

    @property
    def tokens(self) -> int:
        return int(self.calls.output_tokens.sum())

    def truth(self, url: str) -> NDArray[np.float64]:
        """What the null server's log says of each answered call: read, first and last token, on the run clock."""
        log, calls = read_log(url), self.answered
        names = zip(calls.session.tolist(), calls.step.tolist(), calls.attempt.tolist(), strict=True)
        return np.array([log[f"{self.run_id}-{s}-{step}-{attempt}"] for s, step, attempt in names]) - self.epoch


@contextlib.contextmanager
def running(
    url: str, flags: list[str], spec: str = "", model: str = "null"
) -> Iterator[tuple[subprocess.Popen[bytes], Path, float]]:
    """An `agentload run` under way, the folder its run folder is in, and when it was launched."""
    with tempfile.TemporaryDirectory() as out:
        command = [*COMMAND, "run", "--url", url, "--model", model, "--quiet", "--out", out, *flags]
        if spec:
            path = Path(out) / "spec.toml"
            path.write_text(spec)
            command.insert(len(COMMAND) + 1, str(path))
        launched = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            yield process, Path(out), launched
        finally:
            if process.returncode is None:
                process.kill()
                process.wait()


def run(url: str, *flags: str, spec: str = "", model: str = "null") -> Ran:
    """Run it to its end. Raises RuntimeError where it fails."""
    with running(url, list(flags), spec, model) as (process, out, launched):
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"agentload run {' '.join(flags)} ended with exit code {process.returncode}")
        folder = next(path.parent for path in out.glob("*/run.json"))
        recorded = load_run(folder)
        summary = json.loads((folder / "summary.json").read_text())
    return Ran(
        cpu=used.ru_utime + used.ru_stime,
        user=used.ru_utime,
        peak_bytes=used.ru_maxrss * 1024,
        launched=launched,
        summary=summary,
        calls=agents_calls(recorded.calls),
        run_id=recorded.header["run_id"],
        epoch=recorded.header["clock_anchor"]["monotonic"],
    )


def fixed(agents: int, duration: float, tokens: int = 64, prompt: int = 100, client: str = "wire") -> list[str]:
    """Flags of a closed loop of agents whose sessions are one call each."""
    sizes = ["--input-tokens", str(prompt), "--output-tokens", str(tokens), "--steps", "1"]
    return [*sizes, "--agents", str(agents), "--duration", str(duration), "--drain", "20", "--client", client]
