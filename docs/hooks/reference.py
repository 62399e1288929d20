"""The reference of the documentation, generated from the code whenever the site is built.

Commands come from the command line's own help, specs and records from their structs (docstrings, types, limits,
defaults and the comment beside each field), metrics from their functions.
"""

import ast
import inspect
import io
import sys
import textwrap
import tokenize
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from types import ModuleType
from typing import Any

import msgspec
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from msgspec import inspect as types
from typer.main import get_command

import agentload.api
import collectors.curves
import collectors.economics
import collectors.growth
import collectors.metrics
import collectors.slo
from agentload.cli import app
from agentload.spec import Spec
from agents.archetypes import ARCHETYPES
from agents.draws import Uniform
from agents.kind import Archetype
from collectors.header import Header
from collectors.load import TABLES
from collectors.records import STATUSES
from collectors.report import WORDS
from collectors.store import schema
from collectors.summary import PARTS
from collectors.vocabulary import SOURCES
from collectors.vocabulary import WORDS as VOCABULARY
from loadprofiles import Constant

Struct = type[msgspec.Struct]


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the generated pages."""
    for name, page in PAGES.items():
        files.append(File.generated(config, f"reference/{name}.md", content=page()))


# Commands.


COMMANDS = """# Commands

What each command takes, as `--help` says it. Exit codes: 0 done, 1 the run failed or broke a promise, 2 bad input
(nothing was sent), 3 a promise could not be judged, 130 interrupted."""


def commands() -> str:
    """Every command with its arguments and options."""
    group = get_command(app)
    parts = [COMMANDS]
    for path, command in walk(group, ["agentload"]):
        parts += ["", f"## {' '.join(path[1:])}", "", *told(command.help or ""), ""]
        context = command.make_context(" ".join(path), [], resilient_parsing=True)
        parts += ["```text", " ".join(command.get_usage(context).split()), "```", ""]
        parts += table(("option", "default", "what it is"), map(option, command.params))
    return "\n".join(parts) + "\n"


def walk(group: Any, path: list[str]) -> Iterator[tuple[list[str], Any]]:
    """Every command below a group, with the words that call it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from walk(command, [*path, name])
        else:
            yield [*path, name], command


def told(text: str) -> list[str]:
    """A command's help: prose, and its examples as code."""
    lines = inspect.cleandoc(text).splitlines()
    return [f"```console\n$ {line.removeprefix('Example: ')}\n```" if line.startswith("Example: ") else line
            for line in lines]  # fmt: skip


def option(parameter: Any) -> tuple[str, str, str]:
    """Its names, default and help."""
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    if not parameter.opts[0].startswith("-"):
        names = f"`{(parameter.name or '').upper()}`"
    default = parameter.default
    shown = "" if default in (None, False, ()) or callable(default) else f"`{default}`"
    return names, shown, getattr(parameter, "help", None) or ""


# Specs.


SPECS = """# Specs, field by field

A spec is a TOML file. [Specs: who, when, where](../specs.md) says how its parts work together; here is all that it can
hold. Where nothing is said of a unit, times are seconds and sizes are tokens. `None` is said by leaving a field out."""


MANY = 4
"""Structs in a union beyond which it is called by its name."""
FAMILIES = {"loadprofiles.arrivals": "a [load profile](#load-profiles)", "agents.draws": "a [quantity](#quantities)"}
HEADINGS = {
    Constant: "## Load profiles { #load-profiles }\n\nOpen loop first, then populations, then what combines them.",
    Uniform: "## Quantities { #quantities }\n\nA plain number, or one of these; each use draws anew.",
}
ENDLESS = 1e12
"""A limit that only keeps sums finite, and says nothing to a reader."""


