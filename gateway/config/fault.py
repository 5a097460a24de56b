"""Faults of a config file: what is wrong where, and the error that carries all of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

KeyPath = tuple[str | int, ...]
"""Where a value stands: ("backends", 1, "url"). List positions count from 0."""

Lines = Mapping[KeyPath, int]
"""The line of every key and table in a file, counted from 1."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def spelled(path: KeyPath) -> str:
    """Spell a key path as people write it: `backends[1].url`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        name = part if _BARE_KEY.fullmatch(part) else f'"{part}"'
        text += f".{name}" if text else name
    return text


def line_of(path: KeyPath, lines: Lines) -> int:
    """Find the line of a key, or of the nearest table around it where the key itself is missing."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


@dataclass(frozen=True)
class ValueProblem:
    """One thing that is wrong, by key path; it becomes a Fault when file and line are known."""

    path: KeyPath
    message: str


@dataclass(frozen=True)
class ConfigFault:
    """One thing that is wrong: `config.toml:12: backends[1].dialct: unknown key; did you mean "dialect"?`.

    `line` and `column` count from 1; 0 is not known.
    """

    file: str
    line: int
    key: str
    message: str
    column: int = 0

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        place += f":{self.column}" if self.line and self.column else ""
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class ConfigError(Exception):
    """A config file cannot be used. `faults` holds all that is wrong with it, in file order; never empty."""

    def __init__(self, faults: Iterable[ConfigFault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


def faults_in(file: str, lines: Lines, complaints: Iterable[ValueProblem]) -> list[ConfigFault]:
    """Give complaints their file and line, in file order, one for each key."""
    first = {complaint.path: complaint for complaint in reversed(list(complaints))}
    faults = [
        ConfigFault(file, line_of(path, lines), spelled(path), complaint.message)
        for path, complaint in first.items()
    ]
    return sorted(faults, key=lambda fault: (fault.line, fault.key))
