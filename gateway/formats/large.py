"""JSON of megabytes, read in short steps: no single one holds the interpreter's lock for long.

The thread that reads a large body shares the lock with the event loop, and a parser does not let go of it
before it has seen the whole body: a text of 30 MB takes it 100 ms.

Theory of operation. The body is walked through piece by piece. Each piece ends where no escape and no
character is cut in two, so that the texts in it can be read by themselves. A long text is taken out, read in
pieces, and a short text that cannot stand there by itself takes its place. What is left is small, is read
and checked by `jsontext`, and gets its long texts back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from gateway.errors import BadRequest
from gateway.formats import jsontext
from gateway.formats.limits import MAX_VALUES

LARGE = 262_144
"""Bytes of a body from which on it is read so."""
LONG = 256
"""Bytes of a text from which on it is taken out."""
PIECE = 65_536
_MOST_TEXTS = 2 * MAX_VALUES
"""Texts in a body: each value may have a key."""
_MARK = "\x00"
"""How a stand-in begins. A text of the client's that begins so is taken out too, whatever its length."""
_MARK_ESCAPED = b'"\\u0000'
_LOW, _HIGH = re.compile(rb"\\u[dD][c-fC-F]"), re.compile(rb"\\u[dD][89abAB]")
_BLANKS = re.compile(rb"[ \t\r\n]{16,}")
_LONG_RUN = re.compile(rb"\d{4096}")
_PAIR = 16
"""More bytes than a pair of escaped surrogates has."""


class LargeBody(NamedTuple):
    """A body that was read: its value, its bytes without long texts, and whether both say the same."""

    value: Any
    outline: bytes
    exact: bool


def read(raw: bytes) -> LargeBody:
    """Parse a client's large body. Raises `BadRequest` as `jsontext.read` does."""
    reader = _Reader(raw)
    outline = reader.outline()
    value = jsontext.read(outline)
    if not reader.texts:
        return LargeBody(value, outline, not jsontext.has_lone_surrogates(outline))
    exact = not (reader.reworded or jsontext.has_lone_surrogates(outline))
    return LargeBody(_filled(value, reader.texts), outline, exact)


def _filled(value: Any, texts: list[str]) -> Any:
    """The value with its long texts in their places. No deeper than a body may be."""
    if isinstance(value, str):
        return texts[int(value[1:])] if value.startswith(_MARK) else value
    if isinstance(value, list):
        return [_filled(one, texts) for one in value]
    if isinstance(value, dict):
        filled: dict[str, Any] = {_filled(key, texts): _filled(one, texts) for key, one in value.items()}
        if len(filled) < len(value):
            raise BadRequest("A key stands twice in one object. Send it once.")
        return filled
    return value


def pieces(raw: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Where each piece begins and ends, and the piece with its escaped quotes and backslashes masked."""
    at = 0
    while at < len(raw):
        masked = _masked(raw[at : at + PIECE])
        end = at + len(masked)
        if end < len(raw):
            end = _cut(raw, at, masked)
        yield at, end, masked[: end - at]
        at = end


def _masked(piece: bytes) -> bytes:
    """As long as the piece; each backslash that is left begins an escape, each quote a text or its end."""
    return piece.replace(rb"\\", b"\\.").replace(rb"\"", b"\\.")


def _cut(raw: bytes, at: int, masked: bytes) -> int:
    """Where a piece may end, near the end of what was looked at."""
    escape = masked.rfind(b"\\", max(1, len(masked) - _PAIR))
    if escape >= 0:
        before = escape - 6
        if _LOW.match(raw, at + escape) and masked[before : before + 1] == b"\\":
            escape = before if _HIGH.match(raw, at + before) else escape
        return at + escape
    end = at + len(masked)
    for back in range(4):
        if raw[end - back] & 0xC0 != 0x80:
            return end - back
    return end


def _joined(parts: list[str]) -> str:
    """The parts as one text. CPython lets it grow in its place; `join` would copy megabytes in one step."""
    text = ""
    for part in parts:
        text += part
    return text


class _Reader:
    """One walk through a body."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._out: list[bytes] = []
        self._open = -1  # where the text that is open has begun; -1 outside of texts
        self._parts: list[str] = []  # of the open text: what earlier pieces held of it
        self._from = 0  # from where on the open text has still to be read
        self._seen = 0
        self.texts: list[str] = []
        self.reworded = False

    def outline(self) -> bytes:
        """The body with its long texts taken out."""
        for at, end, masked in pieces(self._raw):
            self._take(at, end, masked)
        if self._open >= 0:  # the parser says what is wrong with it
            self._out.append(self._raw[self._open : self._open + LONG])
        return b"".join(self._out)

    def _take(self, at: int, end: int, masked: bytes) -> None:
        place = 0
        while (quote := masked.find(b'"', place)) >= 0:
            if self._open < 0:
                self._outside(masked[place:quote])
                self._open = self._from = at + quote
                self._from += 1
            else:
                self._close(at + quote)
            place = quote + 1
        if self._open < 0:
            self._outside(masked[place:])
        elif end - self._open > LONG:
            self._parts.append(self._text(self._from, end))
            self._from = end

    def _outside(self, structure: bytes) -> None:
        if len(structure) <= LONG:
            self._out.append(structure)
            return
        if _LONG_RUN.search(structure):
            raise BadRequest("Numbers must be finite and of ordinary size.")
        self._out.append(_BLANKS.sub(b" ", structure))  # no blank says anything here

    def _close(self, quote: int) -> None:
        self._seen += 1
        if self._seen > _MOST_TEXTS:
            raise BadRequest(f"The body has more than {MAX_VALUES} values. Send fewer, larger ones.")
        begun, self._open = self._open, -1
        if not self._parts and quote - begun <= LONG and not self._raw.startswith(_MARK_ESCAPED, begun):
            self._out.append(self._raw[begun : quote + 1])
            return
        text = _joined([*self._parts, self._text(self._from, quote)])
        self._parts = []
        self._out.append(b'"\\u0000%d"' % len(self.texts))
        self.texts.append(text)

    def _text(self, begin: int, end: int) -> str:
        """A part of a text. Raises `BadRequest` where it is none."""
        part = self._raw[begin:end]
        try:
            text: str = json.loads(b'"%b"' % part)
        except UnicodeDecodeError as error:
            where = begin + max(0, error.start - 1)
            raise BadRequest(f"The body is not UTF-8 (byte {where}). Send JSON in UTF-8.") from None
        except json.JSONDecodeError as error:
            where = begin + max(0, len(part.decode()[: error.pos - 1].encode()))
            raise BadRequest(f"The body is not valid JSON: {error.msg} (byte {where}).") from None
        if b"\\" not in part or not jsontext.has_lone_surrogates(part):
            return text
        good = jsontext.well_formed(text)
        self.reworded = self.reworded or good != text
        return good
