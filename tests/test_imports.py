"""The import directions of the house: who may know whom."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

HOUSE = Path(__file__).parent.parent
OURS = {"agents", "loadprofiles", "collectors", "agentload", "benchmarks", "tests"}
ALLOWED = {
    "loadprofiles": {"loadprofiles"},
    "collectors": {"collectors"},
    "agents": {"agents", "collectors.records"},
    "agentload": {"agents", "loadprofiles", "collectors", "agentload"},
}


def imported(source: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name for name in names if name.partition(".")[0] in OURS}


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_only_what_the_design_allows(package: str) -> None:
    for file in (HOUSE / package).rglob("*.py"):
        for name in imported(file.read_text()):
            allowed = any(name == root or name.startswith(f"{root}.") for root in ALLOWED[package])
            assert allowed, f"{file.relative_to(HOUSE)} imports {name}"


@pytest.mark.parametrize("flag", ["--version", "--help"])
def test_nothing_heavy_is_imported_before_it_is_needed(flag: str) -> None:
    heavy = "locust plotly pyarrow scipy openai aiohttp numpy rich uvloop prometheus_client opentelemetry".split()
    code = (
        "import sys\nsys.argv = ['agentload', sys.argv[1]]\n"
        "from agentload.cli import main\n"
        f"try:\n    main()\nexcept SystemExit:\n    pass\nprint([m for m in {heavy} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code, flag], capture_output=True, text=True, check=True, cwd=HOUSE)
    assert out.stdout.strip().endswith("[]")


def test_what_is_compiled_exists_and_defines_no_struct():
    """A compiler of classes drops what a struct is given beside its name: its tag, and that it is frozen."""
    hooks = tomllib.loads((HOUSE / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
    paths = [HOUSE / name.lstrip("/") for name in hooks["mypyc"]["include"]]

    assert len(paths) > 10
    for path in paths:
        classes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]
        assert not [node.name for node in classes if node.keywords], path
