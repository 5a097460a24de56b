"""What a balancer is, what it may look at, and the choice that most of them fall back on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from gateway.scheduling.slot_request import SlotRequest

CLEARLY_SLOWER = 1.5
"""How many times the seconds of the fastest a backend takes to count as a slow one: well beyond what the
lengths of answers make of equal cards."""


class Candidate(Protocol):
    """What a choice may look at."""

    @property
    def name(self) -> str:
        """Its name in the configuration."""

    @property
    def place(self) -> int:
        """Its place in the configuration."""

    @property
    def busy(self) -> int:
        """Requests in flight there."""

    @property
    def slots(self) -> int:
        """Requests that fit at once."""

    @property
    def weight(self) -> int:
        """How much of the work it is meant to get."""

    @property
    def share(self) -> float:
        """How much of a whole backend it is while it warms up, above 0 and up to 1."""

    @property
    def usable(self) -> bool:
        """Whether it may be asked at all."""

    @property
    def granted(self) -> int:
        """The number of the grant it got last; 0 for none."""

    @property
    def pace(self) -> float:
        """The seconds it takes for an answer; 0 while that is not known."""


C = TypeVar("C", bound=Candidate)


class Balancer(Protocol):
    """A policy of one model. `learns` tells whether it wants to hear of every grant."""

    learns: bool

    def choose(self, free: Sequence[C], slot_request: SlotRequest, among: Sequence[C]) -> C:
        """Choose one of `free`, which are two or more of `among`: those that the request may use."""

    def took(self, slot_request: SlotRequest, backend: Candidate) -> None:
        """Take note that this backend was granted."""


def emptiest(free: Sequence[C]) -> C:
    """The emptiest by share of its slots; of equals a fast one; of those the longest idle.

    Without the last rule a fleet at rest would send every request to the first card, which stays hot while
    the others cool and hides their faults. One that warms up comes after all others.
    """
    slow = CLEARLY_SLOWER * min([state.pace for state in free if state.pace], default=0.0)
    best = free[0]
    least = (2.0, 0.0, False, 0)
    for state in free:
        load = (-state.share, state.busy / state.slots, state.pace > slow, state.granted)
        if load < least:
            best, least = state, load
    return best
