"""Prefix: a request goes to the card that last saw the longest beginning of it, if that is free."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from gateway.scheduling.balancers.base import C, Candidate, emptiest
from gateway.scheduling.claim import Claim

MOST = 16_384
"""Beginnings remembered for a model; those not seen for longest are forgotten."""
LONGEST = 32
"""Most beginnings of one request that are looked at."""


class Prefix:
    """Remembers for hashes of beginnings which backend saw them last. Bounded by `most` of them."""

    learns = True

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._seen: OrderedDict[bytes, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def choose(self, free: Sequence[C], claim: Claim, among: Sequence[C]) -> C:  # noqa: ARG002 - a Balancer's promise
        """The free backend that knows most of it, else the emptiest."""
        seen = self._seen
        for beginning in reversed(claim.prefix):
            name = seen.get(beginning)
            if name is not None:
                for state in free:
                    if state.name == name:
                        return state
        return emptiest(free)

    def took(self, claim: Claim, backend: Candidate) -> None:
        """Remember who has all beginnings of this request now."""
        seen = self._seen
        for beginning in claim.prefix:
            seen[beginning] = backend.name
            seen.move_to_end(beginning)
        while len(seen) > self._most:
            seen.popitem(last=False)


def chain(parts: Iterable[bytes]) -> tuple[bytes, ...]:
    """The hashes of the beginnings of a chat, each of its first `LONGEST` messages with all before it.

    A message's bytes stand for themselves; two chats share a hash only if they begin alike.
    """
    found: list[bytes] = []
    before = b""
    for part in parts:
        if len(found) == LONGEST:
            break
        before = blake2b(before + part, digest_size=16).digest()
        found.append(before)
    return tuple(found)
