"""Weighted: over time every backend gets requests in proportion to its weight, as far as it is free."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.scheduling.balancers.base import C, Candidate
from gateway.scheduling.slot_request import SlotRequest


class Weighted:
    """Turns by weight, as in the queue: the backend with the lowest tag, which then rises by 1 / weight.

    One that was busy or away begins where the others are: it is not flooded to catch up.
    """

    learns = False

    def __init__(self) -> None:
        self._tags: dict[str, float] = {}
        self._clock = 0.0

    def choose(self, free: Sequence[C], slot_request: SlotRequest, among: Sequence[C]) -> C:  # noqa: ARG002 - a Balancer's promise
        """The one whose turn it is."""
        tags, clock = self._tags, self._clock
        chosen = min(free, key=lambda state: (max(tags.get(state.name, 0.0), clock), state.granted))
        self._clock = tag = max(tags.get(chosen.name, 0.0), clock)
        tags[chosen.name] = tag + 1 / (chosen.weight * chosen.share)
        return chosen

    def took(self, slot_request: SlotRequest, backend: Candidate) -> None:
        """Nothing to learn: without a choice there was no turn."""
