"""What the commands do: build the pieces, run them, print."""

import asyncio
import contextlib
import json
import os
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from msgspec import structs

from agentload import spec as specs
from agentload.disk import FULL
from agentload.disk import report as report_of
from agentload.errors import BadInput
from agentload.gating import NO_FILES, Files, write_files
from agentload.guard import guarded
from agentload.spec import Spec
from agentload.terminal import note, say, warn
from agents.request import needs_sdk
from collectors import load
from collectors.slo import parse_all
from collectors.sound import Unreadable, header_of
from loadprofiles import Held, from_name

FIXED_FLAGS = {"input_tokens": "task_tokens", "output_tokens": "output_tokens", "steps": "steps"}
PLAIN_FLAGS = ("mode", "duration", "drain", "sessions", "seed", "scale", "longest_wait", "warmup")
ENDPOINT_FLAGS = ("url", "model", "api", "api_key_env", "ca_file", "client", "session_header")
PROFILE_FLAGS = ("profile", "agents", "rate")
TELEMETRY_FLAGS = {
    "metrics_url": "metrics_urls", "metrics_port": "metrics_port", "metrics_host": "metrics_host",
    "otlp_endpoint": "otlp_endpoint", "trace_sample": "sample",
}  # fmt: skip


ALONE = {"workers": 0, "master": False, "expect_workers": 0, "master_bind_host": "127.0.0.1", "master_bind_port": 0,
         "ui": False, "web_host": "127.0.0.1", "web_port": 8089, "web_login": False, "token_file": None}  # fmt: skip
"""Who works on a run where nothing is said."""


def resolve(path: Path | None, flags: dict[str, Any]) -> Spec:
    """The spec: a file, or the default one, with the flags over it."""
    if path is not None:
        plain, source = specs.read(path), str(path)
    else:
        plain, source = specs.read(Path(str(resources.files("agentload") / "default.toml"))), "flags"
    given = {name: value for name, value in flags.items() if value not in (None, [])}
    if any(name in given for name in FIXED_FLAGS):
        given.setdefault("archetype", ["fixed"])
    if path is None and named(given):  # the default's small sizes belong to the default's population
        plain = {key: plain[key] for key in ("duration", "drain", "profile")}
    if "sessions" in given and "duration" not in given and path is None:
        del plain["duration"]
    return overlaid(plain, given, source)


def overlaid(plain: dict[str, Any], given: dict[str, Any], source: str) -> Spec:
    """The spec that plain values make with flags over them."""
    plain |= {name: given[name] for name in PLAIN_FLAGS if name in given}
    plain["endpoint"] = plain.get("endpoint", {}) | {name: given[name] for name in ENDPOINT_FLAGS if name in given}
    if any(name in given for name in FIXED_FLAGS):
        fixed = plain.setdefault("archetypes", {}).setdefault("fixed", {})
        fixed |= {field: given[name] for name, field in FIXED_FLAGS.items() if name in given}
    if named(given):
        plain["population"] = [group(text) for text in named(given)]
    if any(name in given for name in PROFILE_FLAGS):
        plain["profile"] = shape(given, plain.get("duration"))
    if given.get("slo"):
        try:
            plain["slo"] = parse_all(given["slo"])
        except ValueError as error:
            raise BadInput(str(error)) from None
    telemetry = {field: given[name] for name, field in TELEMETRY_FLAGS.items() if name in given}
    plain["telemetry"] = plain.get("telemetry", {}) | telemetry
    if given.get("traceparent"):
        plain["endpoint"]["traceparent"] = plain["telemetry"].get("sample", 1.0)
    limits = {field: given.get(f"max_{field}") for field in ("tokens", "cost", "error_rate")}
    plain["limits"] = plain.get("limits", {}) | {name: limit for name, limit in limits.items() if limit is not None}
    spec = specs.decode(plain, source)
    if given.get("api_key_file"):
        take_key(given["api_key_file"], spec.endpoint.api_key_env)
    return spec


