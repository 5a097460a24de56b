"""Least busy: the default. The emptiest backend, fast ones first, ties in turn."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.scheduling.balancers.base import C, Candidate, emptiest
from gateway.scheduling.slot_request import SlotRequest


class LeastBusy:
    """Knows nothing but what it sees."""

    learns = False

    def choose(self, free: Sequence[C], slot_request: SlotRequest, among: Sequence[C]) -> C:  # noqa: ARG002 - a Balancer's promise
        """The emptiest."""
        return emptiest(free)

    def took(self, slot_request: SlotRequest, backend: Candidate) -> None:
        """Nothing to learn."""
