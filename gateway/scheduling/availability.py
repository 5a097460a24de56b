"""The interface through which the scheduler asks about the availability of a backend."""

from __future__ import annotations

from typing import Protocol

LAST = 1e-12
"""The `share` of a backend that is chosen only if no other backend is free."""


class Availability(Protocol):
    """The availability of one backend. Code that changes it calls `Scheduler.changed` afterwards."""

    def usable(self, now: float) -> bool:
        """Return True if requests may be sent to the backend, now or soon.

        Requests do not wait for a backend that is not usable.
        """

    def slots_now(self, now: float) -> int:
        """Return how many requests the backend may have in flight now; fewer than its slots in slow start."""

    def share(self, now: float) -> float:
        """Return the backend's current capacity as a fraction, above 0 and up to 1.

        Balancers prefer the larger share. A backend with the share `LAST` is chosen only if no other
        backend is free.
        """

    def next_change(self, now: float) -> float | None:
        """Return when one of the other three values next changes without an event; None for never."""
