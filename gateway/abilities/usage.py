"""Counts tokens where the backend does not, so that every answer has its usage (rule T14)."""

from __future__ import annotations

from gateway.abilities.base import EventFilter
from gateway.formats import token_counts
from gateway.formats.events import Delta, Event, Usage

_KEPT = 4096
"""Characters that are kept to be counted together: one by one is dear, all of them fill memory."""


class UsageCounter(EventFilter):
    """Passes everything on and gives one `Usage` at the very end.

    The backend's own if one comes, else an estimate. Stands behind `StopSequences`, which lets no
    count through for text that it has cut.
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
    """The usage of several generations of one request: the prompt counts once, the answers add up."""
    ranked = sorted(usages, key=lambda usage: ("backend", "tokenizer", "estimate").index(usage.source))
    return Usage(usages[0].prompt, sum(usage.completion for usage in usages), ranked[-1].source)
