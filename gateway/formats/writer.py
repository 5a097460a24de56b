"""What a door writes an answer with: events in, the bytes of one public API out. Pure.

A door supplies a writer; `api/whole.py` and `api/stream.py` do the rest. A writer belongs to one response.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

from gateway.errors import GatewayError
from gateway.formats.events import Event
from gateway.formats.waiting import Place

WireFormat: TypeAlias = Literal["openai-chat"]
"""A format of answers that backends speak and that some clients read as it is."""
NO_FORMATS: frozenset[WireFormat] = frozenset()

WaitingStyle: TypeAlias = Literal["comments", "events", "chunks"]
"""How a stream without content yet is kept alive: by comments, by events of the queue, by empty chunks."""


class Writer(Protocol):
    """Writes whole answers."""

    accepts: frozenset[WireFormat]
    """Formats whose bytes may go to this client unread."""

    def whole(self, events: Sequence[Event]) -> bytes:
        """Return the body of a whole answer. Raises `UpstreamTruncated` where its end is missing."""


class StreamWriter(Protocol):
    """Writes the events of a stream."""

    passed: bool
    """Set by the session: the backend's own bytes have gone to the client, its usage among them."""

    def waiting(self, place: Place, style: WaitingStyle) -> bytes:
        """Return what keeps the connection alive while there is no content. May be called before `event`."""

    def event(self, event: Event) -> bytes:
        """Return the bytes of one event; none where it is not shown."""

    def error(self, error: GatewayError) -> bytes:
        """Return the in-band error that ends a stream which has begun."""

    def end(self) -> bytes:
        """Return the end of a complete stream. Raises `UpstreamTruncated` where the answer is incomplete."""
