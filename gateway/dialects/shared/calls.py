"""One normaliser of tool calls, for whole answers and for pieces of every OpenAI-like server.

Clients put a call together from its pieces by one rule: id and name come with the first piece, the
arguments are added up by index. Servers send the index missing or 0 for every call, id and name in every
piece, a new id in each piece, no id at all, arguments as an object, arguments repeated whole or growing in
each piece. What `ToolCallAssembler` gives obeys the rule.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from gateway.errors import UpstreamGarbled
from gateway.formats import jsontext
from gateway.formats.events import ToolPiece

LONGEST_COMPARED = 1 << 20
"""Most characters of a call's arguments that are kept to find repetitions."""
MOST_CALLS = 1024
"""Most calls of one choice."""

_MARK = re.compile(r'\\.?|["{}\[\]]', re.DOTALL)
_EMPTY = "{}"
_HIGH = ("\ud800", "\udbff")


def join_halves(half: str, text: str) -> tuple[str, str]:
    """Put half a surrogate pair before the text that follows it.

    Returns the text and the half pair that it ends with, if it does.
    """
    if half:
        # Python keeps two halves apart until they go through UTF-16.
        text = (half + text).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    if text and _HIGH[0] <= text[-1] <= _HIGH[1]:
        return text[:-1], text[-1]
    return text, ""


class _AssembledCall:
    """One call as far as it has come.

    `index` is its place among the calls that have a name, -1 until it has one. `complete` tells that the
    object of its arguments has been closed; `opening` that it began with `{}`, which may stand for nothing
    yet.
    """

    __slots__ = (
        "_depth", "_escaped", "_inside", "_kept", "complete", "half", "held", "id", "index", "name",
        "opening", "size",
    )  # fmt: skip

    def __init__(self) -> None:
        self.index = -1
        self.id = self.name = self.half = self.held = ""
        self.complete = self.opening = False
        self.size = 0
        self._kept: list[str] = []
        self._depth = 0
        self._inside = self._escaped = False

    @property
    def arguments(self) -> str:
        """Its arguments so far."""
        self._kept = ["".join(self._kept)]
        return self._kept[0]

    @property
    def awaits(self) -> bool:
        """Whether an object may stand next in its arguments."""
        return not self.size or self.arguments.rstrip()[-1:] in (":", ",", "[")

    def add(self, text: str) -> str:
        """Take a piece of the arguments and return what is new in it."""
        text, self.half = join_halves(self.half, text)
        if not text or self.complete:  # nothing follows an object: it is said again
            return ""
        if not self.size and self.index < 0 and text.strip() == _EMPTY:
            self.opening = True
            return ""
        if 0 < self.size <= min(len(text), LONGEST_COMPARED) and text.startswith("{"):
            text = self._unrepeated(text)
        self._scan(text)
        if self.size <= LONGEST_COMPARED:
            self._kept.append(text)
        self.size += len(text)
        return text

    def rest(self, *, fill: bool) -> str:
        """What is left to say at the end; to `fill` is to give an object to a call that has no arguments."""
        half, self.half = self.half, ""
        return half or (_EMPTY if not self.size and (fill or self.opening) else "")

    def repeats(self, text: str) -> bool:
        """Whether these are the arguments of this call, blanks aside."""
        try:
            return bool(
                jsontext.read_lenient(self.arguments or _EMPTY) == jsontext.read_lenient(text or _EMPTY)
            )
        except ValueError:
            return False

    def _unrepeated(self, text: str) -> str:
        """The text without the arguments that have come, where it grows in each piece."""
        if not text.startswith(self.arguments):
            return text
        probe = _AssembledCall()
        probe._scan(text)
        nested = probe._depth < 0
        return text if nested else text[self.size :]

    def _scan(self, text: str) -> None:
        """Follow the brackets outside of strings."""
        if self._escaped:
            text, self._escaped = text[1:], False
        for mark in _MARK.findall(text):
            if mark[0] == "\\":
                self._escaped = len(mark) == 1
            elif mark == '"':
                self._inside = not self._inside
            elif not self._inside:
                self._depth += 1 if mark in "{[" else -1
                self.complete = self.complete or not self._depth


