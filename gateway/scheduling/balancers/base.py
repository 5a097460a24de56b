"""The interface of balancers, the view of a backend that they use, and the default choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from gateway.scheduling.slot_request import SlotRequest

CLEARLY_SLOWER = 1.5
"""A backend counts as slow if its average answer takes this many times longer than that of the fastest
backend. The factor is larger than the differences that varying answer lengths cause between equal GPUs."""


class Candidate(Protocol):
    """The properties of a backend that a balancer may use."""

    @property
    def name(self) -> str:
        """The backend's name in the configuration."""

    @property
    def place(self) -> int:
        """The backend's index in the configuration."""

    @property
    def busy(self) -> int:
        """Number of requests in flight on the backend."""

    @property
    def slots(self) -> int:
        """Maximum number of requests in flight on the backend."""

    @property
    def weight(self) -> int:
        """The configured weight: the backend's relative share of the requests."""

    @property
    def share(self) -> float:
        """The backend's current capacity as a fraction, above 0 and up to 1; below 1 during slow start."""

    @property
    def usable(self) -> bool:
        """True if requests may be sent to the backend at all."""

    @property
    def granted(self) -> int:
        """The sequence number of the last slot granted on this backend; 0 if there was none."""

    @property
    def pace(self) -> float:
        """The average time the backend takes for an answer, in seconds; 0 while it is unknown."""


C = TypeVar("C", bound=Candidate)


class Balancer(Protocol):
    """The policy of one model. `took` is called only if `learns` is true."""

    learns: bool

    def choose(self, free: Sequence[C], slot_request: SlotRequest, among: Sequence[C]) -> C:
        """Choose one of `free`, which has at least two elements.

        `free` is a subset of `among`, which contains all backends that the request may use.
        """

    def took(self, slot_request: SlotRequest, backend: Candidate) -> None:
        """Record that the request was granted a slot of this backend."""


def emptiest(free: Sequence[C]) -> C:
    """Return the backend with the lowest ratio of busy slots; break ties by speed, then by idle time.

    Backends in slow start come after all others. The tie-break by idle time spreads the requests of a
    lightly loaded gateway over all backends. Without it every request would go to the first GPU: that GPU
    would stay hot, and faults of the other GPUs would not be noticed.
    """
    slow = CLEARLY_SLOWER * min([state.pace for state in free if state.pace], default=0.0)
    best = free[0]
    least = (2.0, 0.0, False, 0)
    for state in free:
        load = (-state.share, state.busy / state.slots, state.pace > slow, state.granted)
        if load < least:
            best, least = state, load
    return best
