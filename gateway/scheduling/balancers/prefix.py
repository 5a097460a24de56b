"""Prefix: a request goes to the card that last saw the longest beginning of it, if that is free."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from gateway.scheduling.balancers.base import C, Candidate, emptiest
from gateway.scheduling.slot_request import SlotRequest

MOST = 16_384
"""Beginnings remembered for a model; those not seen for longest are forgotten."""


class Prefix:
    """Remembers for hashes of beginnings which backend saw them last. Bounded by `most` of them."""

    learns = True

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._seen: OrderedDict[bytes, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def choose(self, free: Sequence[C], slot_request: SlotRequest, among: Sequence[C]) -> C:  # noqa: ARG002 - a Balancer's promise
        """The free backend that knows most of it, else the emptiest."""
        seen = self._seen
        for beginning in reversed(slot_request.prefix):
            name = seen.get(beginning)
            if name is not None:
                for state in free:
                    if state.name == name:
                        return state
        return emptiest(free)

    def took(self, slot_request: SlotRequest, backend: Candidate) -> None:
        """Remember who has all beginnings of this request now."""
        seen = self._seen
        for beginning in slot_request.prefix:
            seen[beginning] = backend.name
            seen.move_to_end(beginning)
        while len(seen) > self._most:
            seen.popitem(last=False)
