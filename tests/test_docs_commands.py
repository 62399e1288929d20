"""Every command that README, documentation and help show is a command: all are parsed, and run where a test can.

What is sent to an endpoint is run with `--dry-run`; what can be simulated is, made small by flags that come last and
so win. What serves until it is stopped, or measures this machine, is only parsed here, and run by tests of its own.
"""

import inspect
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from agentload.box.options import BoxOptions
from agentload.box.serve import BoxProcess
from agentload.cli import app

HOUSE = Path(__file__).parent.parent
PAGES = [HOUSE / "README.md", *sorted((HOUSE / "docs").rglob("*.md"))]
OLD = HOUSE / "tests" / "data" / "run-schema-1"
GROUP = get_command(app)

SMALL = {
    "run": ["--dry-run"],
    "replay": ["--dry-run", "--first", "2"],
    "simulate": ["--agents", "2", "--sessions", "2", "--scale", "0.1", "--quiet"],
    "forecast": ["few.toml"],
    "capacity": ["--simulate", "--agents", "1", "--most", "2", "--probes", "2", "--longest-wait", "1"],
    "sweep": ["--simulate", "--values", "1", "--values", "2", "--measure", "60", "--repeats", "1", "--census", "3",
              "--longest-wait", "1"],
}  # fmt: skip
"""Flags that make a command one that a test can run."""

PARSED_ONLY = ("serve", "worker", "record", "probe")


def shown() -> Iterator[str]:
    """Every command line of ours in the documents, and every example in the help."""
    for page in PAGES:
        for block in re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("$ agentload "):
                    yield line.removeprefix("$ ")
    for command in commands(GROUP):
        yield from (line.removeprefix("Example: ") for line in inspect.cleandoc(command.help or "").splitlines()
                    if line.startswith("Example: "))  # fmt: skip


def commands(group: Any) -> Iterator[Any]:
    for command in group.commands.values():
        if hasattr(command, "commands"):
            yield from commands(command)
        else:
            yield command


def words_of(line: str) -> list[str]:
    """The words after `agentload`, comments left out; `…` stands for an endpoint."""
    return shlex.split(line, comments=True)[1:]


LINES = list(dict.fromkeys(shown()))


@pytest.mark.parametrize("line", LINES)
def test_every_command_shown_is_understood(line: str) -> None:
    command, words = GROUP, words_of(line)
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]

    assert command.make_context(line, words).params is not None


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the documents speak of."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copy(HOUSE / "examples" / "first-light.toml", folder / "my.toml")
    shutil.copytree(HOUSE / "examples", folder / "examples")
    shutil.copy(HOUSE / "examples" / "my_agents.py", folder)
    (folder / ".keys").mkdir()
    (folder / ".keys" / "example").write_text("no-key\n")
    (folder / ".keys" / "example").chmod(0o600)
    assumed = (HOUSE / "agentload" / "forecast.toml").read_text()
    (folder / "few.toml").write_text(assumed.replace("paths = 100_000", "paths = 1_000"))
    runner = CliRunner()
    for name in ("before", "after", "today", "2026-11-23T14-02-11-coder", "2026-11-23T14-02-11-sweep"):
        shutil.copytree(OLD, folder / "runs" / name)
    assert runner.invoke(app, ["report", str(folder / "runs" / "today")]).exit_code == 0
    (folder / "baseline").mkdir()
    shutil.copy(folder / "runs" / "today" / "summary.json", folder / "baseline")
    assert runner.invoke(app, ["trace", "convert", str(OLD), str(folder / "sessions.jsonl")]).exit_code == 0
    shutil.copy(folder / "sessions.jsonl", folder / "trace.jsonl")
    (folder / "azure.csv").write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        + "".join(f"2023-11-16 18:17:{s:02d}.0000000,{1000 + s},{10 + s}\n" for s in range(60))
    )
    return folder


RUNS = [line for line in LINES if words_of(line)[0] not in PARSED_ONLY]


@pytest.mark.parametrize("line", RUNS)
def test_every_command_shown_that_a_test_can_run_runs(line: str, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    monkeypatch.setenv("HOME", str(desk))
    words = [os.path.expanduser(word.replace("…", "http://127.0.0.1:1/v1")) for word in words_of(line)]  # noqa: PTH111
    if words[0] in ("capacity", "sweep"):  # they are simulated, and with steps of ours
        words = [w for before, w in zip(["", *words], words, strict=False) if not {before, w} & {"--url", "--values"}]

    ended = CliRunner().invoke(app, [*words, *SMALL.get(words[0], [])], catch_exceptions=False)

    assert ended.exit_code in (0, 3), ended.output  # 3: too short to judge the promise that it shows


@pytest.mark.parametrize("line", [line for line in LINES if words_of(line)[:2] == ["probe", "--url"]])
def test_every_probe_shown_asks_an_endpoint(line: str, box: str) -> None:
    words = words_of(line)

    ended = CliRunner().invoke(app, [*words[:2], box, *words[3:]], catch_exceptions=False)

    assert ended.exit_code == 0, ended.output
    assert box in ended.output


def test_the_command_that_everything_begins_with_runs_against_an_endpoint(box: str, tmp_path: Path) -> None:
    line = next(line for line in LINES if line.startswith("agentload run --url"))
    words = [box if word.startswith("http") else word for word in words_of(line)]
    small = ["--agents", "2", "--duration", "1", "--drain", "0.5", "--scale", "0.05", "--out", str(tmp_path)]

    ended = CliRunner().invoke(app, [*words, *small], catch_exceptions=False)

    assert ended.exit_code == 0, ended.output
    assert Path(ended.output.splitlines()[-1]).is_file()


@pytest.fixture(scope="module")
def box() -> Iterator[str]:
    with BoxProcess(BoxOptions(speed=20.0)) as url:
        yield url


def test_every_command_has_an_example() -> None:
    assert [c.name for c in commands(GROUP) if "Example: agentload" not in (c.help or "")] == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_can_complete_our_commands(shell: str) -> None:
    asked = {"_AGENTLOAD_COMPLETE": f"source_{shell}"}  # --show-completion is for the shell that it finds itself in

    ended = CliRunner().invoke(app, [], prog_name="agentload", env=asked)

    assert ended.exit_code == 0
    assert "_AGENTLOAD_COMPLETE" in ended.output


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("agentload cap", "capacity"),
        ("agentload run --arche", "--archetype"),
        ("agentload run --archetype cod", "coder\ncoder-churn"),
        ("agentload simulate --profile ha", "hawkes"),
        ("agentload run --slo ttft", "ttft_p95="),
        ("agentload serve --preset deep", "deepseek-r1-8xh200"),
    ],
)
def test_the_shell_is_offered_names_and_values(typed: str, offered: str) -> None:
    asked = {"_AGENTLOAD_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}

    ended = CliRunner().invoke(app, [], prog_name="agentload", env=asked)

    assert ended.output.strip() == offered
