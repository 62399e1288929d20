"""The servers' part of the report: their view beside the agents', on one time axis, and their counters beside the
ledger."""

from typing import Any

import numpy as np

from collectors import metrics
from collectors.boardcharts import panels
from collectors.charts import Figure, bins, label, plain
from collectors.load import Columns, Run
from collectors.page import section, table
from collectors.server import engine, level, rate, readings
from collectors.text import number, share
from collectors.vocabulary import WORDS

Summary = dict[str, Any]

CLIENT, RUNNING, WAITING, SHARE, OUT, POWER = "--ink", "#2b6fd6", "#e3b23c", "#9a62d8", "#ee8433", "#1fa187"


def figure(run: Run, calls: Columns, seconds: float) -> Figure | None:
    """The server's figures and the agents' over time; None where no server said how much it runs."""
    who, edges = engine(run.server), bins(seconds)
    if who is None or not len(calls):
        return None
    middle, width = (edges[:-1] + edges[1:]) / 2, np.diff(edges)
    flying = metrics.in_flight(calls)
    spans = np.append(flying.times[1:], flying.times[-1:]) - flying.times
    in_flight = metrics.spread(spans * flying.level, flying.times, flying.times + spans, edges) / width
    tokens = metrics.token_rate(calls, edges)
    output = sum(tokens[name] for name in metrics.ACCOUNTS if name.startswith("output"))

    def said(word: str) -> Any:
        return level(readings(run.server, who, word), middle, WORDS[word].mean)

    lines = [
        ("requests", "running, says the server", RUNNING, said("running")),
        ("requests", "waiting, says the server", WAITING, said("waiting")),
        ("requests", "calls in flight, as sent", CLIENT, in_flight),
        ("share of the KV cache in use", "KV cache", SHARE, said("kv_usage")),
        ("output tokens per second", "generated, says the server", OUT,
         rate(readings(run.server, who, "generation_tokens"), edges)),
        ("output tokens per second", "received", CLIENT, output),
        ("preemptions per second", "preemptions", "#d63f4c", rate(readings(run.server, who, "preemptions"), edges)),
        ("share of the time that GPUs were busy", "GPUs", POWER,
         level(readings(run.server, "dcgm", "gpu_usage"), middle, mean=True)),
        ("power of all GPUs, W", "power", POWER, level(readings(run.server, "dcgm", "power"), middle)),
    ]  # fmt: skip
    always = {"requests", "output tokens per second"}
    seen = [line for line in lines if line[0] in always or np.nansum(line[3]) > 0]
    titles = list(dict.fromkeys(line[0] for line in seen))
    data = []
    for title, name, colour, values in seen:
        axis = "" if title == titles[0] else str(titles.index(title) + 1)
        data.append(
            {"type": "scatter", "mode": "lines", "x": plain(middle), "y": plain(values), "name": label(name),
             "xaxis": f"x{axis}", "yaxis": f"y{axis}", "line": {"color": colour, "width": 2},
             "connectgaps": False}
        )  # fmt: skip
    made = panels(data, titles, "seconds", 110 + 160 * len(titles), columns=1)
    made["layout"] |= {"hovermode": "x unified", "margin": {"l": 56, "r": 24, "t": 84, "b": 40}}
    for i, title in enumerate(titles):
        axis = "" if i == 0 else str(i + 1)
        made["layout"][f"yaxis{axis}"]["rangemode"] = "tozero"
        if title.startswith("share"):
            made["layout"][f"yaxis{axis}"] |= {"tickformat": ".0%"}
    return made


def part(found: Summary | None, plot: str) -> str:
    """The section; "" where nothing was read."""
    if found is None:
        return ""
    tables = [ledger(found), rates(found), pages(found)]
    return section("What the server said", says(found), plot, *(text for text in tables if text))


def says(found: Summary) -> str:
    """The section's first lines."""
    if found["engine"] is None:
        return "No page that was read said how many requests its server runs."
    said = f"Read once a second from {found['engine']}'s metrics, on the clock of the calls. "
    if found["running"]:
        said += f"Up to {found['running']['peak']:,.0f} requests were running"
        said += f" and {found['waiting']['peak']:,.0f} waiting" if found["waiting"] else ""
        said += f"; at most {share(found['kv_usage']['peak'])} of the KV cache was in use" if found["kv_usage"] else ""
        said += ". "
    if found["preemptions"] is not None:
        said += f"{found['preemptions']:,.0f} requests were preempted. "
    if found["resets"]:
        said += f"{found['resets']:,} counters were reset: a server restarted. "
    return said.strip()


def ledger(found: Summary) -> str:
    """Each account as the server counted it and as it told us call by call."""
    rows = [
        [row["server"], row["account"], f"{row['counted']:,}", f"{row['ledger']:,}", row["says"]]
        for row in found["ledger"]
    ]
    head = ["server", "tokens", "counted by the server", "in the ledger", ""]
    return table(head, rows, words=True) if rows else ""


def rates(found: Summary) -> str:
    """Hit rates, and what the tokens cost in energy."""
    hit = found["hit_rate"]
    rows = [
        ["prefix hit rate, by the server's counters", share(hit["server"])],
        ["prefix hit rate, by the usage of answered calls", share(hit["calls"])],
        ["ideal: a cache that kept every chain's past, at least", share(hit["ideal"])],
    ]
    if busy := found["gpu_usage"]:
        rows.append(["time that GPUs were busy, on average", share(busy["mean"])])
    if held := found["gpu_memory"]:
        rows.append(["memory of all GPUs in use, at most", f"{number(held['peak'])}B"])
    if power := found["energy"]:
        how = {"counters": "by its counters", "power": "power over time", "spec": "as the spec says"}
        rows += [
            [f"energy of all GPUs, {how.get(power['source'], '')}",
             f"{number(power['joules'])} J ({number(power['mean_watts'])} W on average)"],
            ["tokens per joule, input and output", number(power["tokens_per_joule"])],
            ["output tokens per joule", number(power["output_tokens_per_joule"])],
        ] if power["source"] else []  # fmt: skip
        if power["gpus"]:
            name = f"output tokens per second and GPU ({number(power['gpus'])})"
            rows.append([name, number(power["output_tokens_per_second_per_gpu"])])
    return table(["", ""], rows)


def pages(found: Summary) -> str:
    """The pages that were read, where one of them failed or there are several."""
    rows = [
        [page["url"], ", ".join(page["servers"]), f"{page['read']:,}", f"{page['failed']:,}", page["error"][:120]]
        for page in found["pages"]
    ]
    whole = len(rows) == 1 and not found["pages"][0]["failed"]
    return "" if whole else table(["page", "servers", "read", "failed", ""], rows)
