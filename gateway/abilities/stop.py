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
            return []  # the backend's own finish and usage speak of text that nobody saw
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
        if delta.tools:  # before a tool call the text is over: nothing more can become a stop text
            self.flush()
            return [delta._replace(text=text)]
        keep = max(search.matched for search in self._searches)
        self._held = text[len(text) - keep :]
        passed = delta._replace(text=text[: len(text) - keep])
        return [] if passed.empty else [passed]

    def _first_stop(self, text: str, held: int) -> int | None:
        """Where the stop text begins that is complete first; of several that end together the longest.

        Not the one that begins first: a longer one around it may need characters that have not come, so
        the cut would depend on how the text was sliced.
        """
        ends = [(end, search.length) for search in self._searches if (end := search.feed(text))]
        if not ends:
            return None
        first = min(end for end, _ in ends)
        return held + first - max(length for end, length in ends if end == first)


class _Matcher:
    """Looks for one stop text in pieces of a text. `matched`: how much of it the text so far ends with."""

    __slots__ = ("_back", "_stop", "length", "matched")

    def __init__(self, stop: str) -> None:
        self._stop = stop
        self._back = _borders(stop)
        self.length = len(stop)
        self.matched = 0

    def feed(self, piece: str) -> int | None:
        """Take a piece; give the place in it behind the stop text, None where that has not come."""
        return self._skim(piece) if len(piece) > 2 * self.length else self._step(piece)

    def _skim(self, piece: str) -> int | None:
        """A long piece: what is not at its ends is searched by Python itself."""
        rest = self.length - 1
        end = self._step(piece[:rest])  # of one that has begun before
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
    """For each beginning of a text, how long its longest end is that is a beginning, too."""
    borders = [0]
    matched = 0
    for char in stop[1:]:
        while matched and stop[matched] != char:
            matched = borders[matched - 1]
        matched += stop[matched] == char
        borders.append(matched)
    return borders