def spec() -> str:
    """Every struct that a spec can hold."""
    found = structs_of([Spec, Archetype])
    parts = [SPECS]
    for struct in found:
        if struct in HEADINGS:
            parts += ["", HEADINGS[struct]]
        parts += ["", f"## {struct.__name__} {{ #{anchor(struct)} }}", "", *documented(struct), ""]
        parts += table(("field", "type", "default", "what it is"), rows(struct))
    parts += ["", "## Built-in archetypes", ""]
    parts += table(("name", "what it imitates"), ((f"`{name}`", kind.about) for name, kind in ARCHETYPES.items()))
    return "\n".join(parts) + "\n"


def structs_of(roots: Iterable[Struct]) -> list[Struct]:
    """The structs that these can hold, each once, in the order in which they are met."""
    met: dict[Struct, None] = {}

    def visit(kind: types.Type | types.Metadata) -> None:
        for inner in (kind, *(getattr(kind, name, None) for name in ("type", "item_type", "value_type"))):
            if inner is not kind and isinstance(inner, types.Type):
                visit(inner)
        for inner in (*getattr(kind, "types", ()), *(getattr(kind, "item_types", None) or ())):
            visit(inner)
        if isinstance(kind, types.StructType) and kind.cls not in met:
            met[kind.cls] = None
            for field in kind.fields:
                visit(field.type)

    for root in roots:
        visit(types.type_info(root))
    return list(met)


def anchor(struct: Struct) -> str:
    """What a link to it ends with; profiles and quantities share some names."""
    return f"{struct.__module__.rpartition('.')[2]}-{struct.__name__}".lower()


def documented(struct: Struct) -> list[str]:
    """Its docstring, and the type that names it where it is one of several."""
    tag = struct.__struct_config__.tag
    return [inspect.getdoc(struct) or "", *([f'\n`type = "{tag}"`'] if tag else [])]


def rows(struct: Struct) -> Iterator[tuple[str, str, str, str]]:
    """Name, type, default and meaning of each field."""
    said = comments(struct)
    for field in types.type_info(struct).fields:  # type: ignore[attr-defined]
        if field.default is not msgspec.NODEFAULT:
            default = shown(field.default)
        elif field.default_factory is not msgspec.NODEFAULT:
            default = shown(field.default_factory())
        else:
            default = "required"
        yield f"`{field.encode_name}`", said_type(field.type), default, said.get(field.name, "")


def shown(value: Any) -> str:
    """A default as TOML would have it."""
    if isinstance(value, msgspec.Struct):
        plain = {k: v for k, v in msgspec.to_builtins(value).items() if v not in (None, [], {}, "")}
        inner = ", ".join(f"{k} = {bare(v)}" for k, v in plain.items())
        return f"`{{ {inner} }}`" if len(inner) < 70 else f"a [{type(value).__name__}](#{anchor(type(value))})"
    match value:
        case None:
            return "None"
        case bool():
            return f"`{str(value).lower()}`"
        case str():
            return f'`"{value}"`'
        case dict():
            return f"`{{{', '.join(f'{k} = {bare(v)}' for k, v in value.items())}}}`"
        case float():
            return f"`{value:g}`"
        case list() | tuple():
            return f"`[{', '.join(bare(v) for v in value)}]`"
    return f"`{value}`"


def bare(value: Any) -> str:
    """The same without the marks of code."""
    return shown(value).strip("`")


def said_type(kind: types.Type) -> str:
    """A type in words, with its limits."""
    if isinstance(kind, types.Metadata):
        return said_type(kind.type)
    if isinstance(kind, types.StructType):
        return f"[{kind.cls.__name__}](#{anchor(kind.cls)})"
    if isinstance(kind, types.UnionType):
        inner = [one for one in kind.types if not isinstance(one, types.NoneType)]
        if len(inner) > MANY:
            module = next(one.cls.__module__ for one in inner if isinstance(one, types.StructType))
            return FAMILIES[module]
        return " or ".join(said_type(one) for one in inner)
    if isinstance(kind, types.LiteralType):
        return " or ".join(f'`"{value}"`' for value in kind.values)
    if isinstance(kind, types.ListType | types.VarTupleType):
        return f"list of {said_type(kind.item_type)}"
    if isinstance(kind, types.TupleType):
        return ", ".join(said_type(one) for one in kind.item_types)
    if isinstance(kind, types.DictType):
        return f"table of {said_type(kind.value_type)}"
    found = [(sign, getattr(kind, name, None)) for name, sign in SIGNS.items()]
    limits = [f"{sign} {limit:g}" for sign, limit in found if limit is not None and limit < ENDLESS]
    return f"{TYPES.get(type(kind), type(kind).__name__)} {' and '.join(limits)}".strip()


