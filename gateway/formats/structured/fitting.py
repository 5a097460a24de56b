"""Changes a value so that it fits a schema, where there is no doubt what the model meant.

    {"Name": "x"}            a key in other letters, or with other separators, is the missing property
    {"age": "42"}            a text of a number or of true and false, where a number or a boolean is wanted
    {"zip": 12345}           a number, where a text is wanted
    {"tags": "a"}            a single value, where a list is wanted
    {"note": null}           null for an optional property: the property is left out
    {"result": {...}}        an object around the value; a list around it, or a list of one
    "Yes" for enum ["yes"]   a text that differs in case or blanks only

Nothing is invented: a missing value stays missing, and the caller checks the result against the schema.
"""

from __future__ import annotations

import re
from typing import Any

from gateway.formats.structured.reference import resolved

MAX_DEPTH = 16
"""Deepest nesting of values that is changed."""

_WRAPPERS = frozenset(
    {"result", "answer", "output", "response", "data", "json", "value", "object", "arguments", "properties"}
    | {"结果", "答案", "输出"}
)
_SEPARATORS = re.compile(r"[\s_\-.]+")
_INTEGER = re.compile(r"[+-]?\d{1,15}")
_NUMBER = re.compile(r"[+-]?(?:\d{1,15}(?:\.\d{1,15})?|\.\d{1,15})(?:[eE][+-]?\d{1,2})?")
_BOOLEANS = {"true": True, "false": False, "yes": True, "no": False, "是": True, "否": False}


def fitted(value: Any, schema: Any) -> list[Any]:
    """Return changed forms of a value that may fit the schema, the least changed first."""
    forms = [_fitted(value, schema, schema, 0)]
    inner = _unwrapped(value, schema)
    if inner is not None:
        forms += [inner, _fitted(inner, schema, schema, 0)]
    return forms


def _unwrapped(value: Any, schema: Any) -> Any:
    """Return what a wrapper with one member holds; None if the value is not a wrapper."""
    if isinstance(value, list) and len(value) == 1 and "array" not in _types(resolved(schema, schema)):
        return value[0]
    if isinstance(value, dict) and len(value) == 1:
        ((name, inner),) = value.items()
        target = resolved(schema, schema)
        known = target.get("properties", {}) if isinstance(target, dict) else {}
        titled = isinstance(target, dict) and target.get("title") == name
        if name not in known and (titled or name.lower() in _WRAPPERS):
            return inner
    return None


def _fitted(value: Any, schema: Any, root: Any, depth: int) -> Any:
    schema = resolved(schema, root)
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return value
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        return _fitted_to_one(value, options, root, depth)
    types = _types(schema)
    if isinstance(value, dict) and isinstance(schema.get("properties"), dict):
        return _fitted_object(value, schema, root, depth)
    if isinstance(value, list) and "items" in schema:
        return [_fitted(one, schema["items"], root, depth + 1) for one in value]
    if "array" in types and not isinstance(value, list) and value is not None and "items" in schema:
        return [_fitted(value, schema["items"], root, depth + 1)]
    return _fitted_plain(value, schema, types)


def _fitted_to_one(value: Any, options: list[Any], root: Any, depth: int) -> Any:
    """Fit a value to the one option of an anyOf that is not null; else leave it."""
    if value is None:
        return value
    wanted = [one for one in options if _types(resolved(one, root)) != {"null"}]
    return _fitted(value, wanted[0], root, depth + 1) if len(wanted) == 1 else value


def _fitted_object(value: dict[str, Any], schema: dict[str, Any], root: Any, depth: int) -> dict[str, Any]:
    properties: dict[str, Any] = schema["properties"]
    required = schema.get("required", ())
    out: dict[str, Any] = {}
    for name, key in _named(value, properties).items():
        member, wanted = value[key], properties.get(name)
        if wanted is None:
            out[name] = member
            continue
        member = _fitted(member, wanted, root, depth + 1)
        if member is None and name not in required and not _takes_null(resolved(wanted, root)):
            continue
        out[name] = member
    return out


def _takes_null(schema: Any) -> bool:
    """Return True if null may fit a schema, as far as its type and its enum tell."""
    types = _types(schema)
    choices = schema.get("enum") if isinstance(schema, dict) else None
    return "null" in types if types else choices is None or None in choices


def _named(value: dict[str, Any], properties: dict[str, Any]) -> dict[str, str]:
    """Return the key of the value for each name: a property's own name for a key in other letters."""
    unknown = {key for key in value if key not in properties}
    missing: dict[str, list[str]] = {}
    for name in properties:
        if name not in value:
            missing.setdefault(_simple(name), []).append(name)
    names: dict[str, str] = {}
    for key in value:
        meant = missing.get(_simple(key), []) if key in unknown else []
        names.setdefault(meant[0] if len(meant) == 1 else key, key)
    return names


def _simple(name: str) -> str:
    return _SEPARATORS.sub("", name).lower()


def _fitted_plain(value: Any, schema: dict[str, Any], types: set[str]) -> Any:
    choices = schema.get("enum")
    if isinstance(value, str) and choices and value not in choices:
        same = [one for one in choices if isinstance(one, str) and _simple(one) == _simple(value)]
        value = same[0] if len(same) == 1 else value
    if isinstance(value, str) and types and "string" not in types:
        return _of_text(value.strip(), types)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and types == {"string"}:
        return str(value)
    if isinstance(value, float) and types == {"integer"} and value.is_integer():
        return int(value)
    return value


def _of_text(text: str, types: set[str]) -> Any:
    if "integer" in types and _INTEGER.fullmatch(text):
        return int(text)
    if "number" in types and _NUMBER.fullmatch(text):
        return float(text) if not _INTEGER.fullmatch(text) else int(text)
    if "boolean" in types and text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    if "null" in types and text.lower() in ("null", "none", ""):
        return None
    return text


def _types(schema: Any) -> set[str]:
    """Return the types that a schema names; empty if it names none."""
    if not isinstance(schema, dict):
        return set()
    types = schema.get("type", ())
    return {types} if isinstance(types, str) else set(types)
