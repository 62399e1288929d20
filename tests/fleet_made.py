"""Runs on several processes, as tests start them: `python -m tests.fleet_made SPEC OUT FLEET` (JSON) is a master."""

import contextlib
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from collectors.load import Run, load_run

MIX = Path(__file__).parent / "mix.toml"
HOUSE = Path(__file__).parent.parent


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process, for as long as a `with` block lasts at most."""
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=HOUSE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def master(
    flags: dict[str, Any], out: Path, spec: Path = MIX, **fleet: Any
) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    """A master's process: stdout is the run's folder, the exit code the run's."""
    arguments = [str(spec), str(out), json.dumps(flags), json.dumps(fleet)]
    return started(sys.executable, "-m", "tests.fleet_made", *arguments)


def ended(process: subprocess.Popen[str], code: int = 0) -> Run:
    """What a run recorded, once it has ended, with that code."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err, err
    return load_run(Path(out.strip().splitlines()[-1]))


def run(flags: dict[str, Any], out: Path, spec: Path = MIX, **fleet: Any) -> Run:
    with master(flags, out, spec, **fleet) as process:
        return ended(process)


def salted(folder: Path) -> Path:
    """The mix with a salt of its own, so that two runs send the same texts."""
    path = folder / "salted.toml"
    path.write_text("salt = 1\n" + MIX.read_text())
    return path


def recorded(run: Run) -> Counter[str]:
    """The x-request-id of every call of an agent, as often as there is a record of it."""
    c = run.calls
    rows = zip(c.session.tolist(), c.agent.tolist(), c.step.tolist(), c.attempt.tolist(), strict=True)
    return Counter(
        f"{run.header['run_id']}-{session}{f'.{agent}' if agent else ''}-{step}-{attempt}"
        for session, agent, step, attempt in rows
        if session >= 0
    )


def logged(log: Path, run: Run) -> list[dict[str, Any]]:
    """What the endpoint logged of the agents of a run."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    mine = f"{run.header['run_id']}-"
    return [line for line in lines if line["id"].startswith(mine) and not line["id"].startswith(f"{mine}-")]


def until(what: Any, seconds: float = 20.0) -> Any:
    """What it gives, once it gives something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.02)
    raise AssertionError(f"nothing within {seconds} s")


def main(spec: str, out: str, flags: str, fleet: str) -> int:
    from agentload import commands
    from agentload.fleet.launch import Fleet, run_fleet

    resolved = commands.resolve(Path(spec), json.loads(flags))
    folder, code = run_fleet(resolved, Path(out), msgspec.json.decode(fleet, type=Fleet))
    print(folder)  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