def take_key(file: str, variable: str) -> None:
    """Put the key in that file ("-" is stdin) where the endpoint's key is looked for, by us and by workers on this
    machine: into the environment. It never is in a spec, nor in an argument of a process."""
    try:
        key = (sys.stdin.read() if file == "-" else Path(file).read_text()).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"--api-key-file {file!r} cannot be read: {error}") from None
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise BadInput(f"--api-key-file {file!r} must hold one key, a line of printable ASCII without blanks")
    os.environ[variable] = key


def named(given: dict[str, Any]) -> list[str]:
    """Who is in the population, by flags: archetypes, and agents of the user's own."""
    return [*given.get("archetype", []), *given.get("agent", [])]


def group(text: str) -> dict[str, Any]:
    """`NAME` or `NAME=WEIGHT`."""
    name, equals, weight = text.partition("=")
    try:
        return {"archetype": name, "weight": float(weight) if equals else 1.0}
    except ValueError:
        raise BadInput(f"--archetype {text!r}: the weight must be a number, as in coder=2") from None


def shape(given: dict[str, Any], duration: float | None) -> Any:
    """The load profile that --profile, --agents and --rate name.

    Agents held from the command line start over a moment (500 a second): all at once, they would wait for each other
    in this process, and send lag would say so.
    """
    name = given.get("profile") or ("poisson" if "rate" in given else "held")
    try:
        profile = from_name(name, agents=given.get("agents"), rate=given.get("rate"), duration=duration or 60.0)
    except ValueError as error:
        raise BadInput(str(error)) from None
    if isinstance(profile, Held):
        profile = structs.replace(profile, stagger=min(profile.agents / 500, (duration or 60.0) / 10))
    return msgspec.to_builtins(profile)


def run(
    path: Path | None,
    flags: dict[str, Any],
    out: Path,
    fleet: dict[str, Any],
    *,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
    files: Files = NO_FILES,
) -> int:
    """Resolve, run, report, judge; return the exit code. `fleet` has the flags that say who works on it."""
    spec = resolve(path, flags)
    files.check(bool(spec.slo))
    if dry_run:
        print_expected(spec)
        return 0
    with aimed(spec, out, flags) as spec:
        folder, code = perform(spec, out, quiet or as_json, fleet)
    return finish(folder, code, quiet=quiet, as_json=as_json, files=files)


def aimed(spec: Spec, out: Path, flags: dict[str, Any]) -> contextlib.AbstractContextManager[Spec]:
    """The target, once it is clear that it is meant."""
    return target(guarded(spec, out, bool(flags.get("yes"))))


@contextlib.contextmanager
def target(spec: Spec) -> Any:
    """The spec with an endpoint that exists: its own, or a box started for it and stopped with it."""
    if spec.endpoint.url:
        reason = needs_sdk(spec.endpoint) if spec.endpoint.client == "wire" else None
        if reason:
            warn(f"using the sdk client: {reason}")
            spec = structs.replace(spec, endpoint=structs.replace(spec.endpoint, client="sdk"))
        yield spec
        return
    from agentload.box.serve import BoxProcess

    box = BoxProcess(spec.box)
    with box as url:
        try:
            yield structs.replace(spec, endpoint=structs.replace(spec.endpoint, url=url))
        finally:
            if box.ended:
                warn("the box ended before the run did: calls since then found nobody")


def perform(spec: Spec, out: Path, quiet: bool, fleet: dict[str, Any]) -> tuple[Path, int]:
    """The run itself, with its live view; return its folder and the exit code."""
    console = None
    if not quiet and sys.stderr.isatty():
        from rich.console import Console

        console = Console(stderr=True)
    if fleet["workers"] or fleet["master"] or fleet["ui"]:
        return perform_together(spec, out, console, fleet)
    from agentload.realtime import run as run_spec
    from agentload.screen import Watch, shown

    watch = Watch()
    title = f"{spec.mode} agents against {spec.endpoint.url}"
    with shown(watch, title, spec.duration, console), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        folder, stopped = runner.run(run_spec(spec, out, watch))
    return folder, {"interrupted": 130, "max_error_rate": 1, FULL: 1}.get(stopped, 0)


