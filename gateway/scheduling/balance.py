"""Chooses among backends that are all free: least busy first, ties in turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Candidate(Protocol):
    """What a choice may look at."""

    @property
    def busy(self) -> int:
        """Requests in flight there."""

    @property
    def slots(self) -> int:
        """Requests that fit at once."""

    @property
    def granted(self) -> int:
        """The number of the grant it got last; 0 for none."""


def least_busy(free: Sequence[Candidate]) -> int:
    """The place of the backend with the smallest share of its slots taken; the longest idle of equals.

    Without the second rule a fleet at rest would send every request to the first card, which stays
    hot while the others cool and hides their faults.
    """
    return min(
        range(len(free)), key=lambda place: (free[place].busy / free[place].slots, free[place].granted)
    )
