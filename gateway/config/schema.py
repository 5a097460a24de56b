"""JSON Schema of config.toml, for editors and for the reference table."""

from __future__ import annotations

from typing import Any

from gateway.config.tree import Config

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """Describe config.toml as JSON Schema 2020-12: titles, descriptions, ranges and defaults of every key.

    TOML has no null: a key that may be unset is only not required.
    """
    described: dict[str, Any] = _without_null(Config.model_json_schema())
    described["$schema"] = _DIALECT
    described["title"] = "ChatGLM gateway: config.toml"
    described["required"] = ["backends"]
    return described


def _without_null(node: Any) -> Any:
    """Remove "or null", null defaults, and the defaults of whole tables: their keys have their own."""
    if isinstance(node, list):
        return [_without_null(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {key: _without_null(value) for key, value in node.items() if not _is_idle(key, value)}
    choices = [choice for choice in kept.pop("anyOf", []) if choice != {"type": "null"}]
    if len(choices) == 1:
        return {**choices[0], **kept}
    return {**kept, "anyOf": choices} if choices else kept


def _is_idle(key: str, value: object) -> bool:
    return key == "default" and (value is None or isinstance(value, dict))