def perform_together(spec: Spec, out: Path, console: Any, flags: dict[str, Any]) -> tuple[Path, int]:
    """The run on several processes: workers on this machine, or those that join from others."""
    from agentload.fleet.launch import Fleet, run_fleet
    from agentload.fleet.token import given

    local = flags["workers"] or (0 if flags["master"] else 1)
    others = flags["expect_workers"] or int(flags["master"] and not local)
    try:
        fleet = Fleet(
            workers=local,
            expect_workers=others,
            bind_host=flags["master_bind_host"],
            bind_port=flags["master_bind_port"] if flags["master"] else 0,
            ui=flags["ui"],
            web_host=flags["web_host"],
            web_port=flags["web_port"],
            web_login=flags["web_login"],
            token=given(flags["token_file"]),
        )
    except ValueError as error:
        raise BadInput(str(error)) from None
    return run_fleet(spec, out, fleet, console)


def simulate(
    path: Path | None,
    flags: dict[str, Any],
    out: Path,
    *,
    shards: int,
    quiet: bool,
    as_json: bool,
    files: Files = NO_FILES,
) -> int:
    """The run in virtual time; return the exit code."""
    return simulate_spec(resolve(path, flags), out, shards=shards, quiet=quiet, as_json=as_json, files=files)


def simulate_spec(
    spec: Spec, out: Path, *, shards: int = 1, quiet: bool, as_json: bool, files: Files = NO_FILES
) -> int:
    from agentload.simulation import simulate as run_virtually

    files.check(bool(spec.slo))
    folder, stopped = run_virtually(spec, out, shards=shards)
    return finish(folder, 130 if stopped == "interrupted" else 0, quiet=quiet, as_json=as_json, files=files)


def probe(flags: dict[str, Any], *, this_machine: bool, as_json: bool) -> None:
    """Print what an endpoint can do, or what this machine can measure."""
    if this_machine == bool(flags["url"]):
        raise BadInput(
            "probe needs one of --url URL (what an endpoint can do) and --self (what this machine can measure)"
        )
    if this_machine:
        from agentload import selfcheck

        found = selfcheck.check_self()
        text = selfcheck.to_text(found)
    else:
        from agentload import abilities

        endpoint = resolve(None, flags).endpoint
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(abilities.probe_endpoint(endpoint))
        text = abilities.to_text(found)
    say(json.dumps(found, indent=2) if as_json else text)


def work(host: str, port: int, out: Path, wait: float, token_file: Path | None) -> int:
    """Join a master and work for it; return the exit code."""
    from agentload.fleet.token import given
    from agentload.fleet.worker import Work
    from agentload.fleet.worker import work as work_for

    return work_for(Work(master_host=host, master_port=port, wait=wait, out=str(out)), given(token_file))


def finish(folder: Path, code: int, *, quiet: bool, as_json: bool, files: Files = NO_FILES) -> int:
    """Write summary, report and files, and print what was asked for; return the exit code."""
    from collectors.gate import exit_code
    from collectors.text import to_text

    page, summary = report_of(folder)
    write_files(files, folder.name, summary)
    if as_json:
        say(json.dumps(summary, indent=2))
    elif not quiet:
        say(to_text(summary))
    if page is None:
        return code or 1
    if not as_json:
        say(page)
    answered = summary["run"]["calls"] - sum(error["count"] for error in summary["errors"].values())
    if not code and not answered:
        return 1  # a run in which nothing was answered has failed
    return code or exit_code(summary["slo"])


def print_expected(spec: Spec) -> None:
    """The resolved spec, itself a valid spec, and what to expect, as its comments."""
    from agentload.expect import expect
    from agentload.plan import NO_LIMIT
    from agents.text import Room

    lines = ["# This is a spec; nothing was sent."]
    figures = expect(spec, Room(spec.endpoint.context_length or (NO_LIMIT if spec.endpoint.url else 131_072)))
    if figures is None:
        lines.append("# The model, or code of your own, decides how many calls and tokens there will be.")
    else:
        lines += [f"# expected {name.replace('_', ' ')}: about {value:,.0f}" for name, value in figures.items()]
    say("\n".join(lines) + "\n\n" + specs.encode(spec), end="")


