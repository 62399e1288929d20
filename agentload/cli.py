"""The command line. Commands read their arguments, build the pieces, run them and print; nothing else happens here.

Each command imports what it needs when it runs, so that `--help` and `--version` answer at once.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from agentload import completion
from agentload.errors import BadInput, Failed
from agentload.terminal import say, warn

app = typer.Typer(
    name="agentload",
    help="Run populations of synthetic AI agents against an inference endpoint, and see what they ask of it.",
    epilog="Begin with `agentload run`: it needs no endpoint, no GPU and no spec, and writes a report in a minute.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy's threads spin while they wait, on the cores we measure with


def main() -> None:
    """What the `agentload` command runs.

    Exit codes: 0 done, 1 failed or a promise broken, 2 bad input, 3 promises that could not be judged, 130 interrupted.
    """
    signal.signal(signal.SIGTERM, terminated)
    try:
        app()
    except BadInput as error:
        warn(error)
        sys.exit(BAD_INPUT)
    except Failed as error:
        warn(error)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def terminated(*_: object) -> None:
    """What containers stop with is Ctrl-C, also where that itself is ignored: in what a script starts with `&`."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


def version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        say(f"agentload {metadata.version('agentload')}")
        raise typer.Exit


@app.callback()
def about(
    show_version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """Run populations of synthetic AI agents against an inference endpoint, and see what they ask of it."""


SpecFile = Annotated[Path | None, typer.Argument(help="A TOML spec. Without one: a mixed population.")]
Url = Annotated[
    str | None, typer.Option(help="Base URL of the endpoint, with /v1. Without one: the simulated cluster.")
]
Model = Annotated[str | None, typer.Option(help="Model name; may be left out where there is only one.")]
ApiKeyEnv = Annotated[str | None, typer.Option(help="Environment variable that holds the key.")]
ApiKeyFile = Annotated[str | None, typer.Option(help="File that holds the key in its place; - reads it from stdin.")]
Api = Annotated[str | None, typer.Option(help="chat (the default), responses or completions.")]
CaFile = Annotated[str | None, typer.Option(help="PEM file of the authorities to trust for https.")]
SessionHeader = Annotated[str | None, typer.Option(help="Header to carry the session, for session-affine routers.")]
ClientName = Annotated[str | None, typer.Option(help="wire (fast, our own) or sdk (the stock openai client).")]
Archetypes = Annotated[
    list[str] | None,
    typer.Option(help="NAME or NAME=WEIGHT; repeat for a mix.", autocompletion=completion.archetypes),
]
OwnAgents = Annotated[
    list[str] | None, typer.Option(help="FILE.py:FUNCTION, an agent of your own, or …=WEIGHT; repeat for a mix.")
]
Mode = Annotated[str | None, typer.Option(help="sized (lengths are drawn) or live (the model decides).")]
Agents = Annotated[int | None, typer.Option(help="Closed loop: hold this many agents.")]
Rate = Annotated[float | None, typer.Option(help="Open loop: sessions per second.")]
ProfileName = Annotated[
    str | None,
    typer.Option(
        help="Load profile by name: held, poisson, ramp, spike, hawkes, …", autocompletion=completion.profiles
    ),
]
Duration = Annotated[float | None, typer.Option(help="Seconds after which no session starts.")]
Warmup = Annotated[float | None, typer.Option(help="Seconds at the start that are not counted.")]
Drain = Annotated[float | None, typer.Option(help="Seconds that running sessions may go on after that.")]
Sessions = Annotated[int | None, typer.Option(help="End after this many sessions.")]
Seed = Annotated[int | None, typer.Option(help="The same seed makes the same sessions.")]
Scale = Annotated[float | None, typer.Option(help="Multiply every token count, for small models.")]
LongestWait = Annotated[float | None, typer.Option(help="No tool and no person takes longer (seconds).")]
InputTokens = Annotated[int | None, typer.Option(help="Of the `fixed` archetype: prompt length.")]
OutputTokens = Annotated[int | None, typer.Option(help="Of the `fixed` archetype: reply length.")]
Steps = Annotated[int | None, typer.Option(help="Of the `fixed` archetype: model calls in a session.")]
MaxTokens = Annotated[int | None, typer.Option(help="Stop cleanly after this many tokens, input and output.")]
MaxCost = Annotated[float | None, typer.Option(help="Stop cleanly when the run has cost this much, in USD.")]
MaxErrorRate = Annotated[float | None, typer.Option(help="Stop cleanly when this share of calls fails.")]
Slo = Annotated[
    list[str] | None,
    typer.Option(
        help="Promise to judge the run by, as in ttft_p95=2.0; repeat. Broken: exit code 1.",
        autocompletion=completion.promises,
    ),
]
Junit = Annotated[Path | None, typer.Option(help="Write what came of the promises there, as JUnit XML.")]
Markdown = Annotated[Path | None, typer.Option(help="Write it there as Markdown, for a pull request's comment.")]
MetricsUrl = Annotated[
    list[str] | None, typer.Option(help="A /metrics page to read once a second, beside the endpoint's own; repeat.")
]
MetricsPort = Annotated[int | None, typer.Option(help="Serve this run's metrics for Prometheus; 0 takes a free port.")]
MetricsHost = Annotated[str | None, typer.Option(help="Address to serve them at.")]
OtlpEndpoint = Annotated[str | None, typer.Option(help="Send sessions there as OpenTelemetry traces (OTLP over HTTP).")]
TraceSample = Annotated[float | None, typer.Option(help="Share of sessions that become traces.")]
Traceparent = Annotated[
    bool | None, typer.Option("--traceparent", help="Send the trace's name along, so that a server's spans join it.")
]
Out = Annotated[Path, typer.Option(help="Where run folders go.")]
Yes = Annotated[
    bool, typer.Option("--yes", "-y", help="Do not ask before the first run against an endpoint on the internet.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No live view, no summary.")]
Json = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")]
TokenFile = Annotated[
    Path | None, typer.Option(help="File with the token that master and workers share; else $AGENTLOAD_TOKEN.")
]
RUNS = Path("runs")


PLAIN = ("spec", "out", "quiet", "json", "junit", "markdown")
"""Arguments of many commands that no spec has."""


def flags(values: dict[str, Any], *others: str) -> dict[str, Any]:
    """A command's own arguments as the flags of a spec, less those that are about something else."""
    return {name: value for name, value in values.items() if name not in (*PLAIN, *others)}


FLEET = (
    "workers", "master", "expect_workers", "master_bind_host", "master_bind_port", "ui", "web_host", "web_port",
    "web_login", "token_file",
)  # fmt: skip
"""What `run` is told of who works on it, beside the spec."""


@app.command()
def run(
    spec: SpecFile = None,
    url: Url = None,
    model: Model = None,
    api: Api = None,
    api_key_env: ApiKeyEnv = None,
    api_key_file: ApiKeyFile = None,
    ca_file: CaFile = None,
    session_header: SessionHeader = None,
    client: ClientName = None,
    archetype: Archetypes = None,
    agent: OwnAgents = None,
    mode: Mode = None,
    agents: Agents = None,
    rate: Rate = None,
    profile: ProfileName = None,
    duration: Duration = None,
    warmup: Warmup = None,
    drain: Drain = None,
    sessions: Sessions = None,
    seed: Seed = None,
    scale: Scale = None,
    longest_wait: LongestWait = None,
    input_tokens: InputTokens = None,
    output_tokens: OutputTokens = None,
    steps: Steps = None,
    max_tokens: MaxTokens = None,
    max_cost: MaxCost = None,
    max_error_rate: MaxErrorRate = None,
    slo: Slo = None,
    junit: Junit = None,
    markdown: Markdown = None,
    metrics_url: MetricsUrl = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = None,
    otlp_endpoint: OtlpEndpoint = None,
    trace_sample: TraceSample = None,
    traceparent: Traceparent = None,
    out: Out = RUNS,
    workers: Annotated[int, typer.Option(help="Share the run among this many processes on this machine.")] = 0,
    master: Annotated[bool, typer.Option("--master", help="Wait for workers on other machines.")] = False,
    expect_workers: Annotated[int, typer.Option(help="With --master: how many to wait for.")] = 0,
    master_bind_host: Annotated[str, typer.Option(help="With --master: address to wait at.")] = "127.0.0.1",
    master_bind_port: Annotated[int, typer.Option(help="With --master: port to wait at.")] = 5557,
    ui: Annotated[bool, typer.Option("--ui", help="Serve Locust's web page with the run in it.")] = False,
    web_host: Annotated[str, typer.Option(help="With --ui: address of the page.")] = "127.0.0.1",
    web_port: Annotated[int, typer.Option(help="With --ui: port of the page; 0 takes a free one.")] = 8089,
    web_login: Annotated[
        bool,
        typer.Option("--web-login", help="With --ui: ask for a password there; elsewhere than on loopback it does."),
    ] = False,
    token_file: TokenFile = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the spec as resolved and what to expect; send nothing.")
    ] = False,
    yes: Yes = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Run agents against an endpoint, and report what they did.

    Without --url the endpoint is a simulated cluster, started for the run: try it with no flags at all.

    Example: agentload run --url http://127.0.0.1:8000/v1 --archetype coder --agents 32 --duration 120
    """
    values = dict(locals())
    fleet = {name: value for name, value in values.items() if name in FLEET}
    from agentload import commands, gating

    given = flags(values, "dry_run", *FLEET)
    files = gating.Files(junit, markdown)
    raise typer.Exit(commands.run(spec, given, out, fleet, dry_run=dry_run, quiet=quiet, as_json=json, files=files))


REPLAY = (
    "format", "strict", "first", "arrivals", "speed", "longest_gap", "longest_tool", "jitter", "mid_session", "bust",
)  # fmt: skip
"""What `replay` is told of how to follow the trace."""


@app.command()
def replay(
    trace: Annotated[Path, typer.Argument(help="A trace in any known format, or a run folder.")],
    url: Url = None,
    model: Model = None,
    api: Api = None,
    api_key_env: ApiKeyEnv = None,
    api_key_file: ApiKeyFile = None,
    ca_file: CaFile = None,
    session_header: SessionHeader = None,
    client: ClientName = None,
    agents: Agents = None,
    rate: Rate = None,
    profile: ProfileName = None,
    arrivals: Annotated[str | None, typer.Option(help="recorded: sessions start when they did in the trace.")] = None,
    speed: Annotated[float | None, typer.Option(help="Follow gaps, tools and arrivals so many times faster.")] = None,
    scale: Scale = None,
    longest_gap: Annotated[float | None, typer.Option(help="No person takes longer (seconds; default 10).")] = None,
    longest_tool: Annotated[float | None, typer.Option(help="No tool takes longer (seconds; default 600).")] = None,
    jitter: Annotated[float | None, typer.Option(help="Agents first start up to so many seconds later.")] = None,
    mid_session: Annotated[
        bool | None, typer.Option("--mid-session", help="Agents begin somewhere inside their first session.")
    ] = None,
    bust: Annotated[
        bool | None, typer.Option("--bust/--no-bust", help="Copies of a session share no prefix, or do.")
    ] = None,
    first: Annotated[int | None, typer.Option(help="Only so many sessions of the trace.")] = None,
    format: Annotated[str | None, typer.Option("--format", help="Its format, where its content does not say.")] = None,
    strict: Annotated[bool | None, typer.Option("--strict", help="Stop at the first bad line.")] = None,
    duration: Duration = None,
    warmup: Warmup = None,
    drain: Drain = None,
    sessions: Annotated[
        int | None, typer.Option(help="End after this many sessions; without it and --duration, each once.")
    ] = None,
    seed: Seed = None,
    max_tokens: MaxTokens = None,
    max_cost: MaxCost = None,
    max_error_rate: MaxErrorRate = None,
    metrics_url: MetricsUrl = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = None,
    otlp_endpoint: OtlpEndpoint = None,
    trace_sample: TraceSample = None,
    traceparent: Traceparent = None,
    slo: Slo = None,
    junit: Junit = None,
    markdown: Markdown = None,
    out: Out = RUNS,
    workers: Annotated[int, typer.Option(help="Share the run among this many processes on this machine.")] = 0,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="In virtual time, against the simulated cluster.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the spec as resolved and what to expect; send nothing.")
    ] = False,
    yes: Yes = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Ask an endpoint once more for what a trace has recorded.

    Sizes, shared prefixes, tools, gaps and sub-agents are those of the trace; the text is not.

    Example: agentload replay sessions.jsonl --url http://127.0.0.1:8000/v1 --agents 32
    """
    values = dict(locals())
    how = {name: value for name, value in values.items() if name in REPLAY}
    plain = flags(values, *REPLAY, "trace", "simulate", "dry_run", "workers")
    from agentload import gating, replaying

    raise typer.Exit(replaying.replay(trace, how, plain, out, workers, dry_run=dry_run, simulated=simulate,
                                     quiet=quiet, as_json=json, files=gating.Files(junit, markdown)))  # fmt: skip


CAPACITY = (
    "slo", "tiers", "start", "most", "resolution", "probes", "warmup", "measure", "simulate", "gpus", "power_kw",
    "gpu_hour_usd",
)  # fmt: skip
"""What `capacity` is asked beside the spec."""


@app.command()
def capacity(
    spec: SpecFile = None,
    slo: Annotated[
        list[str] | None,
        typer.Option(help="NAME=LIMIT, as in ttft_p95=2.0; repeat.", autocompletion=completion.promises),
    ] = None,
    tiers: Annotated[
        str | None,
        typer.Option(help="A published set: aa-deepseek-v4-pro, aa-gpt-oss-120b, …", autocompletion=completion.tiers),
    ] = None,
    url: Url = None,
    model: Model = None,
    api: Api = None,
    api_key_env: ApiKeyEnv = None,
    api_key_file: ApiKeyFile = None,
    ca_file: CaFile = None,
    session_header: SessionHeader = None,
    archetype: Archetypes = None,
    agent: OwnAgents = None,
    mode: Mode = None,
    profile: ProfileName = None,
    agents: Agents = None,
    rate: Rate = None,
    seed: Seed = None,
    scale: Scale = None,
    longest_wait: LongestWait = None,
    input_tokens: InputTokens = None,
    output_tokens: OutputTokens = None,
    steps: Steps = None,
    start: Annotated[float | None, typer.Option(help="First load: agents, or sessions per second.")] = None,
    most: Annotated[float | None, typer.Option(help="Say that there is no limit beyond this.")] = None,
    resolution: Annotated[float, typer.Option(help="How close to come, as a share.")] = 0.05,
    probes: Annotated[int | None, typer.Option(help="Most runs to make.")] = None,
    warmup: Annotated[float, typer.Option(help="Seconds of each probe that are not counted.")] = 15.0,
    measure: Annotated[float, typer.Option(help="Seconds of each probe that are.")] = 60.0,
    gpus: Annotated[float | None, typer.Option(help="GPUs of the endpoint: capacity per GPU, too.")] = None,
    power_kw: Annotated[float | None, typer.Option(help="Its power under load, in kW.")] = None,
    gpu_hour_usd: Annotated[float | None, typer.Option(help="Price of a GPU-hour.")] = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="In virtual time, against the simulated cluster.")
    ] = False,
    out: Out = RUNS,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Find the most load that holds every SLO, with an interval.

    In agents, or in sessions per second.

    Example: agentload capacity --url http://127.0.0.1:8000/v1 --archetype coder --agents 8 --slo ttft_p95=2
    """
    values = dict(locals())
    asked = {name: value for name, value in values.items() if name in CAPACITY}
    from agentload import commands

    raise typer.Exit(commands.capacity(spec, flags(values, *CAPACITY), out, asked, as_json=json))


SWEEP = ("axis", "values", "start", "most", "measure", "precision", "repeats", "seconds", "census", "gpus", "simulate")
"""What `sweep` is asked beside the spec."""
FACTORY = ("gpu_hour_usd", "gpu_usd", "kw", "pue", "kwh_usd", "life_years", "utilisation")
"""What it is told of costs."""


@app.command()
def sweep(
    spec: SpecFile = None,
    axis: Annotated[str, typer.Option(help="What is raised: agents, rate, fanout, steps or share.")] = "agents",
    values: Annotated[list[float] | None, typer.Option(help="A step; repeat. Without any: by doubling.")] = None,
    start: Annotated[float | None, typer.Option(help="First step, where they are chosen by doubling.")] = None,
    most: Annotated[float | None, typer.Option(help="Largest step, where they are chosen by doubling.")] = None,
    url: Url = None,
    model: Model = None,
    api_key_env: ApiKeyEnv = None,
    api_key_file: ApiKeyFile = None,
    archetype: Archetypes = None,
    agent: OwnAgents = None,
    mode: Mode = None,
    profile: ProfileName = None,
    agents: Agents = None,
    rate: Rate = None,
    seed: Seed = None,
    scale: Scale = None,
    longest_wait: LongestWait = None,
    measure: Annotated[float | None, typer.Option(help="Seconds of a step.")] = None,
    precision: Annotated[float | None, typer.Option(help="Half the interval over the mean that is enough.")] = None,
    repeats: Annotated[int | None, typer.Option(help="Most runs of a step.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Wall-clock seconds for everything.")] = None,
    census: Annotated[
        int | None, typer.Option(help="Whole sessions of each archetype, for tasks, chains and forecasts.")
    ] = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="In virtual time, against the simulated cluster.")
    ] = False,
    resume: Annotated[Path | None, typer.Option(help="A sweep folder to go on with.")] = None,
    prices: Annotated[Path | None, typer.Option(help="A TOML price table of your own.")] = None,
    gpus: Annotated[float | None, typer.Option(help="GPUs of the endpoint.")] = None,
    gpu_hour_usd: Annotated[float | None, typer.Option(help="Price of a GPU-hour.")] = None,
    gpu_usd: Annotated[float | None, typer.Option(help="Or of a GPU to buy, its share of all else included.")] = None,
    kw: Annotated[float | None, typer.Option(help="Power per GPU, its share of the server included.")] = None,
    pue: Annotated[float | None, typer.Option(help="All power over the computers' power.")] = None,
    kwh_usd: Annotated[float | None, typer.Option(help="Price of a kWh.")] = None,
    life_years: Annotated[float | None, typer.Option(help="Life of what was bought.")] = None,
    utilisation: Annotated[float | None, typer.Option(help="Share of the hours that are sold.")] = None,
    yes: Yes = False,
    out: Out = RUNS,
) -> None:
    """Raise the load in steps, and see where the cluster saturates.

    Also: how demand grows with agents, what a task costs, and which tier pays.

    Example: agentload sweep --simulate --archetype coder --archetype chat --gpu-hour-usd 2.5
    """
    given = dict(locals())
    asked = {name: value for name, value in given.items() if name in SWEEP}
    factory = {name: value for name, value in given.items() if name in FACTORY}
    plain = flags(given, *SWEEP, *FACTORY, "resume", "prices")
    from agentload import commands

    raise typer.Exit(commands.sweep(spec, plain, out, asked, resume, prices, factory))


@app.command()
def forecast(
    assumptions: Annotated[Path | None, typer.Argument(help="A TOML file; without one, those that ship.")] = None,
    sessions: Annotated[
        list[Path] | None, typer.Option("--from", help="Run or sweep folder whose sessions are resampled; repeat.")
    ] = None,
    out: Out = RUNS,
) -> None:
    """Say what the years ahead need: tokens, GPUs, power, money.

    With bands, from measured sessions that are drawn anew.

    Example: agentload forecast --from runs/2026-11-23T14-02-11-sweep
    """
    from agentload import commands

    commands.forecast(assumptions, sessions or [], out)


@app.command()
def record(
    upstream: Annotated[str, typer.Option(help="Base URL of the endpoint to record in front of, with /v1.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The trace to write.")] = Path("trace.jsonl"),
    port: Annotated[int, typer.Option(help="Port to listen at; 0 takes a free one.")] = 8788,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    text: Annotated[bool, typer.Option("--text", help="Keep texts, too, in a file of their own.")] = False,
    session_header: Annotated[
        list[str] | None, typer.Option(help="A header in which clients name their session; repeat.")
    ] = None,
    ca_file: CaFile = None,
    max_body: Annotated[int, typer.Option(help="Longest request, in bytes.")] = 64 * 2**20,
) -> None:
    """Record real agents, through a proxy, as a trace.

    Nothing that passes through is changed. Texts are written only where asked for, keys never.

    Example: agentload record --upstream http://127.0.0.1:8000/v1 -o trace.jsonl
    """
    from agentload import recording

    options = recording.Options(upstream=upstream, out=str(out), host=host, port=port, text=text, largest=max_body,
                                session_header=tuple(session_header or ()), ca_file=ca_file or "")  # fmt: skip
    say(recording.record(options, recording.announce))


traces = typer.Typer(help="Look into a trace of recorded sessions.", no_args_is_help=True)
app.add_typer(traces, name="trace")
TraceFile = Annotated[Path, typer.Argument(help="A trace in any known format, or a run folder.")]
TraceFormat = Annotated[str | None, typer.Option("--format", help="Its format, where its content does not say.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first bad line instead of skipping it.")]


@traces.command()
def inspect(trace: TraceFile, format: TraceFormat = None, strict: Strict = False) -> None:
    """Say what a trace is, and what is wrong with it.

    Example: agentload trace inspect sessions.jsonl
    """
    from agentload import tracing

    say(tracing.inspect(trace, format, strict))


@traces.command()
def stats(trace: TraceFile, format: TraceFormat = None, strict: Strict = False) -> None:
    """Count a trace: rates, lengths, bursts, cache hits, growth.

    Example: agentload trace stats sessions.jsonl
    """
    from agentload import tracing

    found, complaints = tracing.stats(trace, format, strict)
    say("\n".join([tracing.as_text(found), *tracing.problems(complaints)]))


@traces.command()
def convert(
    trace: TraceFile,
    out: Annotated[Path, typer.Argument(help="The file to write, in our own format (JSON lines).")],
    format: TraceFormat = None,
    strict: Strict = False,
) -> None:
    """Write a trace of any format in our own.

    Example: agentload trace convert azure.csv ours.jsonl
    """
    from agentload import tracing

    say(tracing.convert(trace, out, format, strict))


@app.command()
def fit(
    trace: TraceFile,
    out: Annotated[Path, typer.Option("-o", "--out", help="The spec fragment to write.")] = Path("agent.toml"),
    name: Annotated[str, typer.Option(help="Name of the archetype.")] = "fitted",
    format: TraceFormat = None,
    strict: Strict = False,
) -> None:
    """Estimate an archetype from a trace or a run.

    The page beside it shows how well it fits.

    Example: agentload fit sessions.jsonl -o agent.toml --name ours
    """
    from agentload import tracing

    say(tracing.fit(trace, out, name, format, strict)[1])


@app.command()
def compare(
    a: Annotated[
        Path,
        typer.Argument(help="The one to compare with: a run folder, its summary.json alone, or a capacity folder."),
    ],
    b: Annotated[Path, typer.Argument(help="Another of the same kind.")],
    fail_if: Annotated[
        list[str] | None,
        typer.Option(help="End with 1 where this can be shown, as in 'ttft_p95 > +10%'; repeat."),
    ] = None,
    junit: Junit = None,
    markdown: Markdown = None,
    json: Json = False,
) -> None:
    """Say what can be said of the difference between two runs.

    With --fail-if it is a gate: exit code 1 where a change for the worse can be shown.

    Example: agentload compare runs/before runs/after --fail-if 'ttft_p95 > +10%'
    """
    from agentload import gating

    files = gating.Files(junit, markdown)
    raise typer.Exit(gating.compare(a, b, fail_if or [], as_json=json, files=files))


@app.command()
def profile(
    spec: SpecFile = None,
    profile: ProfileName = None,
    agents: Agents = None,
    rate: Rate = None,
    duration: Duration = None,
    seed: Seed = None,
    html: Annotated[Path | None, typer.Option(help="Write the chart there, too.")] = None,
) -> None:
    """Draw a load profile before anything is sent.

    Example: agentload profile --profile hawkes --rate 2 --duration 600 --html profile.html
    """
    given = flags(locals(), "html")
    from agentload import commands

    commands.draw(spec, given, html)


@app.command()
def simulate(
    spec: SpecFile = None,
    archetype: Archetypes = None,
    agent: OwnAgents = None,
    mode: Mode = None,
    agents: Agents = None,
    rate: Rate = None,
    profile: ProfileName = None,
    duration: Duration = None,
    warmup: Warmup = None,
    drain: Drain = None,
    sessions: Sessions = None,
    seed: Seed = None,
    scale: Scale = None,
    longest_wait: LongestWait = None,
    input_tokens: InputTokens = None,
    output_tokens: OutputTokens = None,
    steps: Steps = None,
    max_tokens: MaxTokens = None,
    max_cost: MaxCost = None,
    max_error_rate: MaxErrorRate = None,
    shards: Annotated[
        int, typer.Option(help="Split replicas and sessions into so many independent clusters, one process each.")
    ] = 1,
    slo: Slo = None,
    junit: Junit = None,
    markdown: Markdown = None,
    out: Out = RUNS,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Run agents in virtual time against the simulated cluster.

    An hour of five hundred agents takes this machine seconds.

    Example: agentload simulate --archetype coder --agents 500 --duration 3600
    """
    given = flags(locals(), "shards")
    from agentload import commands, gating

    files = gating.Files(junit, markdown)
    raise typer.Exit(commands.simulate(spec, given, out, shards=shards, quiet=quiet, as_json=json, files=files))


