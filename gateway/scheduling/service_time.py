"""A moving average of how long answers take, used to estimate waiting times."""

from __future__ import annotations

import math

UNKNOWN = 10.0
"""Assumed duration of an answer before any was measured, in seconds."""
WEIGHT = 0.2
"""Weight of the newest answer in the moving average."""
LONGEST = 600
"""Upper limit of Retry-After, in seconds."""


class ServiceTime:
    """The average time for which one answer holds a slot, in seconds."""

    def __init__(self) -> None:
        self._mean: float | None = None

    def learn(self, seconds: float) -> None:
        """Add the duration of one complete answer to the average."""
        self._mean = seconds if self._mean is None else self._mean + WEIGHT * (seconds - self._mean)

    @property
    def mean(self) -> float:
        """The average duration of an answer, in seconds; `UNKNOWN` before any was measured."""
        return UNKNOWN if self._mean is None else self._mean

    def wait(self, position: int, slots: int) -> float:
        """Return the estimated seconds until the request at `position` (from 1) gets one of `slots` slots."""
        return math.ceil(position / max(1, slots)) * self.mean

    def retry_after(self, position: int, slots: int) -> int:
        """Return `wait` in whole seconds for a Retry-After header, from 1 to `LONGEST`."""
        return max(1, min(LONGEST, math.ceil(self.wait(position, slots))))
