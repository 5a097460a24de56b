"""Backends that rest after failures, for tests of the scheduler without health checks."""

from __future__ import annotations

from dataclasses import replace

from gateway.scheduling.scheduler import BackendTable

REST = 1.0
"""Seconds a backend rests after its first failure to connect; doubles with each further one."""
LONGEST_REST = 10.0


class RestingBackend:
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

    def slots_now(self, now: float) -> int:
        """All of its slots."""
        return self.slots

    def share(self, now: float) -> float:
        """The whole."""
        return 1.0

    def next_change(self, now: float) -> float | None:
        """Give the end of its rest."""
        return self.rests_until if now < self.rests_until else None


def rest_after(failures: int) -> float:
    """Seconds of rest after so many failures in a row, from 1."""
    doublings = min(failures - 1, 16)  # far beyond the longest rest, far below what a float can hold
    return min(LONGEST_REST, REST * 2.0**doublings)


def resting(table: BackendTable) -> BackendTable:
    """Return the table with a resting backend for every name that has no availability."""
    backends = {name: RestingBackend(slots) for name, slots in table.slots.items()}
    return replace(table, availability={**backends, **table.availability})
