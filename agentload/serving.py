"""What `agentload serve` does: its flags, and the spec under them, become the options of a box, and that is served."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from agentload import spec as specs
from agentload.box.options import BoxOptions
from agentload.box.serve import serve_until_signal
from agentload.errors import BadInput
from agentload.terminal import note

TABLES = {
    "offload_tokens": ("offload", "tokens"),
    "transfer_us": ("transfer", "token_us"),
    "scale_to": ("scaling", "most"),
    "cold_start": ("scaling", "cold_start"),
    "requests_per_minute": ("quota", "requests"),
    "tokens_per_minute": ("quota", "tokens"),
    "error_rate": ("faults", "error"),
    "reset_rate": ("faults", "reset"),
    "stall_rate": ("faults", "stall"),
    "slow_rate": ("faults", "slow"),
    "broken_rate": ("faults", "broken"),
    "fault_key": ("faults", "key"),
}
"""Flags of `serve` that are fields of a table within [box]."""


def serve(path: Path | None, flags: dict[str, Any]) -> None:
    """Serve the simulated cluster until stopped."""
    options = options_from(specs.read(path).get("box", {}) if path is not None else {}, flags)

    try:
        serve_until_signal(options, lambda url: note(described(options, url)), note)
    except OSError as error:
        raise BadInput(
            f"cannot serve at {options.host}:{options.port}: {error.strerror}; name another --port"
        ) from None


def options_from(box: Any, flags: dict[str, Any]) -> BoxOptions:
    """The options in a spec's table `box`, with the flags over it."""
    if not isinstance(box, dict):
        raise BadInput(f"`box` must be a table, got {box!r}")
    plain: dict[str, Any] = {"port": 8_000} | box
    for name, value in flags.items():
        if value is None or value == []:
            continue
        if name in TABLES:
            table, field = TABLES[name]
            plain[table] = plain.get(table, {}) | {field: value}
        elif name == "fail":
            plain["failures"] = [failure(text) for text in value]
        else:
            plain[name] = value
    try:
        plain = specs.with_preset(plain)
        return msgspec.convert(plain, BoxOptions)
    except ValueError as error:
        raise BadInput(specs.explained(str(error), plain, BoxOptions)) from None


def failure(text: str) -> dict[str, Any]:
    """`AT`, `AT:REPLICA` or `AT:REPLICA:AFTER`: when a replica dies, which, and for how long, in seconds."""
    fields: tuple[tuple[str, Callable[[str], float]], ...] = (("at", float), ("replica", int), ("after", float))
    parts = text.split(":")
    try:
        made = {name: kind(part) for (name, kind), part in zip(fields, parts, strict=False)}
    except ValueError:
        made = {}
    if len(made) < len(parts):
        raise BadInput(f"--fail {text!r} must be AT, AT:REPLICA or AT:REPLICA:AFTER, as in 30:0:60")
    return made


def described(options: BoxOptions, url: str) -> str:
    """What is served where, in a few lines."""
    preset = options.scaled()
    replicas = f"{options.replicas} replica{'s' if options.replicas > 1 else ''}"
    if options.prefill:
        replicas += f" that decode and {options.prefill} for prompts"
    lines = [
        f"simulated cluster ({preset.name}), model {options.model!r}, at {url}",
        f"  {replicas}, router {options.router}; each {preset.serves}",
        f"  {preset.validity}",
    ]
    if options.speed != 1:
        lines.append(f"  its clock runs {options.speed:g} times as fast as the wall's: divide its times by that")
    return "\n".join(lines)
