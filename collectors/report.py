"""report.html: what a run did to the cluster, as one page that works offline."""

import math
from html import escape
from pathlib import Path
from typing import Any

import msgspec

from collectors import charts, serverpage, tables
from collectors.baseline import intervals
from collectors.health import LIMITS, ms
from collectors.load import Run, load_run
from collectors.metrics import agents_calls, answered
from collectors.page import card, page, plot, section
from collectors.recovery import recover
from collectors.store import write_file
from collectors.summary import BASELINE, duration, summarise
from collectors.text import GATES, duration_text, number, share
from collectors.waterfall import waterfall

Summary = dict[str, Any]

HEADLINE = 3
"""Sessions that must have come to their own end before an archetype's tokens per request are said at the top."""


def write_report(folder: Path | str) -> Path:
    """Write summary.json and report.html of a run, made whole first if it was interrupted; the report's path."""
    folder = Path(folder)
    recover(folder)
    run = load_run(folder)
    summary = summarise(run) | {"intervals": intervals(run)}
    write_file(folder / "summary.json", msgspec.json.format(msgspec.json.encode(summary), indent=2))
    write_file(folder / "report.html", render(run, summary).encode())
    return folder / "report.html"


def render(run: Run, summary: Summary) -> str:
    """The report as HTML."""
    figures = _figures(run, summary)
    spot = {name: plot(name, figure["layout"]["height"]) for name, figure in figures.items()}
    return page(title(summary), [*_top(summary), *_sections(summary, spot), *_fine_print(run, summary)], figures)


def _figures(run: Run, summary: Summary) -> dict[str, charts.Figure]:
    """Every figure that has something to show."""
    calls, seconds, demand = agents_calls(run.calls), duration(run), summary["demand"]
    if not len(calls):
        return {}
    ok = answered(calls)
    rows = demand["archetypes"]
    figures = {
        "demand": charts.demand(calls, seconds),
        "population": charts.population(calls, run.sessions, seconds, summary["run"]["agents_asked"]),
        "send_lag": charts.send_lag(calls, LIMITS.send_lag),
        "bursts": charts.bursts(summary["burstiness"]),
    }
    if len(ok):
        figures |= {"latency": charts.latencies(ok), "growth": charts.growth(ok), "depth": charts.depth(ok)}
    if len(run.sessions):
        figures |= {
            "time": charts.time_shares(calls, run.sessions),
            "waterfall": waterfall(calls, run.tools, run.sessions),
            "cache": charts.cache(rows),
        }
    if any(row["tokens_per_intent"] for row in rows.values()):
        figures["amplification"] = charts.amplification(rows, BASELINE)
    if (server := serverpage.figure(run, calls, seconds)) is not None:
        figures["server"] = server
    if summary["errors"]:
        figures["failures"] = charts.failures(calls, seconds)
    return figures


def title(summary: Summary) -> str:
    """What ran against what."""
    run, endpoint = summary["run"], summary["endpoint"]
    who = f"{run['agents_peak']:,} agents" if run["agents_peak"] != 1 else "1 agent"
    return f"{who} against {endpoint['model'] or endpoint['url'] or 'an endpoint'}"


# The top: what a stranger should know after ten seconds.


def _top(summary: Summary) -> list[str]:
    run, endpoint = summary["run"], summary["endpoint"]
    badge = ' <span class="badge">SIMULATED CLUSTER</span>' if endpoint["simulated"] else ""
    over = [
        f"agentload {run['agentload']}" if run["agentload"] else "agentload",
        str(run["started"] or "")[:16].replace("T", " "),
        f"{number(run['seconds'])} s",
        f"seed {run['seed']}" if run["seed"] is not None else "",
        endpoint["url"] or "",
    ]
    return [
        f'<div class="over">{escape(" · ".join(part for part in over if part))}</div>',
        f"<h1>{escape(title(summary))}{badge}</h1>",
        f'<p class="lede">{_lede(summary)}</p>',
        _verdict(summary["verdict"]),
        _promises(summary["slo"]),
        f'<div class="cards">{"".join(_cards(summary))}</div>',
    ]


def _lede(summary: Summary) -> str:
    run, tokens, demand = summary["run"], summary["tokens"], summary["demand"]
    said = (
        f"In {number(run['seconds'])} seconds <b>{run['sessions']:,} sessions</b> made <b>{run['calls']:,} model "
        f"calls</b> and {run['tool_calls']:,} tool calls, and sent <b>{number(tokens['input'])} tokens</b> to get "
        f"{number(tokens['output'])} back"
    )
    if demand["prefix_hit_rate"]:
        said += f"; <b>{share(demand['prefix_hit_rate'])}</b> of what they sent came from the prefix cache"
    most = _most_amplified(demand)
    if most:
        said += (
            f". One request to a {escape(most[0])} cost the cluster as much as <b>{number(most[1])}</b> chat messages"
        )
    return said + "."


