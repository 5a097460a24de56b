"""Stop texts for backends that do not know them (rule T9).

The text is cut at the first match; what might become one is held back.
"""

from __future__ import annotations

from gateway.abilities.stage import Stage
from gateway.wire.events import Delta, Event, Finish, Usage


class Stop(Stage):
    """Cuts one generation of one choice at the first of `stops`.

    As long as the end of the text could be the beginning of a stop text it is held back: never more than
    the longest stop text less one character.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = ""

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
        return [Delta(held)] if held else []

    def _cut(self, delta: Delta) -> list[Event]:
        text = self._held + delta.text
        place = _first_stop(text, self._stops)
        if place is not None:
            self.done = True
            self._held = ""
            kept = delta._replace(text=text[:place], tools=())
            return [*([] if kept.empty else [kept]), Finish("stop", delta.choice)]
        # Before a tool call the text is over: nothing more can become a stop text.
        keep = 0 if delta.tools else max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        passed = delta._replace(text=text[: len(text) - keep])
        return [] if passed.empty else [passed]


def _first_stop(text: str, stops: tuple[str, ...]) -> int | None:
    """Where the stop text begins that is complete first; of several that end together the longest.

    Not the one that begins first: a longer one around it may need characters that have not come yet, and
    the cut would depend on how the text was sliced.
    """
    found = [(place + len(stop), place) for stop in stops if (place := text.find(stop)) >= 0]
    return min(found)[1] if found else None


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin `stop`."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[-size:]):
            return size
    return 0
