"""The effective configuration as TOML: every key with its value, defaults and the environment filled in.

The text is a config file itself: it could be saved and used, once the secrets are put back for `***`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from typing import Any

from pydantic import SecretStr

from gateway.config.backend import DIALECT_KEYS, BackendSettings
from gateway.config.key import KeySettings
from gateway.config.section import Section
from gateway.config.tree import Config

_MASK = "***"


def effective(config: Config) -> str:
    """Write a Config as TOML; secrets as `***`, or as the file they came from; unset keys as comments."""
    lines = ["# Every effective value, defaults included. Keys that are unset stand in comments."]
    for name in ("server", "admin", "log", "queue", "timeouts", "retries", "health", "discovery"):
        lines += ["", f"[{name}]", *_lines(_values(getattr(config, name), config))]
    for name, items in (
        ("models", config.resolved_models),
        ("backends", config.backends),
        ("keys", config.keys),
    ):
        for item in items:
            lines += ["", f"[[{name}]]", *_lines(_values(item, config))]
    return "\n".join([*lines, *_timeouts(config)]) + "\n"


def _timeouts(config: Config) -> Iterator[str]:
    """The time-outs that result from those of sections, models and backends, as comments."""
    yield from ("", "# Time-outs in force, in seconds:")
    for model in config.resolved_models:
        for backend in config.backends_of(model):
            values = config.timeouts_for(model, backend).model_dump()
            limits = ", ".join(f"{name} {seconds:g}" for name, seconds in values.items())
            yield f"#   {model.name} on {backend.name}: {limits}"


def _values(section: Section, config: Config) -> dict[str, Any]:
    values = {name: getattr(section, name) for name in type(section).model_fields}
    if section is config.server:
        values["auth"] = "keys" if config.auth_required else "none"
    if isinstance(section, BackendSettings):
        values = _of_dialect(values, section.dialect)
        del values["max_discovered" if section.discover is None else "addresses"]
        _prefer_file(values, "api_key", "api_key_file")
    if isinstance(section, KeySettings):
        _prefer_file(values, "key", "key_file")
    return values


def _of_dialect(values: dict[str, Any], dialect: str) -> dict[str, Any]:
    """Leave out what other dialects know; written down, it would be an error."""
    return {key: value for key, value in values.items() if dialect in DIALECT_KEYS.get(key, (dialect,))}


def _prefer_file(values: dict[str, Any], key: str, file_key: str) -> None:
    """Name the file a secret was read from, instead of the secret: a config may hold only one of them."""
    if values[file_key] is not None:
        del values[key]


def _lines(values: dict[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        text = _toml(value)
        yield f"# {key} is unset" if text is None else f"{key} = {text}"


def _toml(value: object) -> str | None:
    """Write one value; None for what is unset, tables without a set key included."""
    if value is None:
        return None
    if isinstance(value, SecretStr):
        return _text(_MASK)
    if isinstance(value, Section):
        return _inline_table(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(str(_toml(item)) for item in value) + "]"
    if isinstance(value, date):
        return value.isoformat()
    return _text(value) if isinstance(value, str) else json.dumps(value)


def _inline_table(section: Section) -> str | None:
    given = {name: _toml(getattr(section, name)) for name in type(section).model_fields}
    pairs = ", ".join(f"{name} = {text}" for name, text in given.items() if text is not None)
    return f"{{ {pairs} }}" if pairs else None


def _text(value: str) -> str:
    """Write a text so that both TOML and the interpolation of `${...}` read it back as it is."""
    return json.dumps(value.replace("$", "$$"), ensure_ascii=False).replace("\x7f", "\\u007f")
