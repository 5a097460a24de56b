"""Reads the event streams of ChatGLM3's server and repairs their faults (rule V2).

There are three known faults. An answer of seven characters or fewer is streamed without a single event; the
request is sent again without streaming. An answer that contains `get_` stops in the middle, and is then
sent once more as the plain text of one event; the missing rest is taken from that text. An edition of 2023
ends a stream twice. Source: ChatGLM3 `api_server.py`, `predict_stream`.
"""

from __future__ import annotations

from typing import Any

from gateway.dialects.base import AskWhole, Decoder
from gateway.dialects.shared import budget
from gateway.dialects.shared.leading_whitespace import LeadingWhitespace, without_lead
from gateway.errors import UpstreamGarbled, UpstreamTruncated
from gateway.formats import jsontext, sse, token_counts
from gateway.formats.events import Delta, Event, Finish, FinishReason, Repair

_DONE = "[DONE]"
_ALIKE = 8
"""Number of characters that a plain text must have in common with the text received before it.

The server sends nothing before the eighth character.
"""


class V3Decoder(Decoder):
    """Reads one stream. One per stream. The first finish ends the answer, and the rest is skipped.

    `most` is the maximum number of tokens that was requested.
    """

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._lead = LeadingWhitespace()
        self._received: list[str] = []
        self._events = 0
        self._opening = (0, 0)  # tokens of the first event's text, and of the whitespace before it
        self._begun = False
        self._finished = False

    @property
    def finished(self) -> bool:
        return self._finished

    def feed(self, event: sse.SseEvent) -> list[Event]:
        if event.data.strip() == _DONE:
            self.done = True
            return []
        if self._finished or self.done or not event.data.strip():
            return []
        self._begun = True
        chunk = _chunk(event.data)
        return self._tail(event.data) if chunk is None else self._piece(chunk)

    def end(self, *, clean: bool) -> list[Event]:
        if self._finished:
            return [] if self.done else [Repair("missing_done")]
        if self.done and self._received:
            return [Repair("no_finish"), self._finish()]
        if self.done or (clean and not self._begun):
            raise AskWhole("short_stream")
        raise UpstreamTruncated("The backend's answer broke off.")

    def _piece(self, chunk: dict[str, Any]) -> list[Event]:
        text, finished = _read(chunk)
        events: list[Event] = self._text(text)
        return [*events, self._finish()] if finished else events

    def _text(self, received: str) -> list[Event]:
        if not received:
            return []
        self._received.append(received)
        text = self._lead.strip(received)
        # The server sends one event for each token, but one event for the first eight characters.
        self._events += 1
        if self._events == 1:
            self._opening = (token_counts.estimate(text), len(received) - len(text))
        return [Delta(text)] if text else []

    def _tail(self, full: str) -> list[Event]:
        # The lines of an event are joined by \n, whatever line ends the answer had. Normalise the text
        # received so far in the same way.
        received = "".join(self._received).replace("\r\n", "\n").replace("\r", "\n")
        expected = received[:_ALIKE] or "\n"
        if not full.startswith(expected) or len(full) < len(received):
            raise UpstreamGarbled("The backend sent an event that is neither JSON nor its answer.")
        self.done = True
        return [Repair("get_event"), *self._text(full[len(received) :]), self._finish()]

    def _finish(self) -> Finish:
        self._finished = True
        answer = without_lead("".join(self._received))
        counted = max(token_counts.estimate(answer), self._counted())
        return Finish(finish_reason(counted, self._most))

    def _counted(self) -> int:
        """Return the number of tokens, derived from the number of events.

        The leading whitespace counts only if there are several events.
        """
        text, lead = self._opening
        return text + lead + self._events - 1 if self._events > 1 else text


def finish_reason(counted: int, most: int | None) -> FinishReason:
    """Return `length` or `stop` (rule T11).

    At its limit, this server drops the last token and reports "stop".
    """
    return budget.finish_reason(counted + 1, most, 0, None)


def _chunk(data: str) -> dict[str, Any] | None:
    """Return the event as a chunk, or None if the event is plain text.

    An answer may itself be JSON. As plain text it begins with leading whitespace, which no chunk does.
    """
    if not data.startswith("{"):
        return None
    try:
        chunk = jsontext.read_lenient(data)
    except ValueError:
        return None
    return chunk if isinstance(chunk, dict) and isinstance(chunk.get("choices"), list) else None


def _read(chunk: dict[str, Any]) -> tuple[str, bool]:
    """Return the text of a chunk, and True if the chunk ends the answer."""
    for choice in chunk["choices"]:
        delta = choice.get("delta") if isinstance(choice, dict) else None
        text = delta.get("content") if isinstance(delta, dict) else None
        if not isinstance(delta, dict) or not isinstance(text, str | None):
            raise UpstreamGarbled("The backend sent a chunk without a delta.")
        return text or "", choice.get("finish_reason") is not None
    return "", False
