"""Sdist and wheel of the last commit, made twice to see that they come out the same, with their checksums and the list
of what they need: `python -m release.dist FOLDER`.

Made from what is committed, in a folder of its own: what else lies about here is not in them.
"""

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

from release.sbom import bill

HOUSE = Path(__file__).parent.parent


def git(*words: str) -> bytes:
    return subprocess.run(["git", "-C", str(HOUSE), *words], check=True, capture_output=True).stdout  # noqa: S607  # git


def build(folder: Path, epoch: int) -> dict[str, bytes]:
    """Sdist and wheel by name; `folder` must be new, and `epoch` (Unix seconds) is the time they bear."""
    with tarfile.open(fileobj=BytesIO(git("archive", "HEAD"))) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.3 and older have none
        archive.extractall(folder / "source")  # noqa: S202  # git made it
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(epoch)}
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder / "made")]
    subprocess.run(command, cwd=folder / "source", env=environment, check=True, capture_output=True)
    return {path.name: path.read_bytes() for path in sorted((folder / "made").iterdir())}


def release(out: Path) -> list[Path]:
    """Make everything; return the files written. Ends the program where two builds differ."""
    epoch = int(git("log", "-1", "--format=%ct"))
    with tempfile.TemporaryDirectory() as folder:
        made, again = (build(Path(folder, name), epoch) for name in ("first", "second"))
    if made != again:
        different = [name for name in made.keys() | again.keys() if made.get(name) != again.get(name)]
        sys.exit(f"two builds of one commit differ: {', '.join(sorted(different))}")
    made["agentload.cdx.json"] = json.dumps(bill("agentload", epoch), indent=2).encode() + b"\n"
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(made.items()))
    made["SHA256SUMS"] = sums.encode()
    out.mkdir(parents=True, exist_ok=True)
    for name, content in made.items():
        (out / name).write_bytes(content)
    return [out / name for name in made]


if __name__ == "__main__":
    if git("status", "--porcelain"):
        print("release: there are uncommitted changes; they are not in what is made", file=sys.stderr)
    print(*release(Path(sys.argv[1])), sep="\n")
