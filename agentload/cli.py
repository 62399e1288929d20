"""The command line. Commands read their arguments, build the pieces, run them and print; nothing else happens here.

Each command imports what it needs when it runs, so that `--help` and `--version` answer at once.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from agentload.errors import BadInput

app = typer.Typer(
    name="agentload",
    help="Run populations of synthetic AI agents against an inference endpoint, and see what they ask of it.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main() -> None:
    """What the `agentload` command runs: exit codes 0 done, 1 failed, 2 bad input, 130 interrupted."""
    try:
        app()
    except BadInput as error:
        print(f"agentload: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        typer.echo(f"agentload {metadata.version('agentload')}")
        raise typer.Exit


@app.callback()
def about(
    show_version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """Run populations of synthetic AI agents against an inference endpoint, and see what they ask of it."""


@app.command()
def run(
    spec: Annotated[Path | None, typer.Argument(help="A TOML spec. Without one: a mixed population.")] = None,
    url: Annotated[
        str | None, typer.Option(help="Base URL of the endpoint, with /v1. Without one: the simulated cluster.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model name; may be left out where there is only one.")] = None,
    api_key_env: Annotated[str | None, typer.Option(help="Environment variable that holds the key.")] = None,
    client: Annotated[str | None, typer.Option(help="wire (fast, our own) or sdk (the stock openai client).")] = None,
    archetype: Annotated[list[str] | None, typer.Option(help="NAME or NAME=WEIGHT; repeat for a mix.")] = None,
    mode: Annotated[str | None, typer.Option(help="sized (lengths are drawn) or live (the model decides).")] = None,
    agents: Annotated[int | None, typer.Option(help="Closed loop: hold this many agents.")] = None,
    rate: Annotated[float | None, typer.Option(help="Open loop: sessions per second.")] = None,
    profile: Annotated[str | None, typer.Option(help="Load profile by name: held, poisson, constant, ramp, …")] = None,
    duration: Annotated[float | None, typer.Option(help="Seconds after which no session starts.")] = None,
    warmup: Annotated[float | None, typer.Option(help="Seconds at the start that are not counted.")] = None,
    drain: Annotated[float | None, typer.Option(help="Seconds that running sessions may go on after that.")] = None,
    sessions: Annotated[int | None, typer.Option(help="End after this many sessions.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed makes the same sessions.")] = None,
    scale: Annotated[float | None, typer.Option(help="Multiply every token count, for small models.")] = None,
    longest_wait: Annotated[float | None, typer.Option(help="No tool and no person takes longer (seconds).")] = None,
    input_tokens: Annotated[int | None, typer.Option(help="Of the `fixed` archetype: prompt length.")] = None,
    output_tokens: Annotated[int | None, typer.Option(help="Of the `fixed` archetype: reply length.")] = None,
    steps: Annotated[int | None, typer.Option(help="Of the `fixed` archetype: model calls in a session.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="Stop cleanly after this many tokens, input and output.")
    ] = None,
    max_error_rate: Annotated[float | None, typer.Option(help="Stop cleanly when this share of calls fails.")] = None,
    out: Annotated[Path, typer.Option(help="Where run folders go.")] = Path("runs"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the spec as resolved and what to expect; send nothing.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No live view, no summary.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Run agents against an endpoint (or the simulated cluster) and write a report.

    Example: agentload run --url http://127.0.0.1:8000/v1 --archetype coder --agents 32 --duration 120
    """
    flags = {name: value for name, value in locals().items() if name not in ("spec", "out", "dry_run", "quiet", "json")}
    from agentload import commands

    raise typer.Exit(commands.run(spec, flags, out, dry_run=dry_run, quiet=quiet, as_json=json))


@app.command()
def serve(
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    model: Annotated[str, typer.Option(help="Name of the model it serves.")] = "box",
    preset: Annotated[str | None, typer.Option(help="Step-time preset: which model on which accelerators.")] = None,
    seed: Annotated[int, typer.Option(help="Decides what the synthetic model says.")] = 0,
    context: Annotated[int | None, typer.Option(help="Longest context, in tokens.")] = None,
    kv_tokens: Annotated[int | None, typer.Option(help="Size of the KV cache, in tokens.")] = None,
    speed: Annotated[float | None, typer.Option(help="Run the cluster's clock so many times faster.")] = None,
    log: Annotated[str | None, typer.Option(help="Write a line of JSON for each finished request.")] = None,
) -> None:
    """Serve the simulated cluster: an OpenAI-compatible endpoint with no GPU."""
    from agentload import commands

    commands.serve({"port": port, "host": host, "model": model, "preset": preset, "seed": seed, "context": context,
                    "kv_tokens": kv_tokens, "speed": speed, "log": log})  # fmt: skip


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A run folder; an interrupted one is recovered first.")],
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Rebuild summary and report from a run's records."""
    from agentload import commands

    commands.report(folder, as_json=json)


if __name__ == "__main__":
    main()
