"""Follows the `$ref` of a JSON Schema within the schema itself. Other references are not supported."""

from __future__ import annotations

from typing import Any


def resolved(schema: Any, root: Any) -> Any:
    """Return the subschema that `schema` stands for: what its `$ref` leads to, or itself."""
    for _ in range(8):
        if not (isinstance(schema, dict) and isinstance(schema.get("$ref"), str)):
            return schema
        schema = at_reference(root, schema["$ref"])
    return schema


def at_reference(root: Any, reference: str) -> Any:
    """Return what a reference within the schema leads to; None if there is nothing."""
    place = root
    for step in reference.removeprefix("#").removeprefix("/").split("/"):
        if not step:
            continue
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(place, dict):
            place = place.get(step)
        elif isinstance(place, list) and step.isdigit() and int(step) < len(place):
            place = place[int(step)]
        else:
            return None
    return place
