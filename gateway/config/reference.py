"""The reference tables of docs/configuration.md, made from the tree; a guard test compares them.

`python -m gateway.config.reference docs/configuration.md` writes them anew.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from gateway.config.messages import choices_of, section_in
from gateway.config.schema import schema
from gateway.config.section import Section
from gateway.config.tree import Config
from gateway.config.value_types import kinds_of

BEGIN = "<!-- reference: begin; made by `python -m gateway.config.reference docs/configuration.md` -->"
END = "<!-- reference: end -->"

Tables = dict[str, dict[str, Any]]
"""The tables of the JSON Schema, by the names of their types."""

_LISTS = ("models", "backends", "keys")
_SLOTS = "1; 8 for `glm4` and `openai`"
_LIMITS = {"exclusiveMinimum": "above", "minimum": "at least", "maximum": "at most"}
_TYPES = {"string": "text", "boolean": "`true` or `false`", "integer": "a whole number", "number": "a number"}


def reference() -> str:
    """Give one Markdown table for each table of config.toml, in the order of the tree."""
    tables = schema()["$defs"]
    parts = [_table_of(name, field, tables) for name, field in Config.model_fields.items()]
    return "\n".join(parts)


def rewritten(page: str) -> str:
    """Give a page with the tables between its markers renewed. Raises ValueError without both markers."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page lacks the markers of the reference tables")
    return f"{head}{begin}\n\n{reference()}\n{end}{tail}"


def _table_of(name: str, field: FieldInfo, tables: Tables) -> str:
    section = section_in(field.annotation)
    assert section is not None  # noqa: S101 - every key of the root is a table or a list of tables
    heading = f"[[{name}]]" if name in _LISTS else f"[{name}]"
    rows = _rows(section, "", tables)
    doc = " ".join((section.__doc__ or "").split())
    head = f"### `{heading}`\n\n{doc}\n\n| key | value | default | meaning |\n|---|---|---|---|\n"
    return head + "".join(rows)


def _rows(section: type[Section], prefix: str, tables: Tables) -> list[str]:
    rows: list[str] = []
    for key, field in section.model_fields.items():
        rows.append(_row(prefix + key, key, field, tables[section.__name__]["properties"][key]))
        inner = section_in(field.annotation)
        if inner is not None:
            rows += _rows(inner, f"{prefix}{key}.", tables)
    return rows


def _row(shown_key: str, key: str, field: FieldInfo, described: dict[str, Any]) -> str:
    meaning = " ".join((field.description or "").split()).replace("|", "\\|")
    return f"| `{shown_key}` | {_value(field, described)} | {_default(key, field)} | {meaning} |\n"


def _value(field: FieldInfo, described: dict[str, Any]) -> str:
    if choices := choices_of(field.annotation):
        return ", ".join(f"`{choice}`" for choice in choices)
    if section_in(field.annotation):
        return "a table"
    kinds = kinds_of(field)
    words = kinds[0].wanted if kinds else _TYPES[described["type"]]
    limits = [f"{word} {_number(described[limit])}" for limit, word in _LIMITS.items() if limit in described]
    return ", ".join([words, *limits])


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def _default(key: str, field: FieldInfo) -> str:
    if key == "slots":
        return _SLOTS
    if field.is_required():
        return "**needed**"
    if field.default is None or isinstance(field.default, Section):
        return "unset"
    return f"`{json.dumps(field.default, ensure_ascii=False)}`"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(rewritten(page.read_text(encoding="utf-8")), encoding="utf-8")
