"""Least busy, the default policy: the backend with the lowest ratio of busy slots."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.scheduling.balancers.base import C, Candidate, emptiest
from gateway.scheduling.slot_request import SlotRequest


class LeastBusy:
    """A stateless policy that uses `emptiest`."""

    learns = False

    def choose(self, free: Sequence[C], slot_request: SlotRequest, among: Sequence[C]) -> C:  # noqa: ARG002 - the signature of `Balancer`
        """Choose the least busy backend."""
        return emptiest(free)

    def took(self, slot_request: SlotRequest, backend: Candidate) -> None:
        """Do nothing: this policy has no state."""
