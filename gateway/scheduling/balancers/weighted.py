"""Weighted: give each backend requests in proportion to its weight, as far as it is free."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.scheduling.balancers.base import C, Candidate
from gateway.scheduling.slot_request import SlotRequest


class Weighted:
    """Weighted fair turns: the backend with the lowest tag is next, and its tag then rises by 1 / weight.

    A backend that was busy or unavailable continues at the current clock. It does not receive a burst of
    requests to catch up.
    """

    learns = False

    def __init__(self) -> None:
        self._tags: dict[str, float] = {}
        self._clock = 0.0

    def choose(self, free: Sequence[C], slot_request: SlotRequest, among: Sequence[C]) -> C:  # noqa: ARG002 - the signature of `Balancer`
        """Choose the free backend with the lowest tag."""
        tags, clock = self._tags, self._clock
        chosen = min(free, key=lambda state: (max(tags.get(state.name, 0.0), clock), state.granted))
        self._clock = tag = max(tags.get(chosen.name, 0.0), clock)
        tags[chosen.name] = tag + 1 / (chosen.weight * chosen.share)
        return chosen

    def took(self, slot_request: SlotRequest, backend: Candidate) -> None:
        """Do nothing: tags change only when there was a choice between backends."""
