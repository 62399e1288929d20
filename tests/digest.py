"""What a seed makes, as one number: `python -m tests.digest` simulates some loads and prints a digest of every record.

`make pythons` compares it between the versions of Python on this machine.
"""

import hashlib
import tempfile
from pathlib import Path

import msgspec

from agentload.commands import resolve
from agentload.simulation import simulate
from collectors.load import TABLES, Columns, Ragged, load_run

LOADS = {
    "sized": {"sessions": 40, "agents": 8, "scale": 0.2,
              "archetype": ["coder", "support", "chat", "researcher", "orchestrator", "browser", "rag"]},
    "open": {"duration": 60.0, "rate": 1.0, "profile": "hawkes", "archetype": ["chat", "support"]},
    "live": {"sessions": 12, "agents": 4, "mode": "live", "archetype": ["coder", "support"]},
}  # fmt: skip
"""Flags of each load: lengths that are drawn, arrivals that are drawn, and a model that decides."""


def digest(folder: Path) -> str:
    """Of every column of every record of a run, to the last bit."""
    run, seen = load_run(folder), hashlib.sha256()
    for name, kind in TABLES.items():
        rows: Columns | None = getattr(run, name, None)
        if rows is None:
            continue
        for field in msgspec.structs.fields(kind):
            column = getattr(rows, field.name)
            values = [column.values, column.sizes] if isinstance(column, Ragged) else [column]
            seen.update(f"{name}.{field.name}={[part.tolist() for part in values]}".encode())
    return seen.hexdigest()


def digests() -> dict[str, str]:
    found = {}
    for name, flags in LOADS.items():
        spec = msgspec.structs.replace(resolve(None, {"seed": 7} | flags), salt=1)
        with tempfile.TemporaryDirectory() as out:
            found[name] = digest(simulate(spec, Path(out))[0])
    return found


if __name__ == "__main__":
    print(msgspec.json.encode(digests()).decode())  # noqa: T201
