"""`agentload trace` and `agentload fit`, as a user types them."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from agentload.cli import app
from agentload.errors import BadInput

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
    f"2023-11-16 18:17:{second:02d}.0000000,{1000 + second},{10 + second}\n" for second in range(60)
)


def agentload(*words: str) -> str:
    ended = CliRunner().invoke(app, words, catch_exceptions=False)
    assert ended.exit_code == 0
    return ended.output


def test_a_trace_is_looked_into_counted_converted_and_fitted(tmp_path: Path) -> None:
    trace, own, kind = tmp_path / "t.csv", tmp_path / "own.jsonl", tmp_path / "agent.toml"
    trace.write_text(AZURE)

    assert "azure, 60 sessions" in agentload("trace", "inspect", str(trace))
    assert "60 sessions" in agentload("trace", "convert", str(trace), str(own))
    counted = agentload("trace", "stats", str(trace))
    assert agentload("trace", "stats", str(own)) == counted
    assert "1,030" in counted
    agentload("fit", str(own), "-o", str(kind), "--name", "ours")
    assert "[archetypes.ours" in kind.read_text()
    assert kind.with_suffix(".html").is_file()


def test_what_is_no_trace_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("nothing to see\n")
    for words in (["trace", "stats", str(tmp_path / "x")], ["trace", "inspect", "nope"], ["fit", "nope"]):
        with pytest.raises(BadInput) as error:
            agentload(*words)
        assert "\n" not in str(error.value)
