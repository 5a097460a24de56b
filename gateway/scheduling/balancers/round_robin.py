"""Round robin: the next free backend in configuration order."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.scheduling.balancers.base import C, Candidate
from gateway.scheduling.slot_request import SlotRequest


class RoundRobin:
    """Remembers the last backend used, including those used by requests that had only one free backend."""

    learns = True

    def __init__(self) -> None:
        self._last = -1

    def choose(self, free: Sequence[C], slot_request: SlotRequest, among: Sequence[C]) -> C:  # noqa: ARG002 - the signature of `Balancer`
        """Choose the next free backend after the last one used; wrap around at the end."""
        return min(free, key=lambda state: (state.place <= self._last, state.place))

    def took(self, slot_request: SlotRequest, backend: Candidate) -> None:  # noqa: ARG002 - the signature of `Balancer`
        """Remember this backend as the last one used."""
        self._last = backend.place
