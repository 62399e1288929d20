"""The report's tables: parts of summary.json as HTML."""

from typing import Any

from collectors import charts
from collectors.health import LIMITS, ms
from collectors.metrics import ACCOUNTS
from collectors.page import split_bar, table
from collectors.summary import BASELINE
from collectors.text import MARKS, duration_text, number, share

Summary = dict[str, Any]


def tokens_bar(tokens: Summary) -> str:
    """Every token of the run as one bar, cut by account."""
    return split_bar([(*charts.ACCOUNT[name], tokens[name], number(tokens[name])) for name in ACCOUNTS])


def latencies(serving: Summary) -> str:
    """Percentiles of every latency, with the calls that have none beside them."""
    names = {"ttft": "TTFT", "itl": "ITL", "tpot": "TPOT", "e2e": "E2E", "response_time": "response time"}
    columns = ("p50", "p90", "p95", "p99", "mean", "max")
    rows = [
        [
            title,
            *(duration_text(serving[key][c]) for c in columns),
            f"{serving[key]['count']:,}",
            f"{serving[key]['failed']:,}",
        ]
        for key, title in names.items()
        if serving[key]["count"]
    ]
    return table(["", *columns, "count", "calls not answered"], rows)


def promises(gate: Summary) -> str:
    """One row for each promise: what came of it, and what was seen."""
    several = len({check["group"] for check in gate["checks"]}) > 1
    rows = [
        [
            MARKS[check["verdict"]],
            f"{check['group']}: {check['name']}" if several else check["name"],
            check["said"],
        ]
        for check in gate["checks"]
    ]
    return table(["", "promise", "what was seen"], rows, words=True)


def archetypes(summary: Summary) -> str:
    """One row for each archetype of a session."""
    head = (
        "archetype", "sessions", "done", "calls per session", "input per call", "output per call", "in : out",
        "cache hit", "tokens per session", "per agent-hour", "per request", "× chat", "session, median",
    )  # fmt: skip
    jobs = summary["jobs"]["archetypes"]
    rows = []
    for name, row in summary["demand"]["archetypes"].items():
        rows.append(
            [
                name, f"{row['sessions']:,}", f"{row['done']:,}", number(row["calls_per_session"]),
                number(row["input_per_call"]["p50"]), number(row["output_per_call"]["p50"]),
                number(row["input_per_output"]), share(row["prefix_hit_rate"]), number(row["tokens_per_session"]),
                number(row["tokens_per_agent_hour"]), number(row["tokens_per_intent"]),
                number(row[f"tokens_per_intent_over_{BASELINE}"]), duration_text(ended(jobs, name)),
            ]
        )  # fmt: skip
    return table(head, rows)


def ended(jobs: Summary, name: str) -> float | None:
    """Median length of an archetype's sessions; None where all of them lay outside of what is counted."""
    return jobs[name]["session"]["p50"] if name in jobs else None


def sub_agents(found: Summary) -> str:
    """How many sub-agents an agent starts, by archetype; nothing where none were wanted."""
    if not found["started"] and not found["refused"]:
        return ""
    reproduction = found["reproduction"]
    rows = [
        [
            name,
            f"{r['agents']:,}",
            number(r["mean"]),
            f"{number(r['low'])} to {number(r['high'])}",
            f"{r['sessions']:,}",
        ]
        for name, r in [*reproduction["archetypes"].items(), ("all", reproduction)]
        if r["mean"] or name == "all"
    ]
    return table(["archetype", "agents", "sub-agents of each (R)", "95 % interval", "sessions"], rows, total=True)


def habits(found: Summary) -> str:
    """What else agents did, how often: only what happened."""
    born, tried, mistakes = found["sub_agents"], found["retries"], found["mistakes"]
    rows = [
        ("sub-agents cancelled: others were enough, or the session was", born["cancelled"]),
        ("sub-agents refused: the session had as many agents as it may", born["refused"]),
        ("calls tried again", tried["again"]),
        ("… because the endpoint refused them (429, 503)", tried["refused"]),
        ("calls that agents gave up on", found["patience"]["gave_up"]),
        ("… tokens of those", found["patience"]["tokens"]),
        ("… sessions that ended with it", found["patience"]["abandoned"]),
        ("conversations summarised to go on (compactions)", found["compactions"]),
        ("histories forgotten without a summary (resets)", found["resets"]),
        ("histories changed by their harness (rewrites)", found["rewrites"]),
        ("instants of a schedule that found their agent still at work", found["missed"]),
        ("tool calls of tools that do not exist", mistakes["unknown"]),
        ("tool calls with arguments that do not fit", mistakes["malformed"]),
        *((f"own agent failed: {text}", count) for text, count in found["faults"].items()),
    ]
    happened = [(what, f"{count:,}") for what, count in rows if count]
    return table(["", "times"], happened) if happened else ""


