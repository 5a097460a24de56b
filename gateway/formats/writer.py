"""`Writer` and `StreamWriter`: turn events into the bytes of one public API. Pure.

A door supplies a writer; `api/whole.py` and `api/stream.py` do the rest. A writer belongs to one response.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

from gateway.errors import GatewayError
from gateway.formats.events import Event
from gateway.formats.waiting import Place

WireFormat: TypeAlias = Literal["openai-chat"]
"""A format of backends' answers that the clients of some APIs can read unchanged."""
NO_FORMATS: frozenset[WireFormat] = frozenset()

WaitingStyle: TypeAlias = Literal["comments", "events", "chunks"]
"""The form of keep-alives in a stream without content: comments, queue events, or empty chunks."""


class Writer(Protocol):
    """Writes complete answers."""

    accepts: frozenset[WireFormat]
    """The formats of backends' answers whose bytes may be passed to this client unread."""

    def whole(self, events: Sequence[Event]) -> bytes:
        """Return the body of a complete answer. Raises `UpstreamTruncated` if its end is missing."""


class StreamWriter(Protocol):
    """Writes the events of a stream."""

    passed: bool
    """Set by the session: True if bytes of the backend, with its usage, have been passed to the client."""

    def waiting(self, place: Place, style: WaitingStyle) -> bytes:
        """Return a keep-alive for a stream without content. May be called before `event`."""

    def event(self, event: Event) -> bytes:
        """Return the bytes of one event; empty if the event is not shown to clients."""

    def error(self, error: GatewayError) -> bytes:
        """Return the error event that ends a stream whose head has been sent."""

    def end(self) -> bytes:
        """Return the end of a complete stream. Raises `UpstreamTruncated` if the answer is incomplete."""
