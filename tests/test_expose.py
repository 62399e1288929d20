"""The run's own metrics for Prometheus, and the dashboards that ask for them."""

import functools
import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from test_collect_metrics import call, session

from agentload import spec as specs
from agentload.box.options import BoxOptions
from agentload.box.serve import BoxProcess
from agentload.errors import BadInput
from agentload.screen import Watch
from agentload.telemetry.beside import Beside
from agentload.telemetry.expose import Exposed, Live, exported
from collectors.records import Tool

ONE = {"profile": {"type": "held", "agents": 1}, "population": [{"archetype": "chat"}], "sessions": 1}
GRAFANA = Path(__file__).parent.parent / "docs" / "grafana"

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(page: str) -> Series:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def page(live: Live) -> Series:
    registry = CollectorRegistry()
    registry.register(live)
    return read(generate_latest(registry).decode())


def total(found: Series, name: str, **labels: str) -> float:
    wanted = set(labels.items())
    return sum(value for (key, have), value in found.items() if key == name and wanted <= set(have))


def test_the_page_says_what_the_records_say() -> None:
    live = Live(Watch())
    live.take(
        [
            call(tenant="gold", reasoning_tokens=3, argument_tokens=2, itl=(0.02, 0.2)),
            call(status="http_429", first=None, last=None, input_tokens=0, cached_tokens=0, output_tokens=0),
            Tool(0, "", "coder", 0, "shell", 1.0, 2.0, ok=False, result_tokens=5),
            session(),
            session(agent="0"),
        ]
    )
    found = page(live)

    accounts = {
        name: total(found, "agentload_tokens_total", account=name, archetype="coder", tenant="gold")
        for name in ("input_fresh", "input_cached", "output_reasoning", "output_arguments", "output_visible")
    }
    assert list(accounts.values()) == [40, 60, 3, 2, 6]
    assert total(found, "agentload_calls_total", status="ok") == total(found, "agentload_calls_total", tenant="") == 1
    assert total(found, "agentload_tool_calls_total", ok="false") == 1
    assert total(found, "agentload_sessions_total", outcome="done") == 1
    assert total(found, "agentload_sub_agents_total", outcome="done") == 1
    assert total(found, "agentload_ttft_seconds_bucket", le="0.25") == 0
    assert total(found, "agentload_ttft_seconds_bucket", le="0.5") == 1  # exactly half a second is within it
    assert total(found, "agentload_ttft_seconds_count") == total(found, "agentload_e2e_seconds_count") == 1
    assert total(found, "agentload_itl_seconds_count") == 2
    assert total(found, "agentload_itl_seconds_sum") == pytest.approx(0.22)
    assert total(found, "agentload_send_lag_seconds_count") == 2


@pytest.mark.parametrize(("late", "loop", "verdict"), [(0.009, 0.001, 1.0), (0.011, 0.001, 0.0), (0.009, 0.011, 0.0)])
def test_the_verdict_is_the_reports_on_what_is_known_so_far(late: float, loop: float, verdict: float) -> None:
    watch = Watch()
    watch.loop_lag_p99 = loop
    live = Live(watch)
    live.take([call(sent=1.0 + late) for _ in range(3)] + [call() for _ in range(97)])

    assert page(live)["agentload_trustworthy", ()] == verdict


def test_a_port_that_is_taken_stops_the_run_with_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(BadInput, match="name another --metrics-port"):
            Exposed(Live(Watch()), "127.0.0.1", taken.getsockname()[1])


def test_a_page_that_other_machines_can_reach_says_so_and_is_there_while_the_run_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = {"metrics_port": 0, "metrics_host": "0.0.0.0", "scrape": False}
    spec = specs.decode({**ONE, "telemetry": plain, "endpoint": {"url": "http://127.0.0.1:1/v1"}})
    with Beside(spec, Watch()) as beside:
        assert beside.exposed is not None
        port = beside.exposed.url.rpartition(":")[2]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5) as answer:
            assert "agentload_agents 0.0" in answer.read().decode()
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5)

    assert "can be reached from other machines" in capsys.readouterr().err


def test_a_run_with_workers_is_on_the_masters_page_while_it_goes_on(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    load = "--archetype chat --scale 0.1 --longest-wait 0.2 --agents 6 --duration 2 --drain 0.5 --workers 2"
    flags = f"{load} --metrics-port {port} --quiet"
    command = [sys.executable, "-m", "agentload", "run", *flags.split(), "--out", str(tmp_path)]
    found: Series = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            time.sleep(0.1)
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=1) as answer:
                    found = read(answer.read().decode())
            except OSError:
                continue
        said = process.stderr.read() if process.stderr else ""
    summary = json.loads(next(tmp_path.glob("*/summary.json")).read_text())

    assert process.returncode == 0, said
    assert f"the run's metrics are at http://127.0.0.1:{port}/metrics" in said
    assert 0 < total(found, "agentload_calls_total") <= summary["run"]["calls"]
    assert 0 < total(found, "agentload_tokens_total") <= summary["tokens"]["total"]
    assert total(found, "agentload_ttft_seconds_count", archetype="chat") > 0
    assert summary["server"]["pages"][0]["read"] > 2  # the master reads, for all of them


@functools.cache
def box_names() -> frozenset[str]:
    """Names of all series that the box has on its page."""
    with BoxProcess(BoxOptions()) as url, urllib.request.urlopen(f"{url.removesuffix('/v1')}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return frozenset(line.partition("{")[0].partition(" ")[0] for line in lines if line[:1] not in ("#", ""))


WORDS = {"sum", "max", "min", "rate", "by", "histogram_quantile", "label_values"}


def metric_names(query: str) -> set[str]:
    """The metrics that a PromQL expression names: no labels, strings, ranges, functions or groupings."""
    bare = re.sub(r'"[^"]*"', "", query)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\bby\s*\([^)]*\)|,\s*instance\)", "", bare)
    return set(re.findall(r"[A-Za-z_:][A-Za-z0-9_:]*", bare)) - WORDS


def test_names_are_found_in_a_query() -> None:
    query = 'histogram_quantile(0.9, sum by (le, a) (rate(x:y_bucket{job=~"z"}[$__rate_interval]))) / max(b_total)'

    assert metric_names(query) == {"x:y_bucket", "b_total"}


@pytest.mark.parametrize("file", sorted(GRAFANA.glob("*.json")), ids=lambda file: file.stem)
def test_every_query_of_a_dashboard_names_a_metric_that_there_is(file: Path) -> None:
    dashboard = json.loads(file.read_text())
    panels: list[dict[str, Any]] = dashboard["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    variables = [variable for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    queries += [variable["query"]["query"] for variable in variables]
    known = exported() | box_names()

    assert len(queries) > len(panels) > 10
    for query in queries:
        names = metric_names(query)
        assert names and names <= known, query
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)
    assert dashboard["schemaVersion"] and dashboard["uid"] and dashboard["title"]
    assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}


def test_the_dashboards_leave_none_of_our_own_metrics_out() -> None:
    text = (GRAFANA / "agentload.json").read_text()
    ends = ("_sum", "_count", "_info")

    assert not [name for name in exported() if not name.endswith(ends) and name not in text]