def errors(found: Summary) -> str:
    """What went wrong, how often, and an example of what was said."""
    if not found:
        return ""
    rows = [[status, f"{e['count']:,}", e["example"][:160]] for status, e in found.items()]
    return table(["status", "calls", "example"], rows, words=True)


def health(summary: Summary) -> str:
    """What this machine did to the measurement, beside what is allowed."""
    health, lag = summary["health"], summary["serving"]["send_lag"]
    rows = [
        (
            "send lag p50 / p99 / max",
            f"{duration_text(lag['p50'])} / {duration_text(lag['p99'])} / {duration_text(lag['max'])}",
            ms(LIMITS.send_lag),
        ),
        (
            "event-loop lag p50 / p99 / max",
            " / ".join(duration_text(health.get(f"loop_lag_{p}")) for p in ("p50", "p99", "max")),
            ms(LIMITS.loop_lag),
        ),
        ("CPU of the sender, of one core", share(health.get("cpu_share")), share(LIMITS.cpu_share)),
        ("CPU of this machine, of all cores", share(health.get("machine_cpu")), share(LIMITS.machine_cpu)),
    ]
    rows = [row for row in rows if row[1].strip("– /")]  # not every runner records everything
    return table(["", "measured", "limit"], rows)


def named(rows: Summary) -> str:
    """Tenants or endpoints beside each other."""
    heads = [
        "",
        "sessions",
        "calls",
        "attempts per call",
        "refused",
        "in",
        "out",
        "own quota p99",
        "TTFT p50",
        "TTFT p99",
    ]
    lines = [
        [
            name,
            f"{row['sessions']:,}",
            f"{row['calls']:,}",
            number(row["attempts_per_call"]),
            f"{row['refused']:,}",
            number(row["input_tokens"]),
            number(row["output_tokens"]),
            duration_text(row["throttled_seconds"]["p99"]),
            duration_text(row["ttft"]["p50"]),
            duration_text(row["ttft"]["p99"]),
        ]
        for name, row in rows.items()
    ]
    return table(heads, lines)


def ledger(tokens: Summary) -> str:
    """Tokens by account and use."""
    uses = tokens["uses"]
    rows = [
        [charts.ACCOUNT[n][0], *(f"{uses[use][n]:,}" for use in uses), f"{tokens[n]:,}", share(_part(tokens, n))]
        for n in ACCOUNTS
    ]
    rows.append(["all", *(f"{uses[use]['total']:,}" for use in uses), f"{tokens['total']:,}", ""])
    by, wasted = tokens["counted_by"], tokens["wasted_by"]
    caption = (
        f"Counted by the server: {by['server']:,} tokens; estimated: {by['estimated']:,}. Wasted in calls that were "
        f"not answered: {wasted['failed_calls']:,}; in sessions that failed: {wasted['failed_sessions']:,}."
    )
    return (
        table(["account", *(use.replace("_", " ") for use in uses), "total", "share"], rows, total=True)
        + f'<p class="note">{caption}</p>'
    )


def _part(tokens: Summary, name: str) -> float | None:
    return tokens[name] / tokens["total"] if tokens["total"] else None


def drift(found: Summary) -> str:
    """Wanted tokens beside those that the server counted."""
    keys = ("median_relative", "median_absolute_relative", "p95_absolute_relative")
    rows = [
        [
            side,
            f"{d['wanted_tokens']:,}",
            f"{d['counted_tokens']:,}",
            *("–" if d[k] is None else f"{d[k]:.2%}" for k in keys),
        ]
        for side, d in found.items()
    ]
    return table(["", "wanted", "counted", "median error", "median size of error", "p95 size of error"], rows)