def _most_amplified(demand: Summary) -> tuple[str, float] | None:
    """The archetype furthest above the baseline, and how far; of those with enough sessions to make a headline."""
    rows = {name: row for name, row in demand["archetypes"].items() if row["ended"] >= HEADLINE}
    times = [(row[f"tokens_per_intent_over_{BASELINE}"] or 0.0, name) for name, row in rows.items() if name != BASELINE]
    factor, name = max(times, default=(0.0, ""))
    return (name, factor) if factor else None


def _verdict(verdict: Summary) -> str:
    good = verdict["trustworthy"]
    head = "Trustworthy." if good else "Not trustworthy."
    why = "The machine that made the load was not the limit." if good else ""
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in verdict["reasons"])
    notes = "".join(f"<li>{escape(note)}</li>" for note in verdict["notes"])
    parts = [f"<b>{head}</b> {why}", f"<ul>{reasons}</ul>" if reasons else ""]
    parts.append(f'<ul class="note">{notes}</ul>' if notes else "")
    return f'<div class="verdict {"good" if good else "bad"}">{"".join(parts)}</div>'


def _promises(gate: Summary | None) -> str:
    """What became of each promise, as a table; nothing where none was made."""
    if not gate:
        return ""
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in gate["reasons"])
    head = f"<b>Promises: {GATES[gate['verdict']]}</b>" + (f"<ul>{reasons}</ul>" if reasons else "")
    return f'<div class="verdict {"good" if gate["verdict"] == "pass" else "bad"}">{head}{tables.promises(gate)}</div>'


def _cards(summary: Summary) -> list[str]:
    run, tokens, demand, serving = (summary[key] for key in ("run", "tokens", "demand", "serving"))
    outcomes, ttft = summary["jobs"]["outcomes"], serving["ttft"]
    rest = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in outcomes.items() if name != "done")
    cards = [
        card(
            "Sessions done", number(outcomes.get("done", 0)), f"of {run['sessions']:,}" + (f": {rest}" if rest else "")
        ),
        card(
            "Model calls",
            number(run["calls"]),
            f"{number(serving['calls_per_second'])} answered per second; {_failed(summary):,} not answered",
        ),
        card(
            "Tokens",
            number(tokens["total"]),
            f"{number(demand['input_per_output'])} in for 1 out; {number(tokens['uses']['wasted']['total'])} wasted",
        ),
        card("Prefix cache", share(demand["prefix_hit_rate"]), "of input tokens that the server did not compute again"),
        card("TTFT, median", duration_text(ttft["p50"]), f"time to first token; p99 {duration_text(ttft['p99'])}"),
        card("Per agent-hour", number(demand["tokens_per_agent_hour"]), "tokens caused by an agent that never stops"),
    ]
    most = _most_amplified(demand)
    if most:
        cards.append(card(f"One {most[0]} =", number(most[1]), "people who chat, by tokens per human request"))
    return cards


# The sections, each with one sentence that says what it shows.


def _sections(summary: Summary, spot: dict[str, str]) -> list[str]:
    demand, tokens = summary["demand"], summary["tokens"]
    chains = spot.get("growth", "") + spot.get("depth", "")
    found = [
        section("What was replayed", _says_replay(summary["replay"])) if summary.get("replay") else "",
        section("Token demand", _says_demand(demand), tables.tokens_bar(tokens), spot.get("demand", "")),
        section("Agents and calls", _says_population(summary), spot.get("population", "")),
        section(
            "How long calls took", _says_latency(summary), spot.get("latency", ""), tables.latencies(summary["serving"])
        ),
        section("Along the chain", _says_chain(demand), chains) if chains else "",
        section("Where the time of a session goes", _says_time(summary), spot["time"]) if "time" in spot else "",
        section(
            "Some sessions, call by call",
            "Each row is an agent, sub-agents below the session that started them: of every archetype a typical "
            "session and a long one.",
            spot["waterfall"],
        )
        if "waterfall" in spot
        else "",
        section("By archetype", "Sub-agents count towards the session that started them.", tables.archetypes(summary)),
        _habits(summary["habits"]),
    ]
    found.append(serverpage.part(summary["server"], spot.get("server", "")))
    if "amplification" in spot:
        says = (
            "What one thing asked for by a person costs in tokens, chatting and with an agent at work. Of sessions "
            "that came to their own end, which in a short run are the shorter ones."
        )
        found.append(section("Tokens per human request", says, spot["amplification"]))
    if "cache" in spot:
        says = (
            "Chains resend their past at every step. A cache that kept every chain's past would serve at least the "
            "grey bar; prompts shared between sessions can take it further."
        )
        found.append(section("Prefix cache", says, spot["cache"]))
    return [
        *found,
        section(
            "Errors and attempts", _says_errors(summary), spot.get("failures", ""), tables.errors(summary["errors"])
        ),
        *(
            section(title, says, tables.named(summary[name]))
            for name, title, says in (
                (
                    "tenants",
                    "By tenant",
                    "Own quota: seconds a call waited for its tenant's own limit, before it was sent.",
                ),
                ("endpoints", "By endpoint", "A session keeps to one endpoint."),
            )
            if summary.get(name)
        ),
        section("Burstiness", _says_bursts(summary["burstiness"]), spot.get("bursts", "")),
        section("Health of the measurement", _says_health(summary), tables.health(summary), spot.get("send_lag", "")),
        section("Token ledger", "Every token is in one row and in one column.", tables.ledger(tokens)),
        section("Wanted and counted", _says_drift(summary["drift"]), tables.drift(summary["drift"])),
    ]


