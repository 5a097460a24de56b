"""Random two: the emptier of two free backends taken by chance.

Gateways side by side that know nothing of one another do not all choose the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.scheduling.balancers.base import C, Candidate, emptiest
from gateway.scheduling.slot_request import SlotRequest


class RandomTwo:
    """`chance` gives numbers in [0, 1)."""

    learns = False

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance

    def choose(self, free: Sequence[C], slot_request: SlotRequest, among: Sequence[C]) -> C:  # noqa: ARG002 - a Balancer's promise
        """The emptier of two different ones."""
        first = int(self._chance() * len(free))
        second = (first + 1 + int(self._chance() * (len(free) - 1))) % len(free)
        return emptiest((free[first], free[second]))

    def took(self, slot_request: SlotRequest, backend: Candidate) -> None:
        """Nothing to learn."""
