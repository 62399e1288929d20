"""A key that is planted goes into requests and nowhere else, whatever the server says back."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from agentload import commands
from agentload.errors import BadInput
from agentload.spec import encode
from tests.client_made import CLIENTS
from tests.fleet_made import HOUSE
from tests.torture import JSON, ROLE, Torture, chunk, sized, stream, tool, usage, words

KEY = "sk-planted-0123456789abcdef"
COOKIE = "planted-cookie-9876543210"
TAP = """
import logging, os
logging.basicConfig(level=logging.DEBUG, filename=os.environ["TAPPED"] + ".log")
logging.debug("tapped")
os.environ["LOCUST_SKIP_MONKEY_PATCH"] = "1"
from locust.rpc.protocol import Message
del os.environ["LOCUST_SKIP_MONKEY_PATCH"]
plain = Message.serialize
def serialize(self):
    data = plain(self)
    with open(os.environ["TAPPED"] + ".messages", "ab") as file:
        file.write(data)
    return data
Message.serialize = serialize
"""
"""Runs at the start of every Python process of the run: all loggers at debug level, and what Locust sends, before it is
encrypted, into files."""

MODELS = json.dumps({"data": [{"id": "m", "owned_by": KEY, "max_model_len": 32_768}]}).encode()
GOOD = stream(ROLE, *words("Hello", " there"), chunk({}, "stop"), usage(prompt_tokens=30, completion_tokens=2))
ECHOES = [
    [sized("200 OK", JSON, MODELS, f"X-Echo: {KEY}")],
    *[GOOD] * 4,  # the calibration
    stream(ROLE, *words("Hello"), chunk({}, f"stop {KEY}"), usage()),
    stream(ROLE, {"error": {"message": f"Bad key {KEY}, bad cookie {COOKIE}"}}),
    [sized("400 Bad Request", "text/plain", b"x" * (299 - len(KEY) // 2) + KEY.encode())],  # cut in its middle
    stream(ROLE, chunk({"tool_calls": [tool(0, KEY, KEY, "{}")]}), chunk({}, "tool_calls"), usage()),
    [sized("500 Oops", "text/plain", KEY.encode())],
    GOOD,
]
IN_HEADERS = [[sized("500 Oops", f"text/{KEY}", KEY.encode())], [sized("200 OK", f"text/{KEY}", b"")], GOOD]
"""Not for the sdk client at debug level: its transport logs the headers of answers as they came."""


@pytest.fixture
def server(client: str) -> Iterator[Torture]:
    metrics = f'vllm:num_requests_running{{model_name="{KEY}"}} 1\n'.encode()
    echoes = ECHOES + (IN_HEADERS if client == "wire" else [])
    with Torture({"echo*": echoes, "metrics": [sized("200 OK", "text/plain", metrics)]}) as torture:
        yield torture


def everything(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file below a folder, Parquet also as it reads when it is unpacked."""
    for path in folder.rglob("*"):
        if path.is_file():
            yield str(path), path.read_bytes()
            if path.suffix == ".parquet":
                yield f"{path}, unpacked", json.dumps(pq.read_table(path).to_pylist(), default=str).encode()


@pytest.mark.parametrize("client", CLIENTS)
def test_a_planted_key_is_in_no_file_log_message_or_process_title(client: str, server: Torture, tmp_path: Path) -> None:
    (tmp_path / "tap").mkdir()
    (tmp_path / "tap" / "sitecustomize.py").write_text(TAP)
    environment = os.environ | {
        "PYTHONPATH": f"{tmp_path / 'tap'}{os.pathsep}{HOUSE}", "TAPPED": str(tmp_path / "tapped"),
        "OPENAI_LOG": "debug", "A_COOKIE": COOKIE,
    }  # fmt: skip
    spec = tmp_path / "spec.toml"
    spec.write_text(
        f"""
        name = "secrets"
        mode = "live"
        sessions = 12
        profile = {{ type = "held", agents = 2 }}
        population = [{{ archetype = "fixed" }}]
        archetypes.fixed = {{ tools = [{{ name = "look" }}], max_steps = 3 }}
        retry = {{ attempts = 1 }}
        [endpoint]
        url = "{server.url("echo*")}"
        model = "m"
        client = "{client}"
        headers = {{ Cookie = "$A_COOKIE" }}
        """
    )
    command = [sys.executable, "-m", "agentload", "run", str(spec), "--api-key-file", "-", "--workers", "1"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "runs")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env=environment, cwd=HOUSE,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(KEY.encode() + b"\n")
    process.stdin.close()
    process.stdin, titles = None, bytearray()
    while process.poll() is None:
        titles += subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, check=True).stdout
        try:
            said, _ = process.communicate(timeout=0.2)
        except subprocess.TimeoutExpired:
            continue
    assert process.returncode == 0, said

    heard = [exchange.headers for exchange in server.log if exchange.path.startswith("/echo")]
    assert len(heard) > 12 and {each["authorization"] for each in heard} == {f"Bearer {KEY}"}
    assert all(each["cookie"] == COOKIE for each in heard)
    found = [*everything(tmp_path), ("the terminal", said), ("ps", bytes(titles))]
    assert b"agentload.fleet.worker" in titles and len(found) > 10
    messages, log = ((tmp_path / f"tapped.{name}").read_bytes() for name in ("messages", "log"))
    assert b"agentload-job" in messages and b"DEBUG" in log
    for secret in (KEY.encode(), COOKIE.encode(), KEY[: len(KEY) // 2].encode()):
        assert [name for name, content in found if secret in content] == []


def test_a_key_comes_from_a_file_and_is_not_in_the_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "old")
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")

    spec = commands.resolve(None, {"api_key_file": str(file), "api_key_env": "A_KEY"})

    assert os.environ["A_KEY"] == KEY and KEY not in encode(spec)
    for bad in ("", "two words", "a\nb", "ключ"):
        file.write_text(bad)
        with pytest.raises(BadInput, match="must hold one key"):
            commands.resolve(None, {"api_key_file": str(file), "api_key_env": "A_KEY"})
    with pytest.raises(BadInput, match="cannot be read"):
        commands.resolve(None, {"api_key_file": str(tmp_path / "missing")})
