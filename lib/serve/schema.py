"""JSON schemas that a stranger may have written: refused where an answer cannot be held to them, or they have no end.

llama-cpp-python makes a grammar of a schema and passes over the rest of it, such as bounds of numbers. Here, as with
OpenAI, a schema is followed as a whole or refused. So are patterns: repetitions of repetitions are more than a grammar
of llama.cpp can bear.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lib.pipeline.errors import SmeltError

_SAID = {"title", "description", "default", "examples", "deprecated", "readOnly", "$schema", "$id", "$comment"}
_MAPS = ("properties", "$defs", "definitions")  # of names to schemas
_FOLLOWED = {
    "type", "required", "additionalProperties", "items", "prefixItems", "minItems", "maxItems", "enum", "const",
    "minLength", "maxLength", "anyOf", "oneOf", "$ref", "format", *_MAPS,
}  # fmt: skip
# Beside one of these, the others are passed over.
_ALONE = {"anyOf", "oneOf", "$ref"}
_FORMATS = ("date", "time", "date-time", "uuid")
_PARTS, _PROPERTIES, _BOUND, _DEPTH = 2000, 100, 2000, 40


def check(schema: Mapping[str, Any]) -> None:
    """Raises:
    SmeltError: it is too large, refers to anything outside itself, or says what an answer cannot be held to.
    """
    waiting: list[tuple[Any, int]] = [(schema, 0)]
    seen = 0
    while waiting:
        part, depth = waiting.pop()
        seen += 1
        if seen > _PARTS or depth > _DEPTH:
            raise _refusal(f"has more than {_PARTS} parts, or more than {_DEPTH} levels")
        if isinstance(part, bool):
            continue
        if not isinstance(part, Mapping):
            raise _refusal(f"has {part!r} where a schema should be")
        waiting += [(inner, depth + 1) for inner in _parts(part)]


def _parts(part: Mapping[str, Any]) -> list[Any]:
    """Checks one schema; gives those inside it."""
    said = part.keys() - _SAID
    if unknown := sorted(said - _FOLLOWED):
        raise _refusal(f"uses {', '.join(map(repr, unknown))}, to which an answer cannot be held here")
    if alone := sorted(said & _ALONE):
        if said - {alone[0]} - {"$defs", "definitions"}:
            raise _refusal(f"has more beside {alone[0]!r}, to which an answer cannot be held here")
        reference = part.get("$ref", "#/")
        if not isinstance(reference, str) or not reference.startswith("#/"):
            raise _refusal("refers to something outside itself, which is not fetched")
    if part.get("format", "date") not in _FORMATS:
        raise _refusal(f"has a format other than {', '.join(_FORMATS)}")
    for name in ("minItems", "maxItems", "minLength", "maxLength"):
        bound = part.get(name, 0)
        if not isinstance(bound, int) or not 0 <= bound <= _BOUND:
            raise _refusal(f"has {name} other than a whole number up to {_BOUND:,}")
    inner: list[Any] = []
    for name in _MAPS:
        named = part.get(name, {})
        if not isinstance(named, Mapping) or len(named) > _PROPERTIES:
            raise _refusal(f"has {name!r} that are no object, or more than {_PROPERTIES}")
        inner += named.values()
    for name in ("anyOf", "oneOf", "prefixItems"):
        schemas = part.get(name, [])
        if not isinstance(schemas, list):
            raise _refusal(f"has {name!r} that are no list")
        inner += schemas
    inner += [part[name] for name in ("items", "additionalProperties") if name in part]
    for name in ("enum", "required"):
        values = part.get(name, [])
        if not isinstance(values, list) or len(values) > _PARTS:
            raise _refusal(f"has {name!r} that is no list, or too long")
    if not set(part.get("required", ())) <= part.get("properties", {}).keys():
        raise _refusal("requires what is not among its properties")
    return inner


def _refusal(what: str) -> SmeltError:
    return SmeltError(f"the JSON schema {what}")
