"""Whether a backend may be asked, as far as the scheduler needs to know."""

from __future__ import annotations

from typing import Protocol

LAST = 1e-12
"""The share of a backend that is to be asked only where no other is free."""


class Availability(Protocol):
    """Whether one backend may be asked. Code that changes it calls `Scheduler.changed` afterwards."""

    def usable(self, now: float) -> bool:
        """Whether it may be asked at all. Nobody waits for backends that may not."""

    def slots_now(self, now: float) -> int:
        """Requests it may work on at once: fewer than its slots while it warms up."""

    def share(self, now: float) -> float:
        """How much of a whole backend it is, above 0 and up to 1; the greater goes first.

        `LAST` for one that no balancer may choose before others.
        """

    def next_change(self, now: float) -> float | None:
        """When one of these will be different by itself; None for never."""
