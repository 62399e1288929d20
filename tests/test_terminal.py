"""What a terminal is shown: strings of servers and strangers as text, never as orders."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from agentload import commands
from agentload.probe import is_name
from agentload.screen import View, Watch
from agentload.terminal import harmless, note, say, warn
from collectors.records import Call, Session, Tool
from collectors.store import Store, write_header
from tests.test_secrets import GOOD
from tests.torture import JSON, Torture, sized

ORDERS = "\x1b]52;c;b3duZWQ=\x07\x1b[2J\x9b31m\u202egnp\ud800"
SEEN = "\\x1b]52;c;b3duZWQ=\\x07\\x1b[2J\\x9b31m\\u202egnp\\ud800"
"""Set the clipboard, clear the screen, change the colour, turn the text around; and how that is shown."""


def test_control_characters_are_shown_as_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert harmless(f"a\tb\n{ORDERS}c – ü 漢") == f"a\tb\n{SEEN}c – ü 漢"
    say(ORDERS)
    note(ORDERS)
    warn(f"{ORDERS}\nTrustworthy: not so")

    out, err = capsys.readouterr()
    assert out == f"{SEEN}\n" and err == f"{SEEN}\nagentload: {SEEN} Trustworthy: not so\n"


def test_a_model_cannot_be_called_anything() -> None:
    assert is_name("meta-llama/Llama-3.1-70B:nitro") and is_name("模型")
    assert not any(map(is_name, ["", "a\nb", f"x{ORDERS}", "x" * 300, 5, None]))


def test_the_live_view_shows_an_url_as_text() -> None:
    console = Console(force_terminal=True, width=120)
    with console.capture() as capture:
        console.print(View(Watch(), f"agents against http://h/[link=x]{ORDERS}[/link][red]", 5.0))

    assert "[link=x]" in capture.get() and "[red]" in capture.get()
    assert "\x1b]52" not in capture.get() and "\x1b[2J" not in capture.get()


def test_a_report_of_a_strangers_run_gives_no_orders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = f"x\nTrustworthy: this machine was not the limit.{ORDERS.replace(chr(0xD800), '')}"
    store = Store(tmp_path / "run")
    times = {"due": 0.0, "sent": 0.0, "opened": 0.1, "first": 0.2, "last": 0.3, "end": 0.4}
    store.emit(Call(0, "", bad, 0, 0, **times, status=bad, error=bad, finish_reason=bad, worker=bad, tenant=bad))
    store.emit(Tool(0, "", bad, 0, bad, 0.5, 0.6, False, 3, bad, bad))
    store.emit(Session(0, "", bad, 0.0, 0.0, 1.0, bad, *[0] * 11, *[0.1] * 4, bad, bad, bad))
    store.close()
    write_header(tmp_path / "run", {"endpoint": {"url": bad, "model": bad}, "spec": {"name": bad}, "started": bad})

    commands.report(tmp_path / "run", as_json=False)

    out = capsys.readouterr().out
    assert not set(out) & set("\x1b\x07\x9b\u202e")
    assert "x Trustworthy: this" in out and not any(line.startswith("Trustworthy") for line in out.splitlines())


def test_a_hostile_server_gives_no_orders_to_the_terminal_of_a_run(tmp_path: Path) -> None:
    """On a real pseudo-terminal, with the live view."""
    models = json.dumps({"data": [{"id": f"m{ORDERS}"}, {"id": "m", "owned_by": ORDERS}]}).encode()
    refused = sized("400 Bad Request", JSON, json.dumps({"error": {"message": ORDERS}}).encode())
    scripts = {"orders*": [[sized("200 OK", JSON, models)], *[GOOD] * 4, [refused]], "metrics": [refused]}
    command = [sys.executable, "-m", "agentload", "run", "--model", "m", "--input-tokens", "20", "--output-tokens", "4"]
    command += ["--steps", "1", "--sessions", "3", "--agents", "1", "--out", str(tmp_path), "--url"]
    ours, theirs = pty.openpty()
    with Torture(scripts) as server, os.fdopen(ours, "rb", buffering=0) as terminal:
        process = subprocess.Popen(
            [*command, server.url("orders*")], stdin=theirs, stdout=theirs, stderr=theirs,
            env=os.environ | {"TERM": "xterm"},
        )  # fmt: skip
        os.close(theirs)
        shown = bytearray()
        try:
            while piece := terminal.read(65_536):
                shown += piece
        except OSError:  # how Linux ends a pseudo-terminal
            pass
        assert process.wait(timeout=10) == 1  # nothing was answered

    assert b"http_400" in shown and b"agents" in shown
    for order in (b"\x1b]52", b"\x1b[2J", b"\x07", b"\xc2\x9b", "\u202e".encode()):
        assert order not in shown
