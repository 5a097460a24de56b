"""Whether the gateway goes on: what a shutdown says to those who come and to those who are here."""

from __future__ import annotations

from typing import Protocol

from gateway.errors import Draining, GatewayError


class ActiveRequest(Protocol):
    """One request in flight."""

    def end(self, reason: GatewayError) -> None:
        """End it, with the error to tell its client."""


class Lifecycle:
    """The gateway's life, in steps: it takes leave, drains, and ends.

    `leaving`: not ready any more, and tells connections to close, but still serves whoever comes, for those
    who send requests may not have heard yet. `draining`: refuses new requests. `end` ends those in flight,
    the `visitors`.
    """

    def __init__(self) -> None:
        self.leaving = False
        self.draining = False
        self.visitors: set[ActiveRequest] = set()

    def take_leave(self) -> None:
        """Be ready no more."""
        self.leaving = True

    def drain(self) -> None:
        """Take no new request."""
        self.leaving = self.draining = True

    def end(self) -> None:
        """Tell every request in flight that its time is over."""
        for visitor in tuple(self.visitors):
            visitor.end(
                Draining("The gateway is shutting down before this answer was complete.", retry_after=1)
            )

    def __len__(self) -> int:
        return len(self.visitors)
