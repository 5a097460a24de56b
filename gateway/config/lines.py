"""Where each key of a TOML text stands; the standard library's parser does not tell.

The text is known to be valid TOML when it comes here, so the scanner only follows its structure:
table headers, arrays of tables, dotted keys, arrays and inline tables. It skips what it need not know.
"""

from __future__ import annotations

import re
from bisect import bisect_right

from gateway.config.fault import KeyPath

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_PLAIN = re.compile(r"[^,\]}#\n]+")
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))")
_ESCAPED = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r"}


def locate(text: str) -> dict[KeyPath, int]:
    """Map the path of every key, table and array item of a valid TOML text to its line, from 1."""
    return _Scanner(text).scan()


class _Scanner:
    """One pass over one text; used once."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._breaks = [match.start() for match in re.finditer("\n", text)]
        self._lines: dict[KeyPath, int] = {}
        self._counts: dict[KeyPath, int] = {}  # arrays of tables, and how many items each has so far

    def scan(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while self._next():
            if self._peek("["):
                table = self._header()
            else:
                self._pair(table)
        return self._lines

    def _next(self) -> bool:
        """Skip blanks and comments; whether anything is left."""
        match = _BLANK.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._at < len(self._text)

    def _peek(self, wanted: str) -> bool:
        return self._text.startswith(wanted, self._at)

    def _taken(self, wanted: str) -> bool:
        """Step over `wanted` where it comes next; whether it did."""
        self._next()
        found = self._peek(wanted)
        self._at += len(wanted) if found else 0
        return found

    def _note(self, path: KeyPath, at: int) -> None:
        self._lines.setdefault(path, bisect_right(self._breaks, at - 1) + 1)

    def _header(self) -> KeyPath:
        start = self._at
        brackets = "[[" if self._peek("[[") else "["
        self._at += len(brackets)
        parts = self._key()
        self._taken("]" * len(brackets))
        path = self._entered((), parts[:-1], start)
        path = (*path, parts[-1])
        self._note(path, start)
        if brackets == "[[":
            self._counts[path] = self._counts.get(path, 0) + 1
        path = self._latest(path)
        self._note(path, start)
        return path

    def _entered(self, table: KeyPath, parts: list[str], at: int) -> KeyPath:
        """Go into the tables that the first parts of a dotted key name."""
        for part in parts:
            table = (*table, part)
            self._note(table, at)
            table = self._latest(table)
        return table

    def _latest(self, path: KeyPath) -> KeyPath:
        """Name the last item of an array of tables, where `path` is one: headers below it mean that item."""
        return (*path, self._counts[path] - 1) if path in self._counts else path

    def _pair(self, table: KeyPath) -> None:
        start = self._at
        parts = self._key()
        path = (*self._entered(table, parts[:-1], start), parts[-1])
        self._note(path, start)
        self._taken("=")
        self._value(path)

    def _key(self) -> list[str]:
        parts = [self._key_part()]
        while self._taken("."):
            parts.append(self._key_part())
        return parts

    def _key_part(self) -> str:
        self._next()
        match = _STRING.match(self._text, self._at) or _BARE.match(self._text, self._at)
        if match is None:
            self._at += 1  # cannot happen in valid TOML; moving on keeps the scan finite
            return ""
        self._at = match.end()
        return _unquoted(match.group())

    def _value(self, path: KeyPath) -> None:
        self._next()
        if self._taken("["):
            self._array(path)
        elif self._taken("{"):
            self._inline_table(path)
        else:
            match = _STRING.match(self._text, self._at) or _PLAIN.match(self._text, self._at)
            self._at = match.end() if match else self._at + 1

    def _array(self, path: KeyPath) -> None:
        index = 0
        while self._next() and not self._taken("]"):
            item = (*path, index)
            self._note(item, self._at)
            self._value(item)
            self._taken(",")
            index += 1

    def _inline_table(self, path: KeyPath) -> None:
        while self._next() and not self._taken("}"):
            self._pair(path)
            self._taken(",")


def _unquoted(key: str) -> str:
    if key.startswith("'"):
        return key[1:-1]
    return _ESCAPE.sub(_character, key[1:-1]) if key.startswith('"') else key


def _character(match: re.Match[str]) -> str:
    short, long, single = match.groups()
    return _ESCAPED.get(single, single) if single else chr(int(short or long, 16))
