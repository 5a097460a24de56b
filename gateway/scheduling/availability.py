"""Whether a backend may be asked, as far as the scheduler wants to know; and the simplest answer to it."""

from __future__ import annotations

from typing import Protocol

REST = 1.0
"""Seconds a backend rests after its first failure to connect; doubles with each further one."""
LONGEST_REST = 10.0
LAST = 1e-12
"""The share of a backend that is to be asked only where no other is free."""


class Availability(Protocol):
    """The health of one backend. Whoever tells it something tells `Scheduler.changed` afterwards."""

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


class Rest:
    """A backend that rests after failures to connect, longer each time, and is well after one answer."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.failures = 0
        self.rests_until = 0.0

    def failed(self, now: float) -> None:
        """Take note that it did not take a connection."""
        if self.usable(now):  # what was under way when it went down is part of the same failure
            self.failures += 1
            self.rests_until = now + rest_after(self.failures)

    def answered(self) -> None:
        """Take note that it has answered."""
        self.failures, self.rests_until = 0, 0.0

    def usable(self, now: float) -> bool:
        """Whether it has rested."""
        return now >= self.rests_until

    def slots_now(self, now: float) -> int:  # noqa: ARG002 - a Fitness that knows no warming up
        """All of its slots."""
        return self.slots

    def share(self, now: float) -> float:  # noqa: ARG002 - as above
        """The whole."""
        return 1.0

    def next_change(self, now: float) -> float | None:
        """Give the end of its rest."""
        return self.rests_until if now < self.rests_until else None


def rest_after(failures: int) -> float:
    """Seconds of rest after so many failures in a row, from 1."""
    doublings = min(failures - 1, 16)  # far beyond the longest rest, far below what a float can hold
    return min(LONGEST_REST, REST * 2.0**doublings)
