"""Whether a seed makes the same on every Python here: `make pythons`.

Each version from 3.11 to 3.14 that is found on the PATH, or that pyenv has, gets an environment of its own at the
versions of `requirements.lock` (but for the one that runs this), and says its `tests.digest`.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.fleet_made import HOUSE

VERSIONS = ("3.11", "3.12", "3.13", "3.14")


def interpreters() -> dict[str, str]:
    """A working interpreter of each version that is here, by its version."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = {}
    for version in VERSIONS:
        there = [shutil.which(f"python{version}"), *sorted(map(str, pyenv.glob(f"{version}.*/bin/python")))]
        for path in filter(None, there):
            said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
            if re.match(rf"Python {re.escape(version)}\.", said):
                found[version] = path
                break
    return found


def digests(version: str, python: str, venvs: Path) -> dict[str, str]:
    """What that version says, in its own environment."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        python = sys.executable
    else:
        venv = venvs / version
        make = ["make", f"VENV={venv}", f"PYTHON={python}", f"{venv}/ok"]
        subprocess.run(make, cwd=HOUSE, check=True, stdout=sys.stderr)
        python = f"{venv}/bin/python"
    said = subprocess.check_output([python, "-m", "tests.digest"], cwd=HOUSE, text=True)
    found: dict[str, str] = json.loads(said)
    return found


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--venvs", type=Path, default=HOUSE / ".venv-pythons", help="where the environments are kept")
    venvs = options.parse_args().venvs.resolve()
    venvs.mkdir(parents=True, exist_ok=True)
    found = {version: digests(version, python, venvs) for version, python in interpreters().items()}
    for version, said in found.items():
        print(version, *(f"{load} {digest[:16]}" for load, digest in said.items()))  # noqa: T201
    alike = len({json.dumps(said) for said in found.values()}) == 1
    print(f"{', '.join(found)}: {'the same sessions' if alike else 'NOT the same sessions'}")  # noqa: T201
    return 0 if alike else 1


if __name__ == "__main__":
    sys.exit(main())
