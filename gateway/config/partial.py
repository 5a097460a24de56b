"""The readable rest of a config file with faults, so that one run can report all of them.

Misspelled keys count under the name they were meant to have, wrong values are left out, and what is
missing is filled with a placeholder. The rules of rules.py then run over a whole tree, and skip what
depends on a broken key instead of complaining twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gateway.config.fault import KeyPath, ValueProblem
from gateway.config.messages import complaint, meant_here, section_at, section_in, unknown_key
from gateway.config.section import Section
from gateway.config.tree import Config

_REQUIRED = {
    "models": {"name": "placeholder-{index}"},
    "backends": {"name": "placeholder-{index}", "url": "http://placeholder", "dialect": "openai"},
    "keys": {"name": "placeholder-{index}"},
}

_SILENT = {"default_factory_not_called"}
"""Findings of pydantic that only follow from another one."""


@dataclass(frozen=True)
class PartialConfig:
    """A readable tree and the keys that were broken in its file."""

    config: Config
    broken: frozenset[KeyPath] = frozenset()

    def is_broken(self, *names: str) -> bool:
        """Whether any table had a broken key of one of these names."""
        return any(name in path for path in self.broken for name in names)

    def is_broken_at(self, *path: str | int) -> bool:
        """Whether the key at exactly this path, or anything below it, was broken."""
        return any(broken[: len(path)] == path for broken in self.broken)


def drafted(data: dict[str, Any], complaints: list[ValueProblem]) -> PartialConfig:
    """Read `data` as far as it can be read; what is wrong is added to `complaints`."""
    data, broken = deepcopy(data), {complaint.path for complaint in complaints}
    for error in _errors(data, only="extra_forbidden"):
        complaints.append(unknown_key(error["loc"], Config))
        broken.add(_respelled(data, error["loc"]))
    errors = _errors(data)
    complaints.extend(complaint(error, Config) for error in errors if error["type"] not in _SILENT)
    broken.update(_left_out(data, error["loc"]) for error in errors)
    _fill(data)
    return PartialConfig(Config.model_validate(data), frozenset(broken))


def _errors(data: dict[str, Any], only: str | None = None) -> list[ErrorDetails]:
    try:
        Config.model_validate(data)
    except ValidationError as error:
        return [found for found in error.errors(include_url=False) if only in {None, found["type"]}]
    return []


def _respelled(data: dict[str, Any], path: KeyPath) -> KeyPath:
    """Move an unknown key's value to the name it is near to; give the path it stands for.

    Tables are dropped instead: what is wrong inside them would be reported under a name the file has not.
    """
    table, name = _owner(data, path), str(path[-1])
    value = table.pop(name)
    near = meant_here(path, Config)
    if near is None:
        return path
    field = section_at(path[:-1], Config).model_fields[near]
    if not isinstance(value, dict | list) and section_in(field.annotation) is None:
        table.setdefault(near, value)
    return (*path[:-1], near)


def _owner(data: dict[str, Any], path: KeyPath) -> dict[str, Any]:
    found: Any = data
    for part in path[:-1]:
        found = found[part]
    assert isinstance(found, dict)  # noqa: S101 - only tables have unknown keys
    return found


def _left_out(data: dict[str, Any], path: KeyPath) -> KeyPath:
    """Remove the key that a finding is about, or whose list or table it is in."""
    found: Any = data
    table, name = data, path[0]
    for part in path:
        if isinstance(found, dict):
            table, name = found, part
        found = _step(found, part)
    table.pop(str(name), None)
    return path


def _step(container: Any, part: str | int) -> Any:
    if isinstance(container, dict):
        return container.get(part)
    return container[part] if isinstance(container, list) and isinstance(part, int) else None


def _fill(data: dict[str, Any]) -> None:
    for section, placeholders in _REQUIRED.items():
        for index, table in enumerate(_list(data.get(section))):
            for key, value in placeholders.items():
                table.setdefault(key, value.format(index=index))
            _drop_incomplete(table, section_at((section,), Config))


def _drop_incomplete(table: dict[str, Any], section: type[Section]) -> None:
    """Drop the tables in a table that lack a needed key: no placeholder could stand for what they say."""
    for key, field in section.model_fields.items():
        inner = section_in(field.annotation)
        if inner is not None and isinstance(found := table.get(key), dict):
            needed = [name for name, one in inner.model_fields.items() if one.is_required()]
            if not found.keys() >= set(needed):
                del table[key]


def _list(value: object) -> Iterable[dict[str, Any]]:
    return value if isinstance(value, list) else ()
