"""Random two: the less busy of two free backends chosen at random.

Several gateways that share backends without knowing of one another do not all choose the same backend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.scheduling.balancers.base import C, Candidate, emptiest
from gateway.scheduling.slot_request import SlotRequest


class RandomTwo:
    """Chooses with random numbers in [0, 1) from `chance`."""

    learns = False

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance

    def choose(self, free: Sequence[C], slot_request: SlotRequest, among: Sequence[C]) -> C:  # noqa: ARG002 - the signature of `Balancer`
        """Choose the less busy of two different random backends."""
        first = int(self._chance() * len(free))
        second = (first + 1 + int(self._chance() * (len(free) - 1))) % len(free)
        return emptiest((free[first], free[second]))

    def took(self, slot_request: SlotRequest, backend: Candidate) -> None:
        """Do nothing: this policy has no state."""
