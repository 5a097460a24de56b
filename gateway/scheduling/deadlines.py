"""The time-outs of one attempt, and the error that each expired time-out raises."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from gateway.errors import FirstTokenTimeout, StallTimeout, TotalTimeout, UpstreamTimeout


@dataclass(frozen=True, slots=True)
class DeadlineLimits:
    """The time-outs of one attempt, in seconds, as set in config.toml."""

    connect: float
    first_token: float
    between_tokens: float
    total: float


class Deadlines:
    """The deadlines of one attempt, checked against a monotonic clock that the caller reads.

    `connect` is the time allowed to open a connection, in seconds. `opening` is the time at which waiting
    for the first content ends. `pause` is the longest time between two pieces of content, in seconds. `end`
    is the time at which the whole attempt ends. If the backend does not stream (`streams` is false), it
    sends nothing until its answer is complete, so only `end` applies.

    Only content counts. Other bytes (comments, empty pieces, single bytes of a frame) do not move the
    deadlines. `silent` is the time spent waiting for the backend since the last content, in seconds. It
    does not include time during which the gateway was not reading because the client was slow.
    """

    def __init__(self, limits: DeadlineLimits, began: float, streams: bool) -> None:
        self.connect, self.pause = limits.connect, limits.between_tokens
        self._limits = limits
        self._began = began
        self.end = began + limits.total
        self._first = began + limits.first_token if streams else self.end
        self.opening = min(self.end, self._first)
        self.silent = 0.0
        self._since = math.inf  # when the current wait began; infinity while nobody waits

    @property
    def total(self) -> float:
        """The time allowed for the whole attempt, in seconds."""
        return self._limits.total

    def doubled(self) -> Deadlines:
        """Return deadlines for an answer that no client waits for, but whose end frees the GPU.

        Only the total time-out applies, and it is doubled: without a client, a silence longer than the
        first-token time-out is acceptable.
        """
        limits = replace(self._limits, total=2 * self._limits.total)
        return Deadlines(limits, self._began, streams=False)

    def deadline(self, now: float, *, begun: bool) -> float:
        """Return the time at which the wait that starts at `now` ends.

        `begun` is true if the backend has already sent content.
        """
        if begun:
            self._since = now
            return min(self.end, now + self.pause - self.silent)
        return self.opening

    def content(self) -> None:
        """Record that the backend has sent content."""
        self.silent = 0.0
        self._since = math.inf

    def nothing(self, now: float, *, begun: bool) -> None:
        """Record that the backend has sent bytes without content.

        Raises the `UpstreamTimeout` of a deadline that has passed.
        """
        if now > self._since:
            self.silent += now - self._since
        self._since = math.inf
        if now >= self.end or (self.silent >= self.pause if begun else now >= self.opening):
            raise self.error(now, begun=begun)

    def flowed(self, now: float, heard: float) -> float:
        """Record a wait that ended at `now` and in which content last arrived at `heard`.

        Returns the time at which that wait would have timed out.
        """
        self.silent = max(0.0, now - heard)
        self._since = math.inf
        return min(self.end, heard + self.pause)

    def error(self, deadline: float, *, begun: bool) -> UpstreamTimeout:
        """Return the error for passing `deadline`."""
        if deadline >= self.end:
            return TotalTimeout(f"The backend did not finish within {self._limits.total:g} s.")
        if begun:
            return StallTimeout(f"The backend's stream paused for {self.pause:g} s.")
        return FirstTokenTimeout(f"The backend sent nothing within {self._limits.first_token:g} s.")
