"""Reads the tool calls of GLM-4's server.

A call is accepted only if its function was offered and its arguments are a JSON object. All other calls are
turned back into the text that the server made them of.

The server reads the first line of an answer as the name of a function, and the rest as its arguments. In
streams it does not check the rest. In complete answers it also accepts the names `cogview` and
`simple_browser`, even if they were not offered. Editions before July 2024 accept any two lines as a call.
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
"""The member in which the server puts the text that followed the name `cogview`."""


class GLM4CallReader:
    """Collects the pieces of the calls of one stream. One per stream."""

    def __init__(self) -> None:
        self._calls: dict[int, list[ToolPiece]] = {}
        self._written: list[str] = []
        self._plain = True

    def __bool__(self) -> bool:
        return bool(self._calls)

    def note(self, given: Any) -> None:
        """Read the calls of one delta as the server sent them.

        Their texts are stored as long as they are consecutive pieces of one call. Repetitions and text
        after the arguments are missing from the normalised pieces, but are part of the answer's text.
        """
        match given:
            case [{"function": {"arguments": str() | None as arguments, **function}, **entry}] if self._plain:
                self._plain = not entry.get("index") and not (self._written and function.get("name"))
                self._written.append(arguments or "")
            case _:
                self._plain = False

    def add(self, pieces: Iterable[ToolPiece]) -> None:
        """Add the normalised pieces of one delta."""
        for piece in pieces:
            self._calls.setdefault(piece.index, []).append(piece)

    @property
    def pieces(self) -> tuple[ToolPiece, ...]:
        """Every call so far, as one piece each."""
        return tuple(_joined(pieces) for pieces in self._calls.values())

    def offered(self, names: frozenset[str]) -> tuple[ToolPiece, ...]:
        """Return the calls if each of them is of an offered function; none if text follows the arguments."""
        calls = offered(self.pieces, names)
        if not (calls and self._plain):
            return calls
        arguments = self.pieces[0].arguments.strip()
        written = "".join(self._written)
        follows = written.strip().startswith(arguments) and written.replace(arguments, "").strip()
        return () if follows and not parses_to_object(written) else calls

    @property
    def text(self) -> str:
        """The text of the answer that the server turned into calls."""
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
    """Return the calls if all are of offered functions and have JSON objects as arguments; else none.

    Blanks around the arguments are removed, because the server removes them in complete answers only.
    """
    unwrapped = tuple(replace(call, arguments=_unwrapped(call.arguments.strip())) for call in calls)
    good = all(call.name in names and parses_to_object(call.arguments) for call in unwrapped)
    return unwrapped if good else ()


def as_text(calls: tuple[ToolPiece, ...]) -> str:
    """Return the text of the answer that the server turned into these calls."""
    return "\n".join(f"{call.name or ''}\n{_source(call)}" for call in calls)


def written_call(text: str, names: frozenset[str]) -> tuple[ToolPiece, ...]:
    """Return a call that the server left in the text, or none.

    In complete answers, the server does not recognise a call if an empty line follows the name.
    """
    name, _, arguments = text.strip().partition("\n")
    if not arguments.startswith("\n"):
        return ()
    return offered((ToolPiece(0, arguments, name=name.strip()),), names)


def is_chunk(text: str) -> bool:
    """Return True if the first text of a stream is a chunk in JSON.

    The streams of the first editions consist of such texts only.
    """
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
    """Return the arguments. Arguments that the server encoded twice are decoded once."""
    value = _read(arguments) if arguments.startswith('"') else None
    return value if isinstance(value, str) else arguments


def _read(text: str) -> Any:
    try:
        return jsontext.read_lenient(text)
    except ValueError:
        return None
