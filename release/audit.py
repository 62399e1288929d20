"""Ask pip-audit what is known to be wrong with the versions in a lock: `python -m release.audit PIP_AUDIT LOCK`.

Exit code 1 where something is. Where there is no pip-audit, or nobody to ask, that is said, and it is no failure: a
build must not depend on a service's being up.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def findings(report: dict[str, Any]) -> list[str]:
    """One line for each thing that is known, from pip-audit's JSON."""
    return [
        f"{row['name']} {row['version']}: {found['id']}; fixed in {' '.join(found['fix_versions']) or 'none yet'}"
        for row in report["dependencies"]
        for found in row.get("vulns", ())
    ]


def skipped(report: dict[str, Any]) -> list[str]:
    """One line for each package that nobody could be asked about."""
    return [f"{row['name']}: {row['skip_reason']}" for row in report["dependencies"] if "skip_reason" in row]


def audit(tool: Path, lock: Path) -> int:
    command = [str(tool), "--requirement", str(lock), "--require-hashes", "--disable-pip", "--format", "json"]
    command += ["--progress-spinner", "off"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        report = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        print(f"audit: nothing was checked: {type(error).__name__}: {error}", file=sys.stderr)
        return 0
    found, rows = findings(report), report["dependencies"]
    print(*found, sep="\n", end="\n" * bool(found))
    looked_up = len(rows) - len(skipped(report))
    print(f"audit: {len(found)} known problems in {looked_up} packages that could be looked up, of {len(rows)}")
    if skipped(report):
        print(f"audit: not looked up, for example {skipped(report)[0]}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(audit(Path(sys.argv[1]), Path(sys.argv[2])))