@app.command()
def probe(
    url: Annotated[str | None, typer.Option(help="Base URL of the endpoint to ask, with /v1.")] = None,
    model: Model = None,
    api_key_env: ApiKeyEnv = None,
    api_key_file: ApiKeyFile = None,
    ca_file: CaFile = None,
    this_machine: Annotated[
        bool, typer.Option("--self", help="Measure this machine against a server that knows the truth.")
    ] = False,
    json: Json = False,
) -> None:
    """Say what an endpoint, or this machine, can do.

    Of an endpoint: models, context, tools, streaming, usage. Of this machine: up to what load to trust its figures.

    Example: agentload probe --url http://127.0.0.1:8000/v1
    """
    given = flags(locals(), "this_machine")
    from agentload import commands

    commands.probe(given, this_machine=this_machine, as_json=json)


@app.command()
def serve(
    spec: Annotated[Path | None, typer.Argument(help="A TOML spec whose [box] is served. Flags override it.")] = None,
    port: Annotated[int | None, typer.Option(help="Port (8000); 0 takes a free one.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on (127.0.0.1).")] = None,
    model: Annotated[str | None, typer.Option(help="Name of the model it serves (box).")] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Step-time preset, which model on which accelerators: a name, or a TOML file.",
            autocompletion=completion.presets,
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Decides what the synthetic model says.")] = None,
    sigma: Annotated[float | None, typer.Option(help="Noise of a step's time (0.05); 0 makes it exact.")] = None,
    speed: Annotated[float | None, typer.Option(help="Run the cluster's clock so many times faster.")] = None,
    context: Annotated[int | None, typer.Option(help="Longest context, in tokens.")] = None,
    kv_tokens: Annotated[int | None, typer.Option(help="Size of a replica's KV cache, in tokens.")] = None,
    seats: Annotated[int | None, typer.Option(help="Most requests running at once on a replica.")] = None,
    step_tokens: Annotated[int | None, typer.Option(help="Token budget of a step.")] = None,
    offload_tokens: Annotated[int | None, typer.Option(help="Host memory for evicted KV blocks, in tokens.")] = None,
    replicas: Annotated[int | None, typer.Option(help="Replicas; with --prefill, those that decode.")] = None,
    router: Annotated[
        str | None,
        typer.Option(help="round_robin, random, least_outstanding, two_choices, prefix or kv_cost."),
    ] = None,
    prefill: Annotated[int | None, typer.Option(help="Replicas that do nothing but prompts.")] = None,
    transfer_us: Annotated[float | None, typer.Option(help="With --prefill: µs to move a token's KV (8).")] = None,
    scale_to: Annotated[int | None, typer.Option(help="Start replicas under load, up to so many.")] = None,
    cold_start: Annotated[float | None, typer.Option(help="With --scale-to: seconds until one is up (60).")] = None,
    fail: Annotated[
        list[str] | None,
        typer.Option(help="AT[:REPLICA[:AFTER]]: one dies at that second and is back, cold, AFTER more (60); repeat."),
    ] = None,
    queued: Annotated[int | None, typer.Option(help="Most requests waiting; beyond it, 503.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(help="Of each API key; beyond it, 429.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(help="Of each API key; beyond it, 429.")] = None,
    error_rate: Annotated[float | None, typer.Option(help="Share of requests answered with 500.")] = None,
    reset_rate: Annotated[float | None, typer.Option(help="Share whose connection breaks.")] = None,
    stall_rate: Annotated[float | None, typer.Option(help="Share whose stream stands still half way.")] = None,
    slow_rate: Annotated[float | None, typer.Option(help="Share that starts late.")] = None,
    broken_rate: Annotated[float | None, typer.Option(help="Share with an error in the middle of the stream.")] = None,
    fault_key: Annotated[str | None, typer.Option(help="Only requests with this API key go wrong.")] = None,
    log: Annotated[str | None, typer.Option(help="Write a line of JSON for each finished request.")] = None,
) -> None:
    """Serve the simulated cluster: an endpoint that needs no GPU.

    Example: agentload serve --replicas 4 --router prefix --offload-tokens 400000
    """
    given = flags(locals())
    from agentload import serving

    serving.serve(spec, given)


@app.command()
def worker(
    master_host: Annotated[str, typer.Option(help="Where the master waits.")],
    master_port: Annotated[int, typer.Option(help="Its port.")] = 5557,
    out: Annotated[Path, typer.Option(help="Where records are kept until the master has them.")] = RUNS,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the master.")] = 60.0,
    token_file: TokenFile = None,
) -> None:
    """Join a master on another machine and take a share of its run.

    Example: agentload worker --master-host 10.0.0.5
    """
    from agentload import commands

    raise typer.Exit(commands.work(master_host, master_port, out, wait, token_file))


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A run folder; an interrupted one is recovered first.")],
    junit: Junit = None,
    markdown: Markdown = None,
    json: Json = False,
) -> None:
    """Make summary and report again from a run's records.

    A run that was cut off is made whole first; one that made promises is judged again.

    Example: agentload report runs/2026-11-23T14-02-11-coder
    """
    from agentload import commands, gating

    raise typer.Exit(commands.report(folder, as_json=json, files=gating.Files(junit, markdown)))


if __name__ == "__main__":
    main()
