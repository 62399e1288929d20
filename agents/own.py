"""Agents of the user's own: a generator in a file of theirs, named `my_agents.py:triage`.

It is called with a random generator and yields what `agents.chain` has words for. What goes wrong in it ends its
session as failed, with the line it went wrong at, and not the run.
"""

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from agents.chain import Agent, Chain, Chat, Outcome, Spawn, ToolCall, Wait

MARK = ".py:"
"""What tells an agent of one's own from the name of an archetype."""


def load(name: str) -> Callable[[np.random.Generator], Chain]:
    """The generator function that `file.py:function` names. ValueError says what is wrong with the name or the file."""
    path_name, _, function_name = name.rpartition(":")
    path = Path(path_name)
    if not path_name.endswith(".py") or not function_name:
        raise ValueError(f"an agent of your own is named file.py:function, got {name!r}")
    if not path.is_file():
        raise ValueError(f"agent {name!r}: there is no file {path_name!r}")
    spec = importlib.util.spec_from_file_location(f"agentload_own_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # so that its dataclasses and type hints find themselves
    try:
        spec.loader.exec_module(module)
    except Exception as fault:  # noqa: BLE001  # the user's code may raise anything
        raise ValueError(f"agent {name!r}: {where(fault, path)}") from None
    function = getattr(module, function_name, None)
    if function is None:
        raise ValueError(f"agent {name!r}: {path_name} has no {function_name!r}")
    if not inspect.isgeneratorfunction(function):
        raise ValueError(f"agent {name!r}: {function_name} must be a generator function: a def with a yield in it")
    return function  # type: ignore[no-any-return]  # what it yields is looked at when it does


def own(name: str, function: Callable[[np.random.Generator], Chain], rng: np.random.Generator) -> Agent:
    """One session of an agent of one's own; it is recorded under the function's name."""
    path_name, _, function_name = name.rpartition(":")
    return Agent(function_name, guarded(function, rng, Path(path_name)))


def guarded(function: Callable[[np.random.Generator], Chain], rng: np.random.Generator, path: Path) -> Chain:
    """The user's chain; where it raises, or asks for what is nothing to ask for, it has failed."""
    answer: Any = None
    chain: Any = None
    try:
        chain = function(rng)
        while True:
            ask = chain.send(answer)
            if not sensible(ask):
                line = chain.gi_frame.f_lineno
                return Outcome("failed", text=f"{path.name}:{line}: yielded {ask!r:.80}, which is no Chat, list of "
                               "ToolCall, Spawn or Wait")  # fmt: skip
            answer = yield ask
    except StopIteration as stop:
        return stop.value if isinstance(stop.value, Outcome) else Outcome("done", intents=1)
    except Exception as fault:  # noqa: BLE001  # the user's code may raise anything
        return Outcome("failed", text=where(fault, path))
    finally:
        if chain is not None:
            chain.close()


def sensible(ask: Any) -> bool:
    """Whether it is something that a chain may ask for."""
    return isinstance(ask, Chat | Spawn | Wait) or (
        isinstance(ask, list) and all(isinstance(call, ToolCall) for call in ask)
    )


def where(fault: Exception, path: Path) -> str:
    """The last line of the user's file that a fault went through, and what it is."""
    lines = [frame.lineno for frame in traceback.extract_tb(fault.__traceback__) if Path(frame.filename) == path]
    if isinstance(fault, SyntaxError) and not lines:
        lines = [fault.lineno]
    place = f"{path.name}:{lines[-1]}" if lines else path.name
    return f"{place}: {type(fault).__name__}: {' '.join(str(fault).split())[:300]}"
