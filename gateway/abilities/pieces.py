"""Cuts a whole answer into the pieces of a stream (rule T13), never inside a character.

What people see as one character may be several code points: a letter and its marks, an emoji and its
joiners. Pieces end only where a new one begins.
"""

from __future__ import annotations

import unicodedata

from gateway.abilities.stage import Stage
from gateway.wire.events import Delta, Event

SIZE = 16
"""About how many code points a piece holds."""

_JOINERS = frozenset("\u200d\ufe0e\ufe0f")


def split(text: str, size: int = SIZE) -> list[str]:
    """Cut `text` into pieces of at least `size` code points, the last may be shorter."""
    pieces: list[str] = []
    start = 0
    while start < len(text):
        end = min(len(text), start + size)
        while end < len(text) and _continues(text, end):
            end += 1
        pieces.append(text[start:end])
        start = end
    return pieces


class Pieces(Stage):
    """Turns the one delta of a whole answer into many."""

    def feed(self, event: Event) -> list[Event]:
        if not isinstance(event, Delta) or event.tools or len(event.text) <= SIZE:
            return [event]
        first, *rest = split(event.text)
        head = Delta(first, choice=event.choice, extras=event.extras, logprobs=event.logprobs)
        return [head, *(Delta(text, choice=event.choice) for text in rest)]


def _continues(text: str, place: int) -> bool:
    """Whether the code point at `place` belongs to the character before it."""
    here, before = text[place], text[place - 1]
    return here in _JOINERS or before == "\u200d" or unicodedata.combining(here) != 0 or _modifier(here)


def _modifier(char: str) -> bool:
    return "\U0001f3fb" <= char <= "\U0001f3ff" or unicodedata.category(char) in ("Mn", "Me", "Mc")
