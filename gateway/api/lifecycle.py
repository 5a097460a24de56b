"""The stages of a shutdown, and the requests in flight that it ends."""

from __future__ import annotations

from typing import Protocol

from gateway.errors import Draining, GatewayError


class ActiveRequest(Protocol):
    """One request in flight."""

    def end(self, reason: GatewayError) -> None:
        """End the request; its client gets `reason`."""


class Lifecycle:
    """The stage of the gateway's life. One for the process.

    Stages:
        leaving: `/readyz` says 503 and responses carry `connection: close`, but new requests are served,
            because load balancers notice the change only after some seconds.
        draining: new requests are refused.
        end: requests in flight (`visitors`) are ended.
    """

    def __init__(self) -> None:
        self.leaving = False
        self.draining = False
        self.visitors: set[ActiveRequest] = set()

    def take_leave(self) -> None:
        """Enter the stage `leaving`."""
        self.leaving = True

    def drain(self) -> None:
        """Enter the stage `draining`."""
        self.leaving = self.draining = True

    def end(self) -> None:
        """End every request in flight with `Draining`."""
        for visitor in tuple(self.visitors):
            visitor.end(
                Draining("The gateway is shutting down before this answer was complete.", retry_after=1)
            )

    def __len__(self) -> int:
        return len(self.visitors)
