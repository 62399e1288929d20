"""Arguments for a tool call, made up to fit the tool's JSON schema."""

from typing import Any

import numpy as np

from agentload.box.vocabulary import WORDS

Schema = dict[str, Any]
DEPTH = 6  # deeper than that, a schema is answered with its emptiest value


def arguments(schema: Any, rng: np.random.Generator) -> dict[str, Any]:
    """Arguments for a tool whose parameters are described by `schema`; {} where it says nothing."""
    made = _value(schema, rng, 0)
    return made if isinstance(made, dict) else {}


def _value(schema: Any, rng: np.random.Generator, depth: int) -> Any:
    if not isinstance(schema, dict):
        return {} if depth == 0 else "value"
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return _pick(schema["enum"], rng)
    for choice in ("anyOf", "oneOf", "allOf"):
        if schema.get(choice) and "properties" not in schema and isinstance(schema[choice], list):
            return _value(schema[choice][0], rng, depth)
    kind = schema.get("type", "object" if depth == 0 or "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0] if kind else "string"
    match kind:
        case "object":
            return _object(schema, rng, depth)
        case "array":
            return _array(schema, rng, depth)
        case "integer":
            return _number(schema, rng, whole=True)
        case "number":
            return _number(schema, rng, whole=False)
        case "boolean":
            return bool(rng.random() < 0.5)
        case "null":
            return None
        case _:
            return _string(schema, rng)


def _object(schema: Schema, rng: np.random.Generator, depth: int) -> Schema:
    properties = schema.get("properties")
    required = schema.get("required")
    if not isinstance(properties, dict) or depth >= DEPTH:
        return {}
    needed = required if isinstance(required, list) else []
    return {
        name: _value(inner, rng, depth + 1)
        for name, inner in properties.items()
        if name in needed or rng.random() < 0.5
    }


def _array(schema: Schema, rng: np.random.Generator, depth: int) -> list[Any]:
    least = int(_bound(schema, "minItems", 1))
    most = int(_bound(schema, "maxItems", max(least, 3)))
    count = least if depth >= DEPTH else int(rng.integers(min(least, most), most + 1))
    return [_value(schema.get("items", {}), rng, depth + 1) for _ in range(min(count, 64))]


def _number(schema: Schema, rng: np.random.Generator, *, whole: bool) -> float:
    low = _bound(schema, "minimum", _bound(schema, "exclusiveMinimum", 0.0) + ("exclusiveMinimum" in schema))
    high = _bound(schema, "maximum", max(low, 100.0))
    if whole:
        return int(rng.integers(int(np.ceil(low)), max(int(np.floor(high)), int(np.ceil(low))) + 1))
    return round(float(rng.uniform(low, max(low, high))), 2)


def _string(schema: Schema, rng: np.random.Generator) -> str:
    least, most = int(_bound(schema, "minLength", 1)), int(_bound(schema, "maxLength", 200))
    text = " ".join(str(word) for word in rng.choice(WORDS, int(rng.integers(1, 7))))
    while len(text) < min(least, 10_000):
        text += " " + str(rng.choice(WORDS))
    return text[: max(most, 0)]


def _bound(schema: Schema, name: str, default: float) -> float:
    bound = schema.get(name, default)
    return float(bound) if isinstance(bound, int | float) and abs(bound) < 2**53 else default


def _pick(choices: Any, rng: np.random.Generator) -> Any:
    return choices[int(rng.integers(len(choices)))] if isinstance(choices, list) else choices