TYPES: dict[type, str] = {
    types.IntType: "whole number",
    types.FloatType: "number",
    types.StrType: "text",
    types.BoolType: "true or false",
    types.AnyType: "anything",
}
SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}


@cache
def lines_of(module: ModuleType) -> tuple[ast.Module, dict[int, str]]:
    """A module's tree, and the comment of each line that has one."""
    source = inspect.getsource(module)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return ast.parse(source), {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}


def comments(struct: Struct) -> dict[str, str]:
    """What stands beside each field of it; where nothing does, what stands beside the name of its type."""
    found: dict[str, str] = {}
    for kind in reversed(
        [cls for cls in struct.__mro__ if issubclass(cls, msgspec.Struct) and cls.__module__ != "msgspec"]
    ):
        tree, said = lines_of(sys.modules[kind.__module__])
        units = {
            node.targets[0].id: said[node.lineno]
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.lineno in said
        }
        body = next((n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == kind.__name__), None)
        for node in body.body if body else []:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                beside = [said[i] for i in range(node.lineno, (node.end_lineno or 0) + 2)
                          if i in said and (i <= (node.end_lineno or 0))]  # fmt: skip
                named = {n.id for n in ast.walk(node.annotation) if isinstance(n, ast.Name)}
                found[node.target.id] = " ".join(beside) or "; ".join(
                    units[name] for name in sorted(named & set(units))
                )
    return found


# Records.


RECORDS = """# A run folder, field by field

`run.json` is the header, the Parquet files are the records, `summary.json` has every number of the report, and
`report.html` is the report. While a run goes on, records are Arrow streams (`calls.arrows`, …), readable up to the last
whole batch. Times are seconds on the run clock, zero at its start; null means that it never happened.
[From Python](../python.md) says how to read them."""


def records() -> str:
    """What a run folder holds."""
    parts = [RECORDS]
    for name, record in TABLES.items():
        arrow = schema(record)
        said = comments(record)
        parts += ["", f"## {name}.parquet", "", *documented(record), ""]
        parts += table(
            ("column", "type", "what it is"),
            ((f"`{f.name}`", f"{f.type}{', may be null' if f.nullable else ''}", said.get(f.name, "")) for f in arrow),
        )
    parts += ["", "### Words of server.parquet", ""]
    parts += table(("word", "unit", "what it is", "where it comes from"), map(word, VOCABULARY))
    parts += ["", "### Statuses of a call", ""]
    parts += table(("status", "what it means"), ((f"`{name}`", what) for name, what in STATUSES.items()))
    for struct in structs_of([Header]):
        title = "run.json" if struct is Header else f"run.json: {struct.__name__}"
        parts += ["", f"## {title} {{ #{anchor(struct)} }}", "", *documented(struct), ""]
        parts += table(("field", "type", "what it is"), ((name, kind, said) for name, kind, _, said in rows(struct)))
    parts += ["", "## summary.json", "", SUMMARY, ""]
    parts += table(("part", "what it holds"), ((f"`{name}`", what) for name, what in PARTS.items()))
    return "\n".join(parts) + "\n"


SUMMARY = """Every number of the report. Seconds and tokens unless a name says otherwise; null is "no data". Percentiles
stand with the `count` they are of, and with the calls that `failed`, which have none."""


