"""The way from a file to a Config: read, fill in the environment, read secrets, check all, report all."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from gateway.config.fault import ConfigError, ConfigFault, ValueProblem, faults_in
from gateway.config.files import with_files
from gateway.config.interpolation import interpolated
from gateway.config.lines import locate
from gateway.config.partial import drafted
from gateway.config.rules import complaints_about
from gateway.config.syntax import mistake
from gateway.config.tree import Config

Given: TypeAlias = Mapping[str, Any]
"""What options say, which wins over the file: keys by their table, and whole lists of tables."""

_NOTHING: Given = {}


def load(path: Path | str, environ: Mapping[str, str], given: Given = _NOTHING) -> Config:
    """Read and check a config file; a ConfigError carries everything that is wrong with it.

    `environ` fills in `${NAME}`; files that the config names are relative to its folder; `given` wins over
    what stands in the file.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        reason = (error.strerror or "no reason given").lower()
        message = (
            f"cannot be read: {reason}; name another file with --config, write one with `gateway init`,"
            " or try `gateway demo`"
        )
        raise ConfigError([ConfigFault(str(path), 0, "", message)]) from error
    except UnicodeDecodeError as error:
        message = f"is not UTF-8 (byte {error.start}); save it as UTF-8"
        raise ConfigError([ConfigFault(str(path), 0, "", message)]) from error
    return parse(text, file=str(path), folder=path.parent, environ=environ, given=given)


def parse(
    text: str, *, file: str, folder: Path, environ: Mapping[str, str], given: Given = _NOTHING
) -> Config:
    """Check a config text; `file` is its name in messages. Raises ConfigError as `load` does."""
    complaints: list[ValueProblem] = []
    data = _with(interpolated(_toml(text, file), environ, complaints), given)
    draft = drafted(with_files(data, folder, complaints), complaints)
    complaints.extend(complaints_about(draft))
    if complaints:
        raise ConfigError(faults_in(file, locate(text), complaints))
    return draft.config


def _with(data: dict[str, Any], given: Given) -> dict[str, Any]:
    """Put what is given over what was read; a section that is no table is left for its own complaint."""
    for name, value in given.items():
        if isinstance(value, Mapping):
            table = data.setdefault(name, {})
            if isinstance(table, dict):
                table.update(value)
        else:
            data[name] = value
    return data


def _toml(text: str, file: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = mistake(text, error)
        fault = ConfigFault(file, found.line, "", f"no valid TOML: {found.message}", found.column)
        raise ConfigError([fault]) from error
    except RecursionError as error:
        raise ConfigError([ConfigFault(file, 1, "", "no valid TOML: nested too deeply")]) from error
