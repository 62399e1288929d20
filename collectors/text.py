"""The summary as a few lines of plain text for a terminal: the verdict first."""

from typing import Any

from collectors.health import ms


def to_text(summary: dict[str, Any]) -> str:
    """summary.json as text, without a trailing newline."""
    run, tokens, demand = summary["run"], summary["tokens"], summary["demand"]
    outcomes = ", ".join(f"{n:,} {one_line(name).replace('_', ' ')}" for name, n in summary["jobs"]["outcomes"].items())
    lines = [
        *verdict_lines(summary["verdict"]),
        "",
        *gate_lines(summary.get("slo")),
        f"{'endpoint':<12}{_endpoint(summary['endpoint'])}",
        f"{'run':<12}{number(run['seconds'])} s, up to {run['agents_peak']:,} agents and "
        f"{run['calls_in_flight_peak']:,} calls in flight",
        f"{'sessions':<12}{run['sessions']:,} ({outcomes or 'none'}), {run['calls']:,} calls, "
        f"{run['tool_calls']:,} tool calls",
        f"{'tokens':<12}{number(tokens['input'])} in ({share(demand['prefix_hit_rate'])} cached), "
        f"{number(tokens['output'])} out, {number(tokens['uses']['wasted']['total'])} wasted",
        f"{'demand':<12}{number(demand['tokens_per_agent_hour'])} tokens per agent-hour, "
        f"{number(demand['calls_per_session'])} calls per session",
        *_amplification(demand),
        *_replayed(summary.get("replay")),
        *_habits(summary["habits"]),
        *_server(summary.get("server")),
        "",
        *_latency_lines(summary["serving"]),
    ]
    lines += [
        f"{one_line(name):<22}{error['count']:>7,}  {one_line(error['example'])[:90]}"
        for name, error in summary["errors"].items()
    ]
    return "\n".join(lines)


def verdict_lines(verdict: dict[str, Any]) -> list[str]:
    """The verdict, its reasons and its notes, one a line."""
    head = "Trustworthy: this machine was not the limit." if verdict["trustworthy"] else "NOT TRUSTWORTHY"
    reasons, notes = (map(one_line, verdict[name]) for name in ("reasons", "notes"))
    return [head, *(f"  ✗ {reason}" for reason in reasons), *(f"  · {note}" for note in notes)]


def one_line(text: str) -> str:
    """Text of others, which must not look like lines of ours."""
    return " ".join(text.split())


GATES = {"pass": "all kept", "fail": "BROKEN", "undecided": "COULD NOT BE JUDGED"}
MARKS = {"pass": "✓ kept", "fail": "✗ broken", "undecided": "? cannot be said"}


def gate_lines(gate: dict[str, Any] | None) -> list[str]:
    """What became of each promise (`collectors.gate`), and an empty line; nothing where nothing was promised."""
    if not gate:
        return []
    several = len({check["group"] for check in gate["checks"]}) > 1
    rows = [
        f"  {MARKS[check['verdict']]:<18}{check['group'] + ': ' if several else ''}{check['name']}: {check['said']}"
        for check in gate["checks"]
    ]
    return [f"Promises: {GATES[gate['verdict']]}", *(f"  · {reason}" for reason in gate["reasons"]), *rows, ""]


def _endpoint(endpoint: dict[str, Any]) -> str:
    where = one_line(f"{endpoint['model'] or 'unknown model'} at {endpoint['url'] or 'unknown address'}")
    return f"{where} (a SIMULATED cluster)" if endpoint["simulated"] else where


def _replayed(replay: dict[str, Any] | None) -> list[str]:
    if replay is None:
        return []
    over = f"; {replay['ended_by_context']:,} ended at the context" if replay["ended_by_context"] else ""
    return [
        f"{'replay':<12}{one_line(replay['trace'])} ({replay['sessions']:,} sessions), gaps capped at "
        f"{number(replay['longest_gap'])} s{over}"
    ]