def _says_replay(replay: Summary) -> str:
    """The trace, the caps that were put on its gaps, and what did not fit."""
    caps = [f"people, and gaps that nobody explains, take at most {number(replay['longest_gap'])} s"]
    if math.isfinite(replay["longest_tool"] or math.inf):
        caps.append(f"tools at most {number(replay['longest_tool'])} s")
    said = (
        f"{escape(replay['trace'])} ({escape(replay['format'])}, digest {escape(replay['digest'])}): "
        f"{replay['sessions']:,} sessions with {replay['calls']:,} calls. Gaps count from the end of what went before; "
        f"{', '.join(caps)}."
    )
    said += f" Time runs {number(replay['speed'])} times faster." if replay["speed"] != 1 else ""
    said += f" Every token count is multiplied by {number(replay['scale'])}." if replay["scale"] != 1 else ""
    if replay["calls_too_long"]:
        said += (
            f" {replay['calls_too_long']:,} of its calls do not fit the context: {replay['ended_by_context']:,} "
            "sessions ended there."
        )
    said += f" {replay['damaged']:,} damaged lines of it were left out." if replay["damaged"] else ""
    return said


def _habits(habits: Summary) -> str:
    """Sub-agents and what else agents did beside calling; nothing where they only called."""
    parts = tables.sub_agents(habits["sub_agents"]) + tables.habits(habits)
    return section("What agents did beside calling", _says_habits(habits), parts) if parts else ""


def _says_habits(habits: Summary) -> str:
    born, tried = habits["sub_agents"], habits["retries"]
    said = []
    if born["started"]:
        r = born["reproduction"]["mean"]
        said.append(
            f"An agent started {number(r)} others on average; a session had {number(born['progeny']['mean'])} agents, "
            f"at most {number(born['progeny']['max'])}"
            + ("." if r is None or r < 1 else ": from 1 on, nothing but limits ends a session.")
        )
    if tried["again"]:
        worst = tried["worst"]
        said.append(
            f"{number(tried['attempts_per_call'])} attempts were made per call, "
            f"{number(worst['attempts_per_call'])} in the worst {worst['seconds']:.0f} s, from "
            f"{number(worst['from'])} s on; trying again took {number(tried['again_tokens'])} tokens."
        )
    return " ".join(said) or "Sub-agents, harness and tools."


def _says_demand(demand: Summary) -> str:
    return (
        f"A session caused {number(demand['tokens_per_session'])} tokens in {number(demand['calls_per_session'])} "
        "calls, sub-agents included; "
        f"{share(demand['resent_share'])} of the input was context that its own chain had sent before."
    )


def _says_population(summary: Summary) -> str:
    run = summary["run"]
    asked = f" ({run['agents_asked']:,} were asked for)" if run["agents_asked"] is not None else ""
    return (
        f"Up to {run['agents_peak']:,} agents{asked} and {run['sub_agents_peak']:,} sub-agents were alive at once; on "
        f"average {number(run['calls_in_flight_mean'])} calls were in flight, at most {run['calls_in_flight_peak']:,}. "
        f"By Little's law {number(run['littles_law']['per_second'])} calls/s of "
        f"{number(run['littles_law']['seconds'])} s each make "
        f"{number((run['littles_law']['per_second'] or 0) * (run['littles_law']['seconds'] or 0))}."
    )


def _says_latency(summary: Summary) -> str:
    packed = summary["serving"]["tokens_per_chunk"]
    said = "The curve says what share of calls was at most so slow; calls that were not answered have no latency."
    if packed and packed > 1.05:
        said += f" The server sent {number(packed)} tokens at a time, so ITL is between pieces, not tokens."
    return said


def _says_chain(demand: Summary) -> str:
    return (
        "The input of a call grows with every step; the dark part is what the server had to compute. Depths that fewer "
        f"than three calls reached are left out. {demand['compactions']:,} compactions."
    )