def word(name: str) -> tuple[str, str, str, str]:
    """A word of the servers' vocabulary, with every server's name for it."""
    found = VOCABULARY[name]
    sources = [
        f"`{' or '.join(s.names)}`" + "".join(f" + `{more}`" for more in s.plus) for s in SOURCES if s.word == name
    ]
    kind = f"{found.unit}, counter".strip(", ") if found.counter else found.unit
    return f"`{name}`", kind, found.says, ", ".join(sources) or "the reading itself"


# Metrics.

METRICS = """# Metrics and their formulas

Each metric is a function over columns of records; what is shown below is the code that made the number.

## Words
"""
LONG = 12
"""Lines of a function beyond which its code is not shown."""


def metrics() -> str:
    """Every metric with its formula, as the code has it."""
    parts = [METRICS]
    parts += table(("word", "what it means here"), WORDS.items())
    parts += ["", "## Promises (SLOs)", "", (collectors.slo.__doc__ or "").strip(), ""]
    parts += table(
        ("name", "unit", "promise"),
        (
            (f"`{name}_p95`", collectors.slo.unit(f"{name}_p95"), "at least" if name == "output_speed" else "at most")
            for name in collectors.slo.METRICS
        ),
    )
    parts += ["", "Any percentile from p1 to p99, and `error_rate`, a share of calls."]
    for title, module in SECTIONS.items():
        parts += ["", f"## {title}", "", inspect.getdoc(module) or ""]
        for name, function in public(module):
            parts += ["", f"### `{module.__name__}.{name}` {{ #{module.__name__.replace('.', '-')}-{name} }}", ""]
            parts += [inspect.getdoc(function) or "", *formula(function)]
    return "\n".join(parts) + "\n"


SECTIONS = {
    "Metrics of a run": collectors.metrics,
    "Growth of demand": collectors.growth,
    "Curves": collectors.curves,
    "Economics": collectors.economics,
}


def public(module: ModuleType) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The functions that a module defines for others, in its own order."""
    for name, function in vars(module).items():
        if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_"):
            yield name, function


def formula(function: Callable[..., Any]) -> list[str]:
    """Its code without its docstring, where that is short enough to be read as a formula."""
    source = textwrap.dedent(inspect.getsource(function))
    body = ast.parse(source).body[0]
    lines = source.splitlines()
    if isinstance(body, ast.FunctionDef) and ast.get_docstring(body):
        del lines[body.body[0].lineno - 1 : body.body[0].end_lineno]
    return ["", "```python", *lines, "```"] if len(lines) <= LONG else []


# Python.

PYTHON = """# The Python API

What `import agentload` offers; [From Python](../python.md) shows how it is used."""


def python() -> str:
    """Every name that the package offers, with what it can do."""
    parts = [PYTHON]
    for name in (*agentload.__all__, "Records"):
        thing = getattr(agentload.api, name)
        parts += ["", f"## {name}", ""]
        if not inspect.isclass(thing):
            parts += ["```python", inspect.getsource(thing).partition('"""')[0].strip(), "```", ""]
        parts += [inspect.getdoc(thing) or "", ""]
        members = vars(thing).items() if inspect.isclass(thing) else ()
        told = ((member, inspect.getdoc(value)) for member, value in members if not member.startswith("_"))
        parts += table(("member", "what it is"), ((f"`{member}`", said) for member, said in told if said))
    return "\n".join(parts) + "\n"


def table(head: tuple[str, ...], body: Iterable[tuple[str, ...]]) -> list[str]:
    """A Markdown table; nothing where it has no row."""
    lines = [f"| {' | '.join(' '.join(cell.split()).replace('|', '&#124;') for cell in row)} |" for row in body]
    return [f"| {' | '.join(head)} |", f"| {' | '.join(['---'] * len(head))} |", *lines] if lines else []


PAGES = {"commands": commands, "spec": spec, "metrics": metrics, "records": records, "python": python}
