"""The tools of live chains: what is described to the model, and what happens when it calls one.

Only tools that the user named exist here. A call to anything else, or with arguments that are not what the schema
asks for, is answered with the error a real harness would give, and counted.
"""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from msgspec import structs

from agents.chain import ToolCall, ToolSchema
from agents.dice import count, draw
from agents.kind import Archetype, PythonTool, SimulatedTool

JSON_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object"}


DELEGATE = "Hand a part of the work to another agent, and get its report."
DELEGATED = {
    "type": "object",
    "properties": {"task": {"type": "string", "description": "what it is to do"}},
    "required": ["task"],
}


class Toolbox:
    """The tools of one archetype by name."""

    def __init__(self, archetype: Archetype) -> None:
        self.longest_wait = archetype.longest_wait
        self.simulated: dict[str, SimulatedTool] = {tool.name: tool for tool in archetype.tools}
        self.python: dict[str, Callable[..., Any]] = {}
        schemas = [tool.schema() for tool in archetype.tools]
        for tool in archetype.python_tools:
            function = load(tool.function)
            schema = describe(tool, function)
            self.python[schema.name] = function
            schemas.append(schema)
        self.starts = f"start_{archetype.child}" if archetype.child else ""
        if self.starts:
            schemas.append(ToolSchema(self.starts, DELEGATE, DELEGATED))
        self.alone: Toolbox = self  # without the tool that starts sub-agents
        if self.starts:
            self.alone = Toolbox(structs.replace(archetype, child=""))
        self.schemas = tuple(schemas)
        self._by_name = {schema.name: schema for schema in schemas}

    def resolve(self, call: ToolCall, rng: np.random.Generator) -> ToolCall:
        """The model's call with what it will cost, or the function it runs, or the error it is answered with."""
        schema = self._by_name.get(call.name)
        if schema is None:
            return refused(
                call, "unknown", f"Error: there is no tool named {call.name!r}. Tools: {', '.join(self._by_name)}."
            )
        try:
            arguments = msgspec.json.decode(call.arguments or "{}")
        except (ValueError, RecursionError) as error:
            return refused(call, "malformed", f"Error: the arguments are not valid JSON: {error}.")
        if not isinstance(arguments, dict):
            return refused(call, "malformed", "Error: the arguments must be a JSON object.")
        missing = [name for name in schema.parameters.get("required", []) if name not in arguments]
        if missing:
            return refused(call, "malformed", f"Error: missing argument {missing[0]!r}.")
        if call.name == self.starts:
            return structs.replace(call, kind="agent")
        if call.name in self.python:
            return structs.replace(call, kind="python", run=self.python[call.name])
        tool = self.simulated[call.name]
        return structs.replace(
            call,
            seconds=min(draw(tool.seconds, rng), self.longest_wait),
            tokens=count(tool.tokens, rng),
            ok=rng.random() >= tool.failure,
        )


def refused(call: ToolCall, kind: str, text: str) -> ToolCall:
    """A call that the harness answers itself, at once."""
    return structs.replace(call, kind=kind, text=text, ok=False)


def load(name: str) -> Callable[..., Any]:
    """The function that `module:function` names. ValueError says what is wrong with the name."""
    module_name, _, function_name = name.partition(":")
    if not function_name:
        raise ValueError(f"python tool must be named module:function, got {name!r}")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"python tool {name!r} cannot be loaded: {error}") from None
    if not callable(function):
        raise ValueError(f"python tool {name!r} is not a function")
    return function  # type: ignore[no-any-return]  # anything callable will do


def describe(tool: PythonTool, function: Callable[..., Any]) -> ToolSchema:
    """The schema of a Python function: parameters from its signature, description from its docstring."""
    fields, required = {}, []
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        fields[name] = {"type": JSON_TYPES.get(parameter.annotation, "string")}
        if parameter.default is parameter.empty:
            required.append(name)
    about = (inspect.getdoc(function) or "").partition("\n\n")[0]
    name = tool.name or function.__name__
    return ToolSchema(name, about, {"type": "object", "properties": fields, "required": required})
