"""Whether the gateway goes on: what a shutdown says to those who come and to those who are here."""

from __future__ import annotations

from collections.abc import Callable

from gateway.errors import Draining, GatewayError

End = Callable[[GatewayError], None]
"""Ends one request in flight, with the error to tell its client."""


class Life:
    """The gateway's life. `draining` refuses new requests; `end` ends those in flight."""

    def __init__(self) -> None:
        self.draining = False
        self._visitors: set[End] = set()

    def enter(self, end: End) -> None:
        """Take note of a request in flight."""
        self._visitors.add(end)

    def leave(self, end: End) -> None:
        """Forget it."""
        self._visitors.discard(end)

    def end(self) -> None:
        """Tell every request in flight that its time is over."""
        for end in tuple(self._visitors):
            end(Draining("The gateway is shutting down before this answer was complete.", retry_after=1))

    def __len__(self) -> int:
        return len(self._visitors)