def capacity(path: Path | None, flags: dict[str, Any], out: Path, asked: dict[str, Any], *, as_json: bool) -> int:
    """Search for the most load that holds the SLOs; print the answer; return the exit code."""
    from agentload.capacity import Options, tiers_from, to_text
    from agentload.capacity import capacity as search

    spec = resolve(path, flags)
    known = {name: getattr(spec, name) for name in ("gpus", "power_kw", "gpu_hour_usd")}
    given = {name: value for name, value in asked.items() if value is not None and name not in ("slo", "tiers")}
    options = Options(tiers_from(asked["slo"] or [], asked["tiers"], spec.slo), **(known | given))

    with contextlib.nullcontext(spec) if options.simulate else aimed(spec, out, flags) as there:
        folder, code = search(there, out, options, say=note)
    found = json.loads((folder / "capacity.json").read_text())
    say(json.dumps(found, indent=2) if as_json else f"{to_text(found)}\n{folder / 'capacity.json'}")
    return code


def sweep(
    path: Path | None,
    flags: dict[str, Any],
    out: Path,
    asked: dict[str, Any],
    resume: Path | None,
    prices: Path | None,
    factory: dict[str, Any],
) -> int:
    """Raise the load step by step, write the sweep's pages, and print where; return the exit code."""
    from agentload.sweep import Options
    from agentload.sweep import sweep as run_sweep
    from collectors.boards import write_sweep
    from collectors.economics import load_prices
    from collectors.factory import Factory

    spec = resolve(path, flags)
    given = {name: value for name, value in asked.items() if value is not None}
    given["values"] = tuple(given.get("values", ()))
    given.setdefault("census", 200 if asked["simulate"] else 0)
    costs = {name: value for name, value in factory.items() if value is not None}

    try:
        options = msgspec.convert(given, Options)
        table = load_prices(prices) if prices else None
        owned = Factory(gpus=given.get("gpus") or spec.gpus or 1.0, **costs) if costs else None
        with contextlib.nullcontext(spec) if options.simulate else aimed(spec, out, flags) as there:
            folder, code = run_sweep(there, out, options, say=note, resume=resume)
        say(write_sweep(folder, table, owned))
    except msgspec.ValidationError as error:
        raise BadInput(specs.explained(str(error), given, Options)) from None
    except (FileNotFoundError, ValueError) as error:
        raise BadInput(str(error)) from None
    return code


def forecast(path: Path | None, folders: list[Path], out: Path) -> None:
    """Write the forecast's page and print where."""
    from agentload import forecasting

    try:
        folder = forecasting.forecast(forecasting.read(path), folders, out)
    except (FileNotFoundError, ValueError) as error:
        raise BadInput(str(error)) from None
    say(folder / "forecast.html")


def draw(path: Path | None, flags: dict[str, Any], html: Path | None) -> None:
    """Print the schedule as a sparkline, and write it as a chart if asked."""
    import numpy as np

    from agentload.schedule import chart
    from loadprofiles import draw

    spec = resolve(path, flags)
    duration = spec.duration or 60.0
    say(draw(spec.shape(), duration, np.random.default_rng([spec.seed, 1 << 32])))
    if html is not None:
        try:
            html.write_text(chart(spec, duration))
        except OSError as error:
            raise BadInput(f"--html {str(html)!r} cannot be written: {error.strerror}") from None
        say(html)


def report(folder: Path, *, as_json: bool, files: Files = NO_FILES) -> int:
    """Rebuild a run's report from its records, and judge it again; return the exit code."""
    if not (folder / "run.json").is_file():
        raise BadInput(f"{str(folder)!r} is not a run folder: it has no run.json")
    try:
        header = header_of(folder / "run.json")
        load.known_to(header.get("schema", 1))
        files.check(bool((header.get("spec") or {}).get("slo")))
        return finish(folder, 0, quiet=False, as_json=as_json, files=files)
    except Unreadable as error:
        raise BadInput(str(error)) from None
