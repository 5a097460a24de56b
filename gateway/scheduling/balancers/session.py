"""Session: the requests of one session go to one card, whose cache knows the conversation; if it is free."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from hashlib import blake2b

from gateway.scheduling.balancers.base import C, Candidate, emptiest
from gateway.scheduling.slot_request import SlotRequest

POINTS = 64
"""Points of a backend on the ring, so that each is home to about as many sessions as the others."""
MOST_RINGS = 32
"""Rings kept at a time: one for each set of backends that requests come with."""


class Ring:
    """Consistent hashing: a backend more or less moves only the sessions that it gains or loses."""

    def __init__(self, names: Sequence[str]) -> None:
        points = sorted((_hash(f"{name}\0{point}"), name) for name in names for point in range(POINTS))
        self._hashes = [point for point, _ in points]
        self._names = [name for _, name in points]

    def order(self, key: str) -> list[str]:
        """All backends, the session's home first, then where it would move, and so on."""
        start = bisect(self._hashes, _hash(key))
        return list(dict.fromkeys(self._names[start:] + self._names[:start]))


class Session:
    """Every gateway with the same backends sends a session to the same one.

    While its home cannot be asked at all, a session has another, always the same. While its home is only
    busy, its request goes to the emptiest.
    """

    learns = False

    def __init__(self) -> None:
        self._rings: dict[tuple[str, ...], Ring] = {}

    def choose(self, free: Sequence[C], slot_request: SlotRequest, among: Sequence[C]) -> C:
        """The session's home if it is free, else the emptiest."""
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
        """Nothing to learn."""

    def _ring(self, backends: tuple[str, ...]) -> Ring:
        if (ring := self._rings.get(backends)) is None:
            if len(self._rings) >= MOST_RINGS:
                self._rings.clear()
            ring = self._rings[backends] = Ring(backends)
        return ring


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest())
