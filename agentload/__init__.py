"""Synthetic agents against an inference endpoint: `run`, `simulate` and `load_run` do what the commands do.

Importing this imports nothing else: what a function needs comes with its first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentload.api import BadInput, Results, load_run, run, simulate

__all__ = ["BadInput", "Results", "load_run", "run", "simulate"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("agentload.api"), name)
    raise AttributeError(f"module 'agentload' has no attribute {name!r}")