class ToolCallAssembler:
    """The calls of one choice. One per choice; `take` is given each list of calls as it comes."""

    __slots__ = ("_by_index", "_calls", "_named")

    def __init__(self) -> None:
        self._calls: list[_AssembledCall] = []
        self._by_index: dict[int, _AssembledCall] = {}
        self._named = 0

    def __len__(self) -> int:
        """How many calls have a name."""
        return self._named

    def take(self, given: Any) -> tuple[ToolPiece, ...]:
        """Read a list of calls, or of pieces of calls. Raises `UpstreamGarbled` for what is none."""
        entries = _entries(given)
        touched: list[_AssembledCall] = []
        pieces: list[ToolPiece] = []
        for place, entry in enumerate(entries):
            read = _CallEntry(entry)
            call = self._of(read, place if len(entries) > 1 else None, touched)
            touched.append(call)
            if (piece := self._piece(call, read)) is not None:
                pieces.append(piece)
        return tuple(pieces)

    def rest(self, *, fill: bool = True) -> tuple[ToolPiece, ...]:
        """What has been held back, once the choice has ended; arguments are an object, if there were none."""
        named = (call for call in self._calls if call.index >= 0)
        return tuple(ToolPiece(call.index, rest) for call in named if (rest := call.rest(fill=fill)))

    def _piece(self, call: _AssembledCall, read: _CallEntry) -> ToolPiece | None:
        new = call.add(read.arguments)
        call.id = call.id or read.id
        if call.index >= 0:
            return ToolPiece(call.index, new) if new else None
        call.name = read.name
        call.held += new
        if not call.name:
            return None
        call.index = self._named
        self._named += 1
        return ToolPiece(call.index, call.held, call.id or None, call.name)

    def _of(self, read: _CallEntry, place: int | None, touched: list[_AssembledCall]) -> _AssembledCall:
        """The call that an entry is a piece of, or a new one."""
        known = self._known(read, place)
        if known is None or _begins(known, read, beside=known in touched):
            if len(self._calls) >= MOST_CALLS:
                raise UpstreamGarbled("The backend's answer has too many tool calls.")
            known = _AssembledCall()
            self._calls.append(known)
        if read.index is not None:
            self._by_index[read.index] = known
        return known

    def _known(self, read: _CallEntry, place: int | None) -> _AssembledCall | None:
        if read.index is not None and (here := self._by_index.get(read.index)) is not None:
            return here
        if read.id and (same := next((call for call in self._calls if call.id == read.id), None)) is not None:
            return same
        if read.index is not None and (read.id or read.name):
            return None
        if place is not None and read.index is None and not (read.id or read.name):
            return self._calls[place] if place < len(self._calls) else None
        return self._calls[-1] if self._calls else None


class _CallEntry:
    """One entry of a list of calls, read."""

    __slots__ = ("arguments", "id", "index", "name")

    def __init__(self, entry: Any) -> None:
        function = (
            (entry.get("function") or (entry if "name" in entry else {})) if isinstance(entry, dict) else 0
        )
        if not isinstance(function, dict):
            raise UpstreamGarbled("A tool call of the backend's answer is no function call.")
        index = entry.get("index")
        self.index: int | None = index if type(index) is int and index >= 0 else None
        self.id = _text(entry.get("id"))
        self.name = _text(function.get("name"))
        arguments = function.get("arguments")
        if arguments is None or isinstance(arguments, str):
            self.arguments = arguments or ""
        else:  # some servers forget that arguments are a text
            self.arguments = jsontext.write(arguments).decode()


def _begins(call: _AssembledCall, read: _CallEntry, *, beside: bool) -> bool:
    """Whether an entry that seems to be of `call` begins another: index and id are not always to be trusted.

    `beside`: both stand in one list.
    """
    if not (read.name and call.name):
        return beside and bool(read.id) and read.id != call.id
    if read.name != call.name:
        return True
    if read.id and call.id:
        if read.id == call.id:
            return False
        # A new id in each piece of one call happens; two calls of one function are told by their arguments.
        if read.index is None and read.arguments.startswith("{") and not call.awaits:
            return True
        return beside or call.complete or call.opening or not (call.size or read.arguments)
    if beside:
        return True
    return call.complete and bool(read.arguments.strip()) and not call.repeats(read.arguments)


def _entries(given: Any) -> list[Any]:
    if isinstance(given, dict) and ("function" in given or "name" in given):
        return [given]
    if not isinstance(given, list):
        raise UpstreamGarbled("The tool calls of the backend's answer are no list.")
    return given


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def calls_in(message: dict[str, Any]) -> Any:
    """The calls of a message or delta in today's form or the old one, as they are; a false value for none."""
    calls = message.get("tool_calls")
    if calls:
        return calls
    legacy = message.get("function_call")
    return [{"function": legacy}] if legacy else calls


def whole_calls(message: dict[str, Any]) -> tuple[ToolPiece, ...]:
    """The calls of a whole message, one piece each. Raises `UpstreamGarbled`."""
    given = calls_in(message)
    if not given:
        return ()
    calls = ToolCallAssembler()
    pieces = calls.take(given)
    rest = {piece.index: piece.arguments for piece in calls.rest(fill=False)}
    return tuple(replace(one, arguments=one.arguments + rest.get(one.index, "")) for one in pieces)
