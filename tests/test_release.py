"""What is released: from a lock with hashes, the same bytes twice, and it works where it is installed."""

import hashlib
import os
import re
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from release.audit import audit, findings, skipped
from release.dist import HOUSE, release
from release.sbom import bill, plain

LOCK = (HOUSE / "requirements.lock").read_text()
PINNED = dict(re.findall(r"^([a-z0-9-]+)==(\S+) \\$", LOCK, re.MULTILINE))
PYTHONS = ("3.11", "3.12", "3.13", "3.14")


def test_every_line_of_the_lock_is_pinned_and_hashed_and_names_no_index() -> None:
    blocks = [block for block in re.split(r"\n(?=\S)", LOCK.strip()) if not block.startswith("#")]

    assert len(blocks) == len(PINNED) > 50
    assert all(re.fullmatch(r"\s+--hash=sha256:[0-9a-f]{64}( \\)?", b.splitlines()[1]) for b in blocks)
    assert "://" not in LOCK and "--index-url" not in LOCK and "--find-links" not in LOCK


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_holds_what_is_needed_on_other_pythons_too(python: str) -> None:
    environment = {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    needed = [Requirement(line) for name in PINNED for line in metadata.requires(name) or []]
    here = {plain(r.name) for r in needed if r.marker is None or r.marker.evaluate(environment)}

    assert here <= PINNED.keys()


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_fits_the_first_release_of_every_python(python: str) -> None:
    """Distributions stay with an early one: Debian 12 has 3.11.2."""
    wanted = {name: metadata.metadata(name)["Requires-Python"] or "" for name in PINNED}

    assert not {name: range_ for name, range_ in wanted.items() if not SpecifierSet(range_).contains(f"{python}.0")}


def test_the_bill_of_materials_is_whole_and_says_what_the_lock_says() -> None:
    made = bill("agentload", epoch=1_764_000_000)
    versions = {each["name"]: each["version"] for each in made["components"]}
    references = {each["bom-ref"] for each in [made["metadata"]["component"], *made["components"]]}

    assert {"locust", "openai", "numpy", "pyzmq"} <= versions.keys() and "mypy" not in versions
    assert versions == {name: PINNED[name] for name in versions}
    assert {row["ref"] for row in made["dependencies"]} == references
    assert {ref for row in made["dependencies"] for ref in row["dependsOn"]} < references
    assert made == bill("agentload", epoch=1_764_000_000)


def test_an_audit_says_what_is_known_and_passes_where_nobody_can_be_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"name": "x", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}

    assert findings({"dependencies": [row, {"name": "y", "version": "3", "vulns": []}]}) == ["x 1: CVE-1; fixed in 2"]
    assert skipped({"dependencies": [row, {"name": "z", "skip_reason": "not found"}]}) == ["z: not found"]
    assert audit(tmp_path / "missing", HOUSE / "requirements.lock") == 0
    assert "nothing was checked" in capsys.readouterr().err


@pytest.mark.skipif(not (HOUSE / ".git").exists(), reason="a release is made from a git checkout")
def test_two_builds_are_the_same_bytes_and_the_wheel_works_where_it_is_installed(tmp_path: Path) -> None:
    made = {path.name: path for path in release(tmp_path / "dist")}  # ends the test where two builds differ

    for line in made.pop("SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256(made.pop(name).read_bytes()).hexdigest() == digest
    assert not made
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    fresh = tmp_path / "fresh"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(fresh)], check=True)
    (packages,) = fresh.glob("lib/python*/site-packages")
    (packages / "installed.pth").write_text(sysconfig.get_path("purelib") + "\n")  # what it needs is there already
    install = ["-m", "pip", "--python", str(fresh / "bin/python"), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, *install, "--quiet"], check=True)

    def there(*command: str) -> str:
        said = subprocess.run(
            [fresh / "bin" / command[0], *command[1:]], cwd=tmp_path, capture_output=True, text=True, check=True,
            env=os.environ | {"PYTHONSAFEPATH": "1"},
        )  # fmt: skip
        return said.stdout

    assert there("python", "-c", "import agentload; print(agentload.__file__)").startswith(str(packages))
    assert there("agentload", "--version").startswith("agentload ")
    simulated = there("agentload", "simulate", "--archetype", "chat", "--agents", "2", "--duration", "30", "--quiet")
    assert Path(tmp_path, simulated.strip()).stat().st_size > 1_000_000  # the report, with its charts' library
