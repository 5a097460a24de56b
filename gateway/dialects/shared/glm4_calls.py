"""The calls of GLM-4's server: believed only where the function was offered and its arguments are an object.

The server takes an answer's first line for a function's name and the rest for its arguments. In streams it
does not look at the rest; in whole answers it also takes the names `cogview` and `simple_browser`, whether
offered or not; editions before July 2024 take any two lines. What is no call is the text it was made from.
Source: THUDM/GLM-4 `glm_server.py`, `openai_api_server.py`: `process_response`, `predict_stream`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from gateway.dialects.shared.openai_like import parses_to_object
from gateway.formats import jsontext
from gateway.formats.events import ToolPiece

_WRAPPED = "prompt"
"""Where the server puts what followed the name `cogview`."""


class GLM4CallReader:
    """Collects the pieces of the calls of one stream. One per stream."""

    def __init__(self) -> None:
        self._calls: dict[int, list[ToolPiece]] = {}
        self._written: list[str] = []
        self._plain = True

    def __bool__(self) -> bool:
        return bool(self._calls)

    def note(self, given: Any) -> None:
        """Take the calls of one delta as they came, as long as they are one call piece by piece.

        What is said again, or follows the arguments, is missing from the pieces, but not from the answer.
        """
        match given:
            case [{"function": {"arguments": str() | None as arguments, **function}, **entry}] if self._plain:
                self._plain = not entry.get("index") and not (self._written and function.get("name"))
                self._written.append(arguments or "")
            case _:
                self._plain = False

    def add(self, pieces: Iterable[ToolPiece]) -> None:
        """Take the pieces of one delta."""
        for piece in pieces:
            self._calls.setdefault(piece.index, []).append(piece)

    @property
    def pieces(self) -> tuple[ToolPiece, ...]:
        """Every call so far as one piece."""
        return tuple(_joined(pieces) for pieces in self._calls.values())

    def offered(self, names: frozenset[str]) -> tuple[ToolPiece, ...]:
        """The calls, if each is of one of these functions; none where text follows the arguments."""
        calls = offered(self.pieces, names)
        if not (calls and self._plain):
            return calls
        arguments = self.pieces[0].arguments.strip()
        written = "".join(self._written)
        follows = written.strip().startswith(arguments) and written.replace(arguments, "").strip()
        return () if follows and not parses_to_object(written) else calls

    @property
    def text(self) -> str:
        """The answer that the server made the calls of."""
        pieces = self.pieces
        if self._plain and pieces and pieces[0].name != "cogview":
            return f"{pieces[0].name or ''}\n{''.join(self._written)}".rstrip()
        return as_text(pieces)


def _joined(pieces: list[ToolPiece]) -> ToolPiece:
    return ToolPiece(
        pieces[0].index,
        "".join(piece.arguments for piece in pieces),
        id=next((piece.id for piece in pieces if piece.id), None),
        name=next((piece.name for piece in pieces if piece.name), None),
    )


def offered(calls: tuple[ToolPiece, ...], names: frozenset[str]) -> tuple[ToolPiece, ...]:
    """The calls, if each is of a function that was offered and has an object for arguments; else none.

    Blanks around the arguments go: the server strips them from whole answers only.
    """
    unwrapped = tuple(replace(call, arguments=_unwrapped(call.arguments.strip())) for call in calls)
    good = all(call.name in names and parses_to_object(call.arguments) for call in unwrapped)
    return unwrapped if good else ()


def as_text(calls: tuple[ToolPiece, ...]) -> str:
    """The answer that the server made these calls of."""
    return "\n".join(f"{call.name or ''}\n{_source(call)}" for call in calls)


def written_call(text: str, names: frozenset[str]) -> tuple[ToolPiece, ...]:
    """A call that the server took for a text: in whole answers it allows no empty line in one."""
    name, _, arguments = text.strip().partition("\n")
    if not arguments.startswith("\n"):
        return ()
    return offered((ToolPiece(0, arguments, name=name.strip()),), names)


def is_chunk(text: str) -> bool:
    """Whether a first text is a chunk in JSON: all that the streams of the first editions consist of."""
    if not text.startswith('{"model"'):
        return False
    value = _read(text)
    return isinstance(value, dict) and value.get("object") == "chat.completion.chunk"


def _source(call: ToolPiece) -> str:
    value = _read(call.arguments)
    if call.name == "cogview" and isinstance(value, dict) and isinstance(value.get(_WRAPPED), str):
        return str(value[_WRAPPED])
    return _unwrapped(call.arguments)


def _unwrapped(arguments: str) -> str:
    """The arguments; where a server encoded them twice, once."""
    value = _read(arguments) if arguments.startswith('"') else None
    return value if isinstance(value, str) else arguments


def _read(text: str) -> Any:
    try:
        return jsontext.read_lenient(text)
    except ValueError:
        return None
