"""Round robin: the free backend that comes next in the configuration's order."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.scheduling.balancers.base import C, Candidate
from gateway.scheduling.slot_request import SlotRequest


class RoundRobin:
    """Remembers where the round is, also over requests that had no choice."""

    learns = True

    def __init__(self) -> None:
        self._last = -1

    def choose(self, free: Sequence[C], slot_request: SlotRequest, among: Sequence[C]) -> C:  # noqa: ARG002 - a Balancer's promise
        """The next in order, from the beginning after the last."""
        return min(free, key=lambda state: (state.place <= self._last, state.place))

    def took(self, slot_request: SlotRequest, backend: Candidate) -> None:  # noqa: ARG002 - a Balancer's promise
        """Move the round on."""
        self._last = backend.place
