"""Counts tokens if the backend does not, so that every answer has a usage (rule T14)."""

from __future__ import annotations

from gateway.abilities.base import EventFilter
from gateway.formats import token_counts
from gateway.formats.events import Delta, Event, Usage

_KEPT = 4096
"""Number of characters that are collected before they are counted.

Counting every piece is slow, and collecting the whole text takes memory.
"""


class UsageCounter(EventFilter):
    """Passes all events on and adds one `Usage` at the very end.

    It is the backend's own usage if there is one, else an estimate. The counter is placed after
    `StopSequences`, which does not pass on the usage of text that it has cut off.
    """

    def __init__(self, prompt_tokens: int, cjk: int) -> None:
        self._prompt = prompt_tokens
        self._cjk = cjk
        self._tally = token_counts.TokenTally()
        self._texts: list[str] = []
        self._length = 0
        self._seen: Usage | None = None

    def feed(self, event: Event) -> list[Event]:
        if isinstance(event, Usage):
            self._seen = event
            return []
        if isinstance(event, Delta):
            self._texts += event.counted
            self._length += len(event.text)
            if self._length > _KEPT:
                self._count()
        return [event]

    def _count(self) -> None:
        self._tally.add("".join(self._texts))
        self._texts.clear()
        self._length = 0

    def flush(self) -> list[Event]:
        if self._seen is not None:
            return [self._seen]
        self._count()
        return [Usage(self._prompt, self._tally.tokens(self._cjk), "estimate")]


def total(usages: list[Usage]) -> Usage:
    """Return the usage of several generations of one request.

    The tokens of the prompt count once, the tokens of the answers are added.
    """
    ranked = sorted(usages, key=lambda usage: ("backend", "tokenizer", "estimate").index(usage.source))
    return Usage(usages[0].prompt, sum(usage.completion for usage in usages), ranked[-1].source)
