"""Prefix: prefer the backend that last received the longest prefix of this prompt, if it is free."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from gateway.scheduling.balancers.base import C, Candidate, emptiest
from gateway.scheduling.slot_request import SlotRequest

MOST = 16_384
"""Maximum number of prefix hashes remembered per model. The least recently used hashes are dropped."""


class Prefix:
    """Remembers which backend last received each prompt prefix, for at most `most` prefixes."""

    learns = True

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._seen: OrderedDict[bytes, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def choose(self, free: Sequence[C], slot_request: SlotRequest, among: Sequence[C]) -> C:  # noqa: ARG002 - the signature of `Balancer`
        """Choose the free backend that received the longest known prefix, else the least busy backend."""
        seen = self._seen
        for beginning in reversed(slot_request.prefix):
            name = seen.get(beginning)
            if name is not None:
                for state in free:
                    if state.name == name:
                        return state
        return emptiest(free)

    def took(self, slot_request: SlotRequest, backend: Candidate) -> None:
        """Remember this backend for all prefixes of the request."""
        seen = self._seen
        for beginning in slot_request.prefix:
            seen[beginning] = backend.name
            seen.move_to_end(beginning)
        while len(seen) > self._most:
            seen.popitem(last=False)
