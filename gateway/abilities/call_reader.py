"""Separates calls from text while an answer arrives. Shared by the abilities that read calls from text."""

from __future__ import annotations

import re
from collections.abc import Collection

from gateway.formats.structured.calls import EVERY_FORM, CallReading, Form, read_calls

MAX_HELD = 65_536
"""Longest text, in characters, that is held back as a possible call."""

_BRACKETS = "{["
_FENCE = "```"
_FENCED = re.compile(r"```[\w+-]*\s*")
_ANYWHERE: dict[Form, tuple[str, ...]] = {
    "json": (*_BRACKETS, _FENCE),
    "tags": ("<tool_call>",),
    "glm-xml": ("<tool_call>",),
    "python": (_FENCE,),
}
_AT_LINE_START: dict[Form, tuple[str, ...]] = {
    "react": ("Action:", "Action：", "动作:", "动作：", "行动:", "行动：", "操作:", "操作："),
}


class CallReader:
    """Holds back the part of one choice's text that may be calls, and passes the text before it on.

    `text` is the text that has been passed on. `fed` is all text.

    Args:
        offered: the names of the functions that may be called.
        forms: the forms of calls to look for.
    """

    def __init__(self, offered: Collection[str], forms: Collection[Form] = EVERY_FORM) -> None:
        self._offered = tuple(offered)
        self._forms = forms
        self._names = self._offered if {"glm4", "python"} & set(forms) else ()
        self._anywhere = tuple({mark for form in forms for mark in _ANYWHERE.get(form, ())})
        words = (mark for form in forms for mark in _AT_LINE_START.get(form, ()))
        self._line_start = (*words, *self._names)
        self._held = ""
        self._holds = False
        self._brackets: _BracketCounter | None = None
        self._line_began = True
        self.text = ""

    @property
    def fed(self) -> str:
        """All text so far."""
        return self.text + self._held

    def feed(self, piece: str) -> str:
        """Take a piece of text; return the text that cannot belong to a call."""
        if self._holds:
            return self._held_more(piece)
        self._held += piece
        return self._searched()

    def hold(self, piece: str) -> None:
        """Take a piece of text and hold it back, whatever it is."""
        self._held += piece

    def end(self) -> CallReading:
        """Return what the held text says, at the end of the answer."""
        return read_calls(self._held, self._offered, self._forms)

    def _searched(self) -> str:
        """Pass the held text on up to the first place where a call may begin."""
        place = self._first_mark(self._held)
        passed = self._pass(self._held[:place], self._held[place:])
        if any(self._held.startswith(mark) for mark in (*self._anywhere, *self._line_start)):
            self._holds, self._brackets = True, None
            held, self._held = self._held, ""
            return passed + self._held_more(held)
        return passed

    def _pass(self, passed: str, held: str) -> str:
        self._held, self._holds = held, False
        self.text += passed
        if passed:
            self._line_began = not passed.rpartition("\n")[2].strip()
        return passed

    def _held_more(self, piece: str) -> str:
        before, self._held = len(self._held), self._held + piece
        if len(self._held) > MAX_HELD:
            return self._pass(self._held, "")
        if self._brackets is None:
            start = self._opening()
            if start == _NEVER:
                return self._released()
            if start is None:
                return ""
            self._brackets, before, piece = _BracketCounter(), start, self._held[start:]
        end = self._brackets.feed(piece)
        if end is None:
            return ""
        part = self._held[: before + end]
        reading = read_calls(part, self._offered, self._forms)
        if reading.calls or reading.fault:
            return ""  # the rest is held as well: further calls, or what a small model adds after one
        return self._released(before + end)

    def _released(self, end: int | None = None) -> str:
        """Pass on what turned out to be no call: up to `end`, else the mark alone; search the rest."""
        if end is None:
            end = len(
                next(mark for mark in (*self._anywhere, *self._line_start) if self._held.startswith(mark))
            )
        return self._pass(self._held[:end], self._held[end:]) + self._searched()

    def _opening(self) -> int | None:
        """Return where the bracket of a possible call in JSON stands in the held text.

        None if that cannot be told yet or the call is in another form; `_NEVER` if it is no call.
        """
        held = self._held
        if held[0] in _BRACKETS:
            return 0
        if held.startswith(_FENCE):
            fenced = _FENCED.match(held)
            start = fenced.end() if fenced else 0
            rest = held[start:]
            if not rest or self._begins_name(rest):
                return None
            return start if rest[0] in _BRACKETS else _NEVER
        if self._begins_name(held) and not any(held.startswith(mark) for mark in self._anywhere):
            return None if self._may_call(held) else _NEVER
        return None

    def _begins_name(self, text: str) -> bool:
        return any(_begins(text, name) for name in self._names)

    def _may_call(self, text: str) -> bool:
        """Return True if a text that begins with a function's name may go on as a call."""
        for name in self._names:
            if _begins(text, name):
                rest = text[len(name) :].lstrip(" \t\r")
                if not rest or rest[0] in "(\n":
                    return True
        return False

    def _first_mark(self, text: str) -> int:
        """Return the first place where a mark stands, or may stand once more text has come."""
        found = [place for mark in self._anywhere if (place := _place_of(text, mark)) is not None]
        for line in _LINE_START.finditer(text):
            rest = text[line.end() :]
            begun = self._line_began if line.start() == 0 and not line[0].startswith("\n") else True
            if begun and rest and any(_begins(rest, mark) for mark in self._line_start):
                found.append(line.end())
                break
        return min(found, default=len(text))


_NEVER = -1
_LINE_START = re.compile(r"(?:\A|\n)[ \t]*")


def _begins(text: str, mark: str) -> bool:
    """Return True if a text begins with a mark, or may once it is longer."""
    return text.startswith(mark) or mark.startswith(text)


def _place_of(text: str, mark: str) -> int | None:
    """Return where a mark stands in a text, or its beginning at the text's end; None if nowhere."""
    place = text.find(mark)
    if place >= 0:
        return place
    for length in range(min(len(mark) - 1, len(text)), 0, -1):
        if text.endswith(mark[:length]):
            return len(text) - length
    return None


class _BracketCounter:
    """Finds the bracket that closes the first one, in pieces of text."""

    def __init__(self, *, ended: bool = False) -> None:
        self._depth = 0
        self._ended = ended
        self._quoted = self._escaped = False

    def feed(self, piece: str) -> int | None:
        """Return the place in the piece behind the closing bracket; None if it has not come."""
        if self._ended:
            return None
        for place, char in enumerate(piece):
            if self._quoted:
                if self._escaped:
                    self._escaped = False
                elif char == "\\":
                    self._escaped = True
                elif char == '"':
                    self._quoted = False
            elif char == '"':
                self._quoted = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    self._ended = True
                    return place + 1
        return None