def _amplification(demand: dict[str, Any]) -> list[str]:
    base = demand["baseline"]
    if base is None:
        return []
    times = {name: row[f"tokens_per_intent_over_{base}"] for name, row in demand["archetypes"].items() if name != base}
    return [
        f"{'':<12}one {one_line(name)} request = {number(x)} {base} requests"
        for name, x in times.items()
        if x is not None
    ]


def _habits(habits: dict[str, Any]) -> list[str]:
    """What agents did beside calling, where they did it."""
    born, tried = habits["sub_agents"], habits["retries"]
    lines = []
    if born["started"] or born["refused"]:
        r = born["reproduction"]
        lines.append(
            f"{'sub-agents':<12}{born['started']:,}, {interval(r)} per agent, {number(born['progeny']['mean'])} agents "
            f"per session (at most {number(born['progeny']['max'])})"
            + "".join(f", {born[word]:,} {word}" for word in ("cancelled", "refused") if born[word])
        )
    if tried["again"]:
        lines.append(
            f"{'retries':<12}{tried['again']:,}, {number(tried['attempts_per_call'])} attempts per call "
            f"({number(tried['worst']['attempts_per_call'])} in the worst {tried['worst']['seconds']:.0f} s)"
        )
    lost = habits["patience"]
    if lost["gave_up"]:
        lines.append(
            f"{'patience':<12}{lost['gave_up']:,} calls given up ({number(lost['tokens'])} tokens), "
            f"{lost['abandoned']:,} sessions abandoned"
        )
    lines += [f"{'own code':<12}{count:,} × {text}" for text, count in habits["faults"].items()]
    return lines


def interval(estimate: dict[str, Any]) -> str:
    """An estimate with its interval, where there is one."""
    known = estimate["low"] is not None
    return number(estimate["mean"]) + (f" ({number(estimate['low'])} to {number(estimate['high'])})" if known else "")


def _server(found: dict[str, Any] | None) -> list[str]:
    """What the server said of itself, and where its counters differ from the ledger."""
    if found is None:
        return []
    said = [f"up to {found[word]['peak']:,.0f} {word}" for word in ("running", "waiting") if found[word] is not None]
    if found["kv_usage"]:
        said.append(f"KV cache {share(found['kv_usage']['peak'])} at most")
    if found["preemptions"]:
        said.append(f"{found['preemptions']:,.0f} preemptions")
    apart = [row for row in found["ledger"] if row["difference"]]
    lines = [
        f"{'server':<12}{', '.join(said)}{'' if apart or not found['ledger'] else ', counters equal to the ledger'}"
    ]
    if apart:
        most = max(apart, key=lambda row: abs(row["difference"]))
        off = ", ".join(f"{row['difference']:+,} {row['account']}" for row in apart)
        lines.append(f"{'':<12}its counters less the ledger: {off} ({'; '.join(most['reasons'])})")
    return lines


def _latency_lines(serving: dict[str, Any]) -> list[str]:
    rows = [f"{'':<12}{'p50':>10}{'p90':>10}{'p99':>10}{'calls':>10}   not answered"]
    names = {
        "ttft": "TTFT",
        "tpot": "TPOT",
        "itl": "ITL",
        "e2e": "E2E",
        "response_time": "response",
        "send_lag": "send lag",
    }
    for key, name in names.items():
        figures = serving[key]
        if figures["count"]:
            values = "".join(f"{duration_text(figures[p]):>10}" for p in ("p50", "p90", "p99"))
            rows.append(f"{name:<12}{values}{figures['count']:>10,}   {figures['failed'] or ''}".rstrip())
    return rows


def number(value: float | None) -> str:
    """Three significant digits with k, M, G, T; "–" for nothing."""
    if value is None:
        return "–"
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit * 0.9995:
            return f"{value / limit:#.3g}".rstrip(".") + unit
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def share(value: float | None) -> str:
    """A share as a percentage; "–" for nothing."""
    return "–" if value is None else f"{value:.0%}" if 0.1 < value < 0.995 or value in (0, 1) else f"{value:.1%}"


def duration_text(seconds: float | None) -> str:
    """Milliseconds below a second, seconds above; "–" for nothing."""
    return "–" if seconds is None else ms(seconds) if seconds < 1 else f"{seconds:,.3g} s"
