"""`${NAME}` and `${NAME:-default}` in the texts of a config file; `$$` is a dollar sign."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gateway.config.fault import KeyPath, ValueProblem

_MARK = re.compile(
    r"\$(?:(?P<dollar>\$)|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|(?P<bad>\{))"
)
_ALMOST = re.compile(
    r"\$[A-Z_][A-Z0-9_]*|\$\([A-Za-z_][A-Za-z0-9_]*\)|%[A-Z_][A-Z0-9_]+%|\{{1,2} ?[A-Z_][A-Z0-9_]+ ?\}{1,2}"
)
"""A whole text that would stand for a variable in a shell, on Windows, or in a template."""
_MEANT = "a variable of the environment is written ${NAME}; write $$ for a dollar sign that is none"
_IN_URL = re.compile(r"https?://\$[A-Za-z_][A-Za-z0-9_]*(?:[:/.]|$)")


def interpolated(
    data: dict[str, Any], environ: Mapping[str, str], complaints: list[ValueProblem]
) -> dict[str, Any]:
    """Fill in the environment, in every text at any depth; what is missing is added to `complaints`."""
    return {key: _filled(value, (key,), environ, complaints) for key, value in data.items()}


def _filled(value: Any, path: KeyPath, environ: Mapping[str, str], complaints: list[ValueProblem]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, (*path, key), environ, complaints) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, (*path, index), environ, complaints) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    if _ALMOST.fullmatch(value.strip()) or _IN_URL.match(value):
        complaints.append(ValueProblem(path, _MEANT))
        return value
    try:
        return _MARK.sub(lambda match: _replacement(match, environ), value)
    except LookupError as error:
        complaints.append(ValueProblem(path, str(error.args[0])))
        return value


def _replacement(match: re.Match[str], environ: Mapping[str, str]) -> str:
    """Give what stands for one mark; as in a shell, `:-default` also replaces an empty variable."""
    if match["dollar"]:
        return "$"
    if match["bad"]:
        raise LookupError(
            '"${" begins no ${NAME} or ${NAME:-default}; write $${ for the characters themselves'
        )
    name, default = match["name"], match["default"]
    found = environ.get(name)
    if default is not None:
        return found or default
    if found is None:
        raise LookupError(
            f"the environment variable {name} is not set; set it, or give a default: ${{{name}:-...}}"
        )
    return found
