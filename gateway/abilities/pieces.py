"""Splits a complete answer into the pieces of a stream (rule T13), never inside a visible character.

A visible character may consist of several code points: a letter with combining marks, a joined emoji, the two
letters of a flag.
"""

from __future__ import annotations

import unicodedata

from gateway.abilities.base import EventFilter
from gateway.formats.events import Delta, Event

SIZE = 16
"""Code points in a piece, approximately."""

_JOINERS = frozenset("\u200d\ufe0e\ufe0f")


MOST = 1_000
"""Maximum number of pieces of one answer, approximately. All are written in one step of the event loop."""


def split(text: str, size: int = SIZE) -> list[str]:
    """Split `text` into pieces of at least `size` code points. The last piece may be shorter."""
    pieces: list[str] = []
    start = 0
    while start < len(text):
        end = min(len(text), start + size)
        while end < len(text) and _continues(text, start, end):
            end += 1
        pieces.append(text[start:end])
        start = end
    return pieces


class AnswerSplitter(EventFilter):
    """Splits the delta of a complete answer into several deltas."""

    def feed(self, event: Event) -> list[Event]:
        if not isinstance(event, Delta) or event.tools or len(event.text) <= SIZE:
            return [event]
        first, *rest = split(event.text, max(SIZE, len(event.text) // MOST + 1))
        head = Delta(first, choice=event.choice, extras=event.extras, logprobs=event.logprobs)
        return [head, *(Delta(text, choice=event.choice) for text in rest)]


def _continues(text: str, start: int, place: int) -> bool:
    """Return True if the code point at `place` belongs to the character before it.

    `start` is a place where a character begins.
    """
    here, before = text[place], text[place - 1]
    return here in _JOINERS or before == "\u200d" or _modifier(here) or _ends_flag(text, start, place)


def _modifier(char: str) -> bool:
    """Return True for a combining mark, a skin tone of an emoji, and a tag of a region's flag."""
    return (
        unicodedata.category(char) in ("Mn", "Me", "Mc")
        or "\U0001f3fb" <= char <= "\U0001f3ff"
        or "\U000e0020" <= char <= "\U000e007f"
    )


def _ends_flag(text: str, start: int, place: int) -> bool:
    """Return True if the second letter of a flag is at `place`.

    Letters of flags form pairs, counted from the first letter.
    """
    if not _flag_letter(text[place]):
        return False
    first = place
    while first > start and _flag_letter(text[first - 1]):
        first -= 1
    return (place - first) % 2 == 1


def _flag_letter(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"
