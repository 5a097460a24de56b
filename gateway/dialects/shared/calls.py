"""Normalises tool calls, in complete answers and in the chunks of every OpenAI-like server.

Clients assemble a call from its pieces by one rule: the first piece has the id and the name, and the
arguments of all pieces with the same index are concatenated. Servers break this rule in many ways: the
index is missing, or 0 for every call; id and name are in every piece; each piece has a new id; there is no
id; the arguments are an object instead of a text; each piece repeats all arguments, or all arguments so
far. The output of `ToolCallAssembler` follows the rule.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from gateway.errors import UpstreamGarbled
from gateway.formats import jsontext
from gateway.formats.events import ToolPiece

LONGEST_COMPARED = 1 << 20
"""Maximum number of characters of a call's arguments that are kept to detect repetitions."""
MOST_CALLS = 1024
"""Maximum number of calls in one choice."""

_MARK = re.compile(r'\\.?|["{}\[\]]', re.DOTALL)
_EMPTY = "{}"
_HIGH = ("\ud800", "\udbff")


def join_halves(half: str, text: str) -> tuple[str, str]:
    """Prepend half a surrogate pair to the text that follows it.

    Returns the joined text, and the half pair at its end, which is not part of the text; "" if there is
    none.
    """
    if half:
        # Python does not combine two surrogate halves in a str; a round trip through UTF-16 does.
        text = (half + text).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    if text and _HIGH[0] <= text[-1] <= _HIGH[1]:
        return text[:-1], text[-1]
    return text, ""


class _AssembledCall:
    """One call, assembled so far.

    Attributes:
        index: position among the calls that have a name; -1 until the call has a name.
        complete: True once the JSON object of the arguments has been closed.
        opening: True if the first piece of the arguments was `{}`, which may be a placeholder for arguments
            that follow.
        held: arguments that arrived before the name.
        half: half a surrogate pair at the end of the arguments.
        size: number of characters of the arguments.
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
        """The arguments so far, up to about `LONGEST_COMPARED` characters."""
        self._kept = ["".join(self._kept)]
        return self._kept[0]

    @property
    def awaits(self) -> bool:
        """True if the next piece of the arguments may begin with a JSON object."""
        return not self.size or self.arguments.rstrip()[-1:] in (":", ",", "[")

    def add(self, text: str) -> str:
        """Add a piece of the arguments; return the part of it that is new."""
        text, self.half = join_halves(self.half, text)
        if not text or self.complete:  # text after a complete object is a repetition
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
        """Return the rest of the arguments at the end of the choice.

        With `fill`, a call without arguments gets an empty object.
        """
        half, self.half = self.half, ""
        return half or (_EMPTY if not self.size and (fill or self.opening) else "")

    def repeats(self, text: str) -> bool:
        """Return True if `text` is the same JSON value as the arguments of this call."""
        try:
            return bool(
                jsontext.read_lenient(self.arguments or _EMPTY) == jsontext.read_lenient(text or _EMPTY)
            )
        except ValueError:
            return False

    def _unrepeated(self, text: str) -> str:
        """Return the new part of a piece that repeats all arguments so far.

        Other pieces are returned unchanged.
        """
        if not text.startswith(self.arguments):
            return text
        probe = _AssembledCall()
        probe._scan(text)
        nested = probe._depth < 0
        return text if nested else text[self.size :]

    def _scan(self, text: str) -> None:
        """Track the nesting of brackets outside of JSON strings."""
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
    """Assembles the calls of one choice.

    One per choice. `take` reads each list of calls in order of arrival.
    """

    __slots__ = ("_by_index", "_calls", "_named")

    def __init__(self) -> None:
        self._calls: list[_AssembledCall] = []
        self._by_index: dict[int, _AssembledCall] = {}
        self._named = 0

    def __len__(self) -> int:
        """Return the number of calls that have a name."""
        return self._named

    def take(self, given: Any) -> tuple[ToolPiece, ...]:
        """Read a list of calls, or of pieces of calls; return the normalised pieces.

        Raises `UpstreamGarbled` if `given` is not a list of function calls.
        """
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
        """Return the pieces that were held back, once the choice has ended.

        With `fill`, a call without arguments gets an empty object.
        """
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
        """Return the call that an entry belongs to. A new call is created if there is none."""
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
    """The fields of one entry in a list of calls."""

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
        else:  # some servers send the arguments as an object, not as a text
            self.arguments = jsontext.write(arguments).decode()


def _begins(call: _AssembledCall, read: _CallEntry, *, beside: bool) -> bool:
    """Return True if an entry starts a new call although its index or id is that of `call`.

    Servers send wrong indexes and ids. `beside` is True if `call` already has an entry in the same list.
    """
    if not (read.name and call.name):
        return beside and bool(read.id) and read.id != call.id
    if read.name != call.name:
        return True
    if read.id and call.id:
        if read.id == call.id:
            return False
        # Some servers send a new id with each piece of one call, so the arguments decide.
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
    """Return the calls of a message or delta, in the current or the legacy form, without checking them.

    Returns a false value if there are no calls.
    """
    calls = message.get("tool_calls")
    if calls:
        return calls
    legacy = message.get("function_call")
    return [{"function": legacy}] if legacy else calls


def whole_calls(message: dict[str, Any]) -> tuple[ToolPiece, ...]:
    """Return the calls of a complete message, one piece for each call. Raises `UpstreamGarbled`."""
    given = calls_in(message)
    if not given:
        return ()
    calls = ToolCallAssembler()
    pieces = calls.take(given)
    rest = {piece.index: piece.arguments for piece in calls.rest(fill=False)}
    return tuple(replace(one, arguments=one.arguments + rest.get(one.index, "")) for one in pieces)
