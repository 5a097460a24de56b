"""How long to wait for the next bytes of an answer, and what it means when they do not come."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from gateway.errors import FirstTokenTimeout, StallTimeout, TotalTimeout, UpstreamTimeout


@dataclass(frozen=True, slots=True)
class DeadlineLimits:
    """The time-outs of one try, in seconds, as in config.toml."""

    connect: float
    first_token: float
    between_tokens: float
    total: float


class Deadlines:
    """The limits of one try, held against a clock that the caller reads.

    `connect`: the seconds to open a connection; `opening`: when waiting for content ends; `pause`: the
    seconds between two pieces of content; `end`: when all waiting ends. A server that answers whole
    (`streams` false) is silent until it has finished: for it only that counts.

    Only content counts: what else a server sends (comments, empty pieces, single bytes) does not move the
    limits. `silent` is the time waited since the last content; time in which nobody waited, as a client took
    slowly, is no part of it.
    """

    def __init__(self, limits: DeadlineLimits, began: float, streams: bool) -> None:
        self.connect, self.pause = limits.connect, limits.between_tokens
        self._limits = limits
        self._began = began
        self.end = began + limits.total
        self._first = began + limits.first_token if streams else self.end
        self.opening = min(self.end, self._first)
        self.silent = 0.0
        self._since = math.inf  # when the present waiting began

    @property
    def total(self) -> float:
        """The time for the whole try, in seconds."""
        return self._limits.total

    def doubled(self) -> Deadlines:
        """Return deadlines for an answer that no client waits for, but whose end frees the GPU.

        Only the limit of the whole try counts, twice as long: such a card may be silent for longer than a
        client would wait for the first token.
        """
        limits = replace(self._limits, total=2 * self._limits.total)
        return Deadlines(limits, self._began, streams=False)

    def deadline(self, now: float, *, begun: bool) -> float:
        """When waiting for the next bytes, which begins now, ends; `begun`: whether content has come."""
        if begun:
            self._since = now
            return min(self.end, now + self.pause - self.silent)
        return self.opening

    def content(self) -> None:
        """Take note that content has come."""
        self.silent = 0.0
        self._since = math.inf

    def nothing(self, now: float, *, begun: bool) -> None:
        """Take note that something came without content. Raises the error of a limit that has passed."""
        if now > self._since:
            self.silent += now - self._since
        self._since = math.inf
        if now >= self.end or (self.silent >= self.pause if begun else now >= self.opening):
            raise self.error(now, begun=begun)

    def flowed(self, now: float, heard: float) -> float:
        """Take note of a wait that ended now, with content at `heard`; say when it would have ended."""
        self.silent = max(0.0, now - heard)
        self._since = math.inf
        return min(self.end, heard + self.pause)

    def error(self, deadline: float, *, begun: bool) -> UpstreamTimeout:
        """Say what passing `deadline` means."""
        if deadline >= self.end:
            return TotalTimeout(f"The backend did not finish within {self._limits.total:g} s.")
        if begun:
            return StallTimeout(f"The backend's stream paused for {self.pause:g} s.")
        return FirstTokenTimeout(f"The backend sent nothing within {self._limits.first_token:g} s.")
