"""What `agentload replay` does: a trace and flags become a spec, which then runs as any other."""

from pathlib import Path
from typing import Any

from agentload import commands
from agentload.commands import PROFILE_FLAGS
from agentload.errors import BadInput
from agentload.gating import NO_FILES, Files
from agentload.recorded import recorded
from agentload.spec import Spec
from agentload.terminal import note, warn
from agentload.tracing import problems

BOX_CONTEXT = 131_072
"""Tokens of context that the simulated cluster has where a spec does not say."""
LANES = 32
"""Sessions of a trace that are replayed at once where nothing is said."""


def replay(
    trace: Path,
    how: dict[str, Any],
    flags: dict[str, Any],
    out: Path,
    workers: int,
    *,
    dry_run: bool,
    simulated: bool,
    quiet: bool,
    as_json: bool,
    files: Files = NO_FILES,
) -> int:
    """Replay a trace, in real time or in virtual, and judge it; return the exit code."""
    spec = resolve(trace, how, flags)
    note("".join(f"{line}\n" for line in problems(recorded(spec).complaints)), end="")
    too_long(spec)
    files.check(bool(spec.slo))
    if dry_run:
        commands.print_expected(spec)
        return 0
    if simulated:
        return commands.simulate_spec(spec, out, quiet=quiet, as_json=as_json, files=files)
    with commands.aimed(spec, out, flags) as spec:
        folder, code = commands.perform(spec, out, quiet or as_json, commands.ALONE | {"workers": workers})
    return commands.finish(folder, code, quiet=quiet, as_json=as_json, files=files)


def too_long(spec: Spec) -> None:
    """Say so where some calls do not fit the context, as far as it is known before anything is asked."""
    context = spec.endpoint.context_length or (None if spec.endpoint.url else spec.box.context or BOX_CONTEXT)
    said = recorded(spec).about(context)
    if said["calls_too_long"]:
        fits = spec.scale * 0.97 * (context or 0) / said["longest_call_tokens"]
        warn(f"{said['calls_too_long']:,} of {said['calls']:,} calls do not fit the context of {context:,} tokens; "
             f"their sessions end there. --scale {fits:.2g} makes all of them fit")  # fmt: skip


def resolve(trace: Path, how: dict[str, Any], flags: dict[str, Any]) -> Spec:
    """The spec of a replay: agents held, or a rate, as the flags say, or with `arrivals = "recorded"` in `how` sessions
    that start when they did."""
    given = {name: value for name, value in flags.items() if value is not None}
    how = {name: value for name, value in how.items() if value is not None}
    plain: dict[str, Any] = {}
    match how.pop("arrivals", None):
        case None if not any(name in given for name in PROFILE_FLAGS):
            given["agents"] = LANES
        case None:
            pass
        case "recorded":
            for name in PROFILE_FLAGS:
                if name in given:
                    raise BadInput(f"--{name} {given[name]} and --arrivals recorded contradict each other; drop one")
            plain["profile"] = {"type": "traced"}
        case other:
            raise BadInput(f"--arrivals must be recorded, or left out, got {other!r}")
    if how.pop("mid_session", False):
        plain["begin"] = "mid-session"
    plain["replay"] = {"trace": str(trace)} | how
    return commands.overlaid(plain, given, "flags")
