"""Session: send the requests of one session to the same backend, whose cache holds the conversation."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from hashlib import blake2b

from gateway.scheduling.balancers.base import C, Candidate, emptiest
from gateway.scheduling.slot_request import SlotRequest

POINTS = 64
"""Number of points per backend on the hash ring. Many points give each backend about the same number of
sessions."""
MOST_RINGS = 32
"""Maximum number of hash rings kept. There is one ring for each set of backends that requests may use."""


class Ring:
    """A consistent-hashing ring: adding or removing a backend moves only the sessions of that backend."""

    def __init__(self, names: Sequence[str]) -> None:
        points = sorted((_hash(f"{name}\0{point}"), name) for name in names for point in range(POINTS))
        self._hashes = [point for point, _ in points]
        self._names = [name for _, name in points]

    def order(self, key: str) -> list[str]:
        """Return all backends in order of preference for `key`, the home backend first."""
        start = bisect(self._hashes, _hash(key))
        return list(dict.fromkeys(self._names[start:] + self._names[:start]))


class Session:
    """Maps a session to its home backend; all gateways with the same backends use the same mapping.

    If the home backend is unavailable, the session uses the next backend on the ring. If the home backend
    is only busy, the request goes to the least busy backend.
    """

    learns = False

    def __init__(self) -> None:
        self._rings: dict[tuple[str, ...], Ring] = {}

    def choose(self, free: Sequence[C], slot_request: SlotRequest, among: Sequence[C]) -> C:
        """Choose the session's home backend if it is free, else the least busy backend."""
        if slot_request.affinity:
            states = {state.name: state for state in among}
            for name in self._ring(slot_request.backends).order(slot_request.affinity):
                state = states.get(name)
                if state is not None and state in free:
                    return state
                if state is not None and state.usable:
                    break
        return emptiest(free)

    def took(self, slot_request: SlotRequest, backend: Candidate) -> None:
        """Do nothing: the mapping does not depend on earlier requests."""

    def _ring(self, backends: tuple[str, ...]) -> Ring:
        if (ring := self._rings.get(backends)) is None:
            if len(self._rings) >= MOST_RINGS:
                self._rings.clear()
            ring = self._rings[backends] = Ring(backends)
        return ring


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest())
