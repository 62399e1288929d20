"""What the shell offers for the value of an option: names that the code knows, looked up when they are asked for."""

from collections.abc import Iterable


def archetypes(incomplete: str) -> list[str]:
    """Built-in archetypes."""
    from agents.archetypes import ARCHETYPES

    return beginning(ARCHETYPES, incomplete)


def profiles(incomplete: str) -> list[str]:
    """Load profiles that a name is enough for."""
    from loadprofiles import PROFILES

    return beginning(PROFILES, incomplete)


def promises(incomplete: str) -> list[str]:
    """Promises, up to their limit."""
    from collectors.slo import METRICS

    named = [f"{metric}_p{25 if metric == 'output_speed' else 95}=" for metric in METRICS]
    return beginning([*named, "error_rate="], incomplete)


def tiers(incomplete: str) -> list[str]:
    """Published sets of promises."""
    from collectors.slo import published

    return beginning(published(), incomplete)


def presets(incomplete: str) -> list[str]:
    """Presets of the simulated cluster."""
    from agentload.box.presets import PRESETS

    return beginning(PRESETS, incomplete)


def beginning(names: Iterable[str], incomplete: str) -> list[str]:
    """Those that begin with what was typed."""
    return [name for name in names if name.startswith(incomplete)]
