"""How long answers take: a moving average, for telling how long a queue will last."""

from __future__ import annotations

import math

UNKNOWN = 10.0
"""Seconds assumed for an answer before any was measured."""
WEIGHT = 0.2
"""How much the newest answer counts."""
LONGEST = 600
"""The longest Retry-After that is told, in seconds."""


class ServiceTime:
    """The average time that one slot is held for one answer, in seconds."""

    def __init__(self) -> None:
        self._mean: float | None = None

    def learn(self, seconds: float) -> None:
        """Take note of one whole answer."""
        self._mean = seconds if self._mean is None else self._mean + WEIGHT * (seconds - self._mean)

    @property
    def mean(self) -> float:
        """Seconds for one answer."""
        return UNKNOWN if self._mean is None else self._mean

    def wait(self, position: int, slots: int) -> float:
        """Seconds until the `position`-th in the queue (from 1) gets one of `slots`."""
        return math.ceil(position / max(1, slots)) * self.mean

    def retry_after(self, position: int, slots: int) -> int:
        """The same as whole seconds for a Retry-After header, at least 1."""
        return max(1, min(LONGEST, math.ceil(self.wait(position, slots))))
