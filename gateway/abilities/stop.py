"""Stop sequences for backends that do not support them (rule T9).

The text is cut at the first match, and text that may become a match is held back. The search is the one of
Knuth, Morris and Pratt: one step for each character and stop sequence, whatever they are.
"""

from __future__ import annotations

from gateway.abilities.base import Ability
from gateway.dialects.base import Dialect, Outgoing, Profile
from gateway.formats.events import Delta, Event, Finish, Usage
from gateway.formats.openai import ChatRequest


class StopSequences(Ability):
    """Cuts one generation of one choice at the first of `stops`.

    The end of the text is held back as long as it may be the beginning of a stop sequence: at most the
    length of the longest stop sequence less one character.
    """

    asked_by = frozenset({"stop"})

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._searches = [_Matcher(stop) for stop in stops]
        self._held = ""

    @classmethod
    def wanted(cls, request: ChatRequest, dialect: Dialect, profile: Profile) -> bool:  # noqa: ARG003 - an Ability's form
        return request.stop is not None and "stop" not in dialect.honours and bool(request.stops)

    @classmethod
    def begin(cls, request: ChatRequest, dialect: Dialect, outgoing: Outgoing) -> StopSequences:  # noqa: ARG003 - an Ability's form
        return cls(request.stops)

    def feed(self, event: Event) -> list[Event]:
        if self.done:
            return []  # the backend's own finish and usage include text that was cut off
        if isinstance(event, Delta) and event.text:
            return self._cut(event)
        if isinstance(event, Finish | Usage) or (isinstance(event, Delta) and event.tools):
            return [*self.flush(), event]
        return [event]

    def flush(self) -> list[Event]:
        held, self._held = self._held, ""
        for search in self._searches:
            search.matched = 0
        return [Delta(held)] if held else []

    def _cut(self, delta: Delta) -> list[Event]:
        text = self._held + delta.text
        place = self._first_stop(delta.text, len(self._held))
        if place is not None:
            self.done = True
            self._held = ""
            kept = delta._replace(text=text[:place], tools=())
            return [*([] if kept.empty else [kept]), Finish("stop", delta.choice)]
        if delta.tools:  # a tool call ends the text, so held text can no longer become a stop sequence
            self.flush()
            return [delta._replace(text=text)]
        keep = max(search.matched for search in self._searches)
        self._held = text[len(text) - keep :]
        passed = delta._replace(text=text[: len(text) - keep])
        return [] if passed.empty else [passed]

    def _first_stop(self, text: str, held: int) -> int | None:
        """Return where the first complete stop sequence begins; None if there is none.

        The first complete stop sequence is the one that ends first. If several end at the same place, it is
        the longest. It is not the stop sequence that begins first: a longer stop sequence around it may
        need characters that have not arrived, so the cut would depend on how the text was split into
        pieces.
        """
        ends = [(end, search.length) for search in self._searches if (end := search.feed(text))]
        if not ends:
            return None
        first = min(end for end, _ in ends)
        return held + first - max(length for end, length in ends if end == first)


class _Matcher:
    """Searches for one stop sequence in the pieces of a text.

    `matched` is the number of characters of the stop sequence with which the text so far ends.
    """

    __slots__ = ("_back", "_stop", "length", "matched")

    def __init__(self, stop: str) -> None:
        self._stop = stop
        self._back = _borders(stop)
        self.length = len(stop)
        self.matched = 0

    def feed(self, piece: str) -> int | None:
        """Read a piece; return the place in it after the stop sequence, or None if it is not complete."""
        return self._skim(piece) if len(piece) > 2 * self.length else self._step(piece)

    def _skim(self, piece: str) -> int | None:
        """Read a long piece: `str.find` searches all of it but its ends."""
        rest = self.length - 1
        end = self._step(piece[:rest])  # completes a match that began in an earlier piece
        if end is not None:
            return end
        place = piece.find(self._stop)
        if place >= 0:
            return place + self.length
        self.matched = 0
        return self._step(piece[len(piece) - rest :])

    def _step(self, piece: str) -> int | None:
        stop, back, length, matched = self._stop, self._back, self.length, self.matched
        for end, char in enumerate(piece, 1):
            while matched and stop[matched] != char:
                matched = back[matched - 1]
            if stop[matched] == char:
                matched += 1
                if matched == length:
                    return end
        self.matched = matched
        return None


def _borders(stop: str) -> list[int]:
    """Return the length of the longest border of each prefix of a text (Knuth-Morris-Pratt).

    A border is a proper prefix that is also a suffix.
    """
    borders = [0]
    matched = 0
    for char in stop[1:]:
        while matched and stop[matched] != char:
            matched = borders[matched - 1]
        matched += stop[matched] == char
        borders.append(matched)
    return borders
