"""Counts tokens where the backend does not, so that every answer has its usage (rule T14)."""

from __future__ import annotations

from gateway.abilities.stage import Stage
from gateway.wire import tokens
from gateway.wire.events import Delta, Event, Usage


class Count(Stage):
    """Passes everything on and gives one `Usage` at the very end.

    The backend's own if one comes, else an estimate. Stands behind `Stop`, which lets no count through
    for text it has cut.
    """

    def __init__(self, prompt_tokens: int, cjk: int) -> None:
        self._prompt = prompt_tokens
        self._cjk = cjk
        self._texts: list[str] = []
        self._seen: Usage | None = None

    def feed(self, event: Event) -> list[Event]:
        if isinstance(event, Usage):
            self._seen = event
            return []
        if isinstance(event, Delta):
            self._texts.append(event.text)
            self._texts.extend((piece.name or "") + piece.arguments for piece in event.tools)
        return [event]

    def flush(self) -> list[Event]:
        if self._seen is not None:
            return [self._seen]
        counted = tokens.estimate("".join(self._texts), self._cjk)
        return [Usage(self._prompt, counted, "estimate")]


def total(usages: list[Usage]) -> Usage:
    """The usage of several generations of one request: the prompt counts once, the answers add up."""
    ranked = sorted(usages, key=lambda usage: ("backend", "tokenizer", "estimate").index(usage.source))
    return Usage(usages[0].prompt, sum(usage.completion for usage in usages), ranked[-1].source)