def _says_time(summary: Summary) -> str:
    jobs = summary["jobs"]
    spent = jobs["time_share"]
    return (
        f"Over all sessions: {share(spent['model'])} in the model, {share(spent['tool'])} in tools, "
        f"{share(spent['join'])} for sub-agents, {share(spent['wait'])} waiting for people or backing off. "
        f"A finished session took {number(jobs['session']['p50'])} s in the median. "
        + _says_caps(summary["habits"]["caps"])
    )


def _says_caps(caps: Summary) -> str:
    """How long people, tools and schedules could take at most."""
    everyone = math.inf if caps["all"] is None else caps["all"]
    people = {name: cap for name, cap in caps["people"].items() if cap is not None and cap < everyone}
    if everyone == math.inf and not people:
        return "No tool, person or schedule was cut short."
    said = [f"people before {escape(name)} agents took at most {cap:,.4g} s" for name, cap in people.items()]
    if everyone < math.inf:
        said.append(f"no tool, person or schedule took more than {everyone:,.4g} s (<code>longest_wait</code>)")
    return f"By design, {' and '.join(said)}."


def _failed(summary: Summary) -> int:
    """Calls that were not answered, in whatever phase."""
    return sum(error["count"] for error in summary["errors"].values())


def _says_errors(summary: Summary) -> str:
    failed, calls = _failed(summary), summary["run"]["calls"]
    attempts, resends = summary["demand"]["attempts_per_call"], summary["serving"]["silent_resends"]
    said = f"{failed:,} of {calls:,} calls were not answered; "
    said += "none was tried again." if attempts == 1 else f"{number(attempts)} attempts were made per call."
    return said + (f" {resends:,} were sent again after a pooled connection had died." if resends else "")


def _says_bursts(burstiness: Summary) -> str:
    return (
        "How unevenly calls and sessions arrive: 1 is a Poisson process, above it they come in bursts, below it they "
        f"are paced. The busiest second had {number(burstiness['calls']['peak_to_mean_1s'])} times the mean of calls."
    )


def _says_health(summary: Summary) -> str:
    lag = summary["serving"]["send_lag"]
    return (
        "What this machine added to the figures. Send lag is the time between when a call was due and when it was "
        f"sent; its p99 was {duration_text(lag['p99'])}, and at most {ms(LIMITS.send_lag)} is trusted."
    )


def _says_drift(drift: Summary) -> str:
    return f"How close the server's own token counts came to what was wanted, over {drift['input']['calls']:,} calls."


# The fine print.

WORDS = {
    "session, step, call": "one agent's run; one round of its chain; one request to the model",
    "TTFT": "first token − sent; the first text, reasoning or tool call, never an empty chunk",
    "ITL": "gap between neighbouring pieces of output; between tokens only if the server sends them one by one",
    "TPOT": "(last token − first token) / (output tokens − 1), one number per call",
    "E2E": "end − sent; response time is end − due, what a user waits",
    "send lag": "sent − due − connecting: the generator's own lateness",
    "tokens per human request": "input and output tokens of sessions that ended by themselves, over requests answered",
    "tokens per agent-hour": "input and output tokens over the hours that sessions were alive",
    "wasted": "tokens of calls that were not answered, and of agents that failed or were cancelled",
    "cut off": "tokens of calls that were under way when the run ended: nobody can say what they would have bought",
    "R": "sub-agents that an agent starts, on average, in sessions that ended by themselves",
    "index of dispersion": "variance over mean of the number of arrivals in windows of one length",
}


def _fine_print(run: Run, summary: Summary) -> list[str]:
    words = "".join(f"<dt>{escape(word)}</dt><dd>{escape(meaning)}</dd>" for word, meaning in WORDS.items())
    spec = run.header.get("spec_toml") or _json(run.header.get("spec") or {})
    keys = ("endpoint", "machine", "versions", "clock_anchor")
    where = escape(_json({key: run.header[key] for key in keys if key in run.header}))
    return [
        f"<section><details><summary>What the words mean</summary><dl>{words}</dl></details></section>",
        f"<section><details><summary>The spec, as resolved</summary><pre>{escape(spec)}</pre></details></section>",
        f"<section><details><summary>Endpoint, machine, versions</summary><pre>{where}</pre></details></section>",
        "<footer>Made by agentload from the records beside this file; <code>agentload report</code> makes it again."
        + escape(_simulated(summary["endpoint"]))
        + "</footer>",
    ]


def _simulated(endpoint: dict[str, Any]) -> str:
    if not endpoint["simulated"]:
        return ""
    whose = f" ({endpoint['timing']})" if endpoint["timing"] else ""
    return f" The cluster was simulated: its times are a model's{whose}."


def _json(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
