"""Locust's web page with our tab, seen by a browser while two workers run."""

import http.cookiejar
import json
import os
import shutil
import subprocess
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from agentload.box.options import BoxOptions
from agentload.box.serve import BoxProcess
from tests.fleet_made import ended, master, until


@pytest.fixture(scope="module")
def box() -> Iterator[str]:
    with BoxProcess(BoxOptions(speed=5.0, sigma=0.0)) as url:
        yield url


def watched(process: "subprocess.Popen[str]") -> str:
    """Where a run says that it can be watched."""
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "can be watched at " in line, line
    return line.split()[-1].partition("/?")[0]


def figures(url: str, opener: urllib.request.OpenerDirector | None = None) -> list[dict[str, str]]:
    """Rows of the tab: the whole run, then each worker."""
    answer = (opener or urllib.request.build_opener()).open(f"{url}/agentload", timeout=5)
    rows: list[dict[str, str]] = json.load(answer)
    return rows


def seen(url: str) -> str:
    """The tab as headless Chromium has it."""
    with tempfile.TemporaryDirectory() as profile:
        quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", *quiet, f"--user-data-dir={profile}"]
        page = [*command, "--virtual-time-budget=5000", "--dump-dom", f"{url}/?tab=agentload"]
        return subprocess.run(page, capture_output=True, text=True, timeout=40, check=True).stdout


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium to look at the page with")
def test_a_browser_sees_our_tab_move_while_two_workers_run(box: str, tmp_path: Any) -> None:
    with master({"url": box, "agents": 6, "duration": 120}, tmp_path, workers=2, ui=True, web_port=0) as process:
        url = watched(process)
        until(lambda: len(figures(url)) == 3 and figures(url)[0]["visible"] not in ("0", "") and figures(url))
        first, page, later = figures(url), seen(url), figures(url)
        urllib.request.urlopen(f"{url}/stop", b"", timeout=20).close()
        result = ended(process)

    names = [row["name"] for row in first]
    assert names[0] == "all"
    for text in ("Fresh input tokens/s", "TTFT p50 / p99", "Send lag p99", *names):
        assert text in page
    assert [row["name"] for row in later] == names
    assert all(a != b for a, b in zip(first, later, strict=True))
    for row in later:
        assert int(row["cached"].replace(",", "")) > 0
        assert " ms / " in row["ttft"]
        assert row["verdict"].startswith(("trustworthy", "limited by the client"))
    assert result.header["health"]["stop_reason"] == "stopped"


def test_the_login_keeps_strangers_out_and_guests_cannot_change_the_spec(
    box: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "AGENTLOAD_WEB_PASSWORD", "open sesame")
    flags = {"url": box, "agents": 2, "duration": 120}
    with master(flags, tmp_path, workers=1, ui=True, web_port=0, web_login=True) as process:
        url = watched(process)

        def visitor(password: str) -> urllib.request.OpenerDirector:
            opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
            form = urllib.parse.urlencode({"username": "agentload", "password": password})
            opener.open(f"{url}/login_submit", form.encode(), timeout=5).close()
            return opener

        for led_here in ({"Host": "evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(urllib.request.Request(f"{url}/stop", b"", led_here), timeout=5)
        for stranger in (urllib.request.build_opener(), visitor("guess")):
            for path in ("agentload", "stats/requests", ""):
                assert "/login" in stranger.open(f"{url}/{path}", timeout=5).url
        guest = visitor("open sesame")
        until(lambda: len(figures(url, guest)) == 2 and figures(url, guest)[0]["agents"] == "2")
        asked = guest.open(f"{url}/swarm", b"user_count=50&spawn_rate=50", timeout=5)
        assert json.load(asked)["success"] is False
        guest.open(f"{url}/stop", b"", timeout=20).close()
        folder = ended(process)

    assert folder.header["health"]["stop_reason"] == "stopped"
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or b"open sesame" not in file.read_bytes()
