"""Agents of the user's own: a generator in a file of theirs, named `my_agents.py:triage`.

It is called with a random generator and yields what `agents.chain` has words for. What goes wrong in it ends its
session as "broken", with the line it went wrong at, and not the run.
"""

import contextlib
import importlib.util
import inspect
import math
import sys
import traceback
from collections.abc import Callable
from inspect import isgenerator
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import structs

from agents.chain import Agent, Chain, Chat, Context, HangUp, Join, Message, Note, Outcome, Spawn, ToolCall, Until, Wait

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
    if (beside := str(path.resolve().parent)) not in sys.path:
        sys.path.append(beside)  # it may import its neighbours, as a script may
    try:
        spec.loader.exec_module(module)
    except Exception as fault:  # noqa: BLE001  # the user's code may raise anything
        raise ValueError(f"agent {name!r}: {where(fault, path)}") from None
    function = getattr(module, function_name, None)
    if function is None:
        raise ValueError(f"agent {name!r}: {path_name} has no {function_name!r}")
    if not inspect.isgeneratorfunction(function):
        raise ValueError(f"agent {name!r}: {function_name} must be a generator function: a def with a yield in it")
    try:
        inspect.signature(function).bind(None)
    except TypeError as fault:
        raise ValueError(f"agent {name!r}: {function_name} is called with a random generator: {fault}") from None
    return function  # type: ignore[no-any-return]  # what it yields is looked at when it does


def own(name: str, function: Callable[[np.random.Generator], Chain], rng: np.random.Generator) -> Agent:
    """One session of an agent of one's own; it is recorded under the function's name."""
    return Agent(called(name), guarded(function(rng), Path(name.rpartition(":")[0])))


def called(name: str) -> str:
    """What a population's agent is recorded under: an archetype's name, or the function's."""
    return name.rpartition(":")[2] if MARK in name else name


def guarded(chain: Any, path: Path) -> Chain:
    """The user's chain; where it raises, or asks for what is nothing to ask for, it has failed."""
    answer: Any = None
    started = 0  # sub-agents
    try:
        while True:
            ask = chain.send(answer)
            fault = wrong(ask, started)
            if fault:
                return Outcome("broken", error=f"{path.name}:{chain.gi_frame.f_lineno}: {fault}")
            if isinstance(ask, Spawn):
                started += len(ask.agents)
                inner = tuple(structs.replace(a, chain=guarded(a.chain, path)) for a in ask.agents)
                ask = structs.replace(ask, agents=inner)
            answer = yield ask
    except StopIteration as stop:
        return ended(stop.value, path)
    except (Exception, SystemExit) as fault:  # noqa: BLE001  # the user's code may raise anything
        return Outcome("broken", error=where(fault, path))
    finally:
        with contextlib.suppress(Exception):  # its own last words
            chain.close()


def ended(value: Any, path: Path) -> Outcome:
    """How a chain ended that returned this."""
    if not isinstance(value, Outcome):
        return Outcome("done", intents=1)
    words = isinstance(value.status, str) and isinstance(value.error, str) and isinstance(value.text, str | None)
    if words and whole(value.tokens) and whole(value.intents):
        return value
    return Outcome("broken", error=f"{path.name}: returned {value!r:.80}; an Outcome has words and whole numbers")


def wrong(ask: Any, started: int) -> str:
    """What is wrong with what a chain asks for that has started so many sub-agents; "" where nothing is."""
    match ask:
        case Chat(Context(), int(most)) if most >= 1 and isinstance(ask.hang_up, HangUp | None):
            fault = next((m for m in ask.context.messages if not (isinstance(m, Message) and sendable(m))), None)
            if fault is None:
                return "" if ask.context.messages else "a Chat needs a Context with a Message in it"
            return f"a Context holds Messages of 0 tokens or more, got {fault!r:.80}"
        case Chat():
            return f"a Chat is of a Context and of max_tokens >= 1, got {ask!r:.80}"
        case Wait(seconds) if lasting(seconds):
            return ""
        case Spawn(tuple() as agents) if all(isinstance(a, Agent) and isgenerator(a.chain) for a in agents):
            return ""
        case Until(int() | float() as instant) if -math.inf < instant < math.inf:
            return ""
        case Join(tuple() as numbers):
            lost = [n for n in numbers if not whole(n) or n >= started]
            return f"Join of sub-agent {lost[0]!r}, and {started} were started" if lost else ""
        case Note(str(), int()):
            return ""
        case list() if all(isinstance(call, ToolCall) and callable_tool(call) for call in ask):
            return ""
    return f"yielded {ask!r:.80}, which is no Chat, list of ToolCall, Spawn, Join, Wait, Until or Note that can be done"


def sendable(message: Message) -> bool:
    return isinstance(message.role, str) and isinstance(message.text, str | None) and whole(message.tokens)


def callable_tool(call: ToolCall) -> bool:
    return (
        isinstance(call.name, str) and isinstance(call.arguments, str) and lasting(call.seconds) and whole(call.tokens)
    )


def whole(count: Any) -> bool:
    return isinstance(count, int) and count >= 0


def lasting(seconds: Any) -> bool:
    return isinstance(seconds, int | float) and 0 <= seconds < math.inf


def where(fault: BaseException, path: Path) -> str:
    """The last line of the user's file that a fault went through, and what it is."""
    lines = [frame.lineno for frame in traceback.extract_tb(fault.__traceback__) if Path(frame.filename) == path]
    if isinstance(fault, SyntaxError) and not lines:
        lines = [fault.lineno]
    place = f"{path.name}:{lines[-1]}" if lines else path.name
    return f"{place}: {type(fault).__name__}: {' '.join(str(fault).split())[:300]}"
