"""Pages made from strings of servers and strangers: in a browser nothing of them runs, loads or leads anywhere."""

import html
import re
import shutil
import subprocess
import tempfile
import tomllib
from importlib import resources
from pathlib import Path

import pytest
from msgspec import structs

from agentload import commands, tracing
from agentload import spec as specs
from agentload.forecasting import forecast
from agentload.forecasting import read as read_assumptions
from agentload.schedule import chart
from agentload.sweep import Options, sweep
from collectors.boards import write_sweep
from collectors.page import page
from collectors.records import Call, Tool
from collectors.report import write_report
from collectors.store import Store, write_header
from tests.collect_made import made_run

RUN = "top.postMessage('ran','*')"
EVIL = (
    f'"\'><img src=x onerror="{RUN}"><svg onload="{RUN}"></svg></script><script>{RUN}</script>'
    f'<a href="javascript:{RUN}">x</a><iframe srcdoc="<script>{RUN}</script>"></iframe><base href="//evil.invalid/">'
    "{{7*7}}${7*7}<%=7*7%>"
)
"""Markup as it would break out of an attribute, an element, a script, or the small HTML that Plotly reads in labels."""


def toml(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def plain_spec(more: str = "") -> specs.Spec:
    """Whose archetype and phases are called what nobody would call them."""
    text = f"""
    name = {toml(EVIL + "/../../elsewhere")}
    scale = 0.2
    longest_wait = 2.0
    profile = {{ type = "held", agents = 3 }}
    population = [{{ archetype = {toml(EVIL)} }}]
    phases = [{{ name = {toml(EVIL)}, seconds = 30 }}, {{ name = "b", seconds = 30 }}]
    [archetypes.{toml(EVIL)}]
    base = "coder"
    tools = [{{ name = {toml(EVIL)} }}]
    {more}
    """
    return specs.decode(tomllib.loads(text))


def strangers_run(folder: Path) -> Path:
    """A run folder in which every string is hostile."""
    store = Store(folder)
    for record in made_run(agents=6, seconds=20.0, errors=0.2):
        changed = {"archetype": record.archetype + EVIL}
        if isinstance(record, Call):
            changed |= {"worker": EVIL, "tenant": EVIL, "endpoint": EVIL, "finish_reason": EVIL, "error": EVIL}
            changed |= {"status": record.status if record.status == "ok" else record.status + EVIL}
        elif isinstance(record, Tool):
            changed |= {"name": EVIL, "kind": EVIL, "error": EVIL}
        else:
            changed |= {"tenant": EVIL, "worker": EVIL, "error": EVIL}
            changed |= {"outcome": record.outcome if record.outcome == "done" else EVIL}
        store.emit(type(record)(**{name: getattr(record, name) for name in record.__struct_fields__} | changed))
    store.close()
    endpoint = {"url": EVIL, "model": EVIL, "server": EVIL, "client": EVIL, "timing": EVIL, "simulated": True}
    header = {
        "endpoint": endpoint, "spec_toml": EVIL, "spec": {"name": EVIL}, "started": EVIL, "agentload": EVIL, "seed": 1,
        "run_id": EVIL, "machine": {"system": EVIL}, "versions": {EVIL: EVIL}, "duration": 20.0,
        "health": {"stop_reason": EVIL}, "phases": [[EVIL, 0.0, 20.0, True]],
    }  # fmt: skip
    write_header(folder, header)
    return folder


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every page that agentload makes, by name."""
    home = tmp_path_factory.mktemp("pages")
    spec = plain_spec()
    evil = strangers_run(home / "stranger")
    options = Options(values=(1, 2), measure=30.0, repeats=1, census=4, simulate=True)
    swept, _ = sweep(structs.replace(spec, phases=[], duration=30.0), home / "runs", options)
    assumptions = home / "assumptions.toml"
    shipped = (resources.files("agentload") / "forecast.toml").read_text()
    assumptions.write_text(shipped.replace("100_000", "500").replace('source = "ours"', f"source = {toml(EVIL)}"))
    foreseen = forecast(read_assumptions(assumptions), [evil], home / "forecasts")
    tracing.fit(evil, home / "fitted.toml", "fitted")
    (home / "profile.html").write_text(chart(spec, 60.0))
    commands.simulate_spec(spec, home / "runs", quiet=True, as_json=True)
    ours = max((home / "runs").glob("*/report.html"), key=lambda path: path.stat().st_mtime)
    return {
        "a stranger's run": write_report(evil), "a run": ours, "a sweep": write_sweep(swept),
        "its factory": swept / "factory.html", "a forecast": foreseen / "forecast.html",
        "a fit": home / "fitted.html", "a profile": home / "profile.html",
    }  # fmt: skip


def test_no_markup_of_strangers_is_in_any_page(pages: dict[str, Path]) -> None:
    for name, path in pages.items():
        text = path.read_text()
        body = re.sub(r"<script\b.*?</script>", "", text, flags=re.DOTALL)
        assert not re.search(
            r'<(img|svg|iframe|base|a (?!href="(sweep|factory|points|forecast)\.(html|csv)"))\b', body
        ), name
        assert text.count("<script") - text.count("\\u003cscript") >= 3 and text.count(f"<script>{RUN}") == 0, name
        assert "Content-Security-Policy" in text and "'unsafe-eval'" not in text.split("</head>")[0], name
    for name in ("a stranger's run", "a run", "a sweep", "a profile"):
        assert html.escape(EVIL) in pages[name].read_text(), name  # it is shown, as text


def test_folders_are_not_made_elsewhere(pages: dict[str, Path]) -> None:
    home = pages["a fit"].parent

    assert {path.name for path in home.iterdir()} == {
        "stranger", "runs", "assumptions.toml", "forecasts", "fitted.toml", "fitted.html", "profile.html",
    }  # fmt: skip
    assert not list(home.parent.glob("elsewhere*"))


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium to look at the pages with")
def test_in_a_browser_nothing_of_strangers_runs(pages: dict[str, Path], tmp_path: Path) -> None:
    """All pages in frames of one, which hears of whatever runs; the last frame shows that it would."""
    naked = tmp_path / "naked.html"
    naked.write_text(f"<!doctype html><p>{re.sub('<iframe.*</iframe>', '', EVIL)}")
    shown = [path for name, path in pages.items() if name != "a run"]  # a stranger's is the same page
    frames = "".join(f'<iframe src="{path.as_uri()}" title="{i}"></iframe>' for i, path in enumerate([*shown, naked]))
    top = tmp_path / "top.html"
    top.write_text(
        "<!doctype html><body><script>addEventListener('message', e => {"
        "const i = [...document.querySelectorAll('iframe')].findIndex(f => f.contentWindow === e.source);"
        f"document.body.append(`[${{e.data}} in ${{i}}]`); }});</script>{frames}"
    )
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    with tempfile.TemporaryDirectory() as profile:
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", *quiet, f"--user-data-dir={profile}"]
        command += ["--allow-file-access-from-files", "--virtual-time-budget=3000", "--dump-dom", top.as_uri()]
        dom = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout

    ran = set(re.findall(r"\[ran in (-?\d+)\]", dom))
    assert ran == {str(len(shown))}  # in the naked page alone
    assert page("x", [], {}).count("<script") == 3
