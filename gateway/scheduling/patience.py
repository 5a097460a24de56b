"""How long to wait for the next bytes of an answer, and what it means when they do not come."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gateway.errors import FirstTokenTimeout, StallTimeout, TotalTimeout, UpstreamTimeout


@dataclass(frozen=True, slots=True)
class Limits:
    """The time-outs of one try, in seconds, as in config.toml."""

    connect: float
    first_token: float
    between_tokens: float
    total: float


class Patience:
    """The limits of one try, held against a clock that the caller reads.

    `connect`: the seconds to open a connection; `opening`: when waiting for content ends; `pause`: the
    seconds between two pieces of content; `end`: when all waiting ends. A server that answers whole
    (`streams` false) is silent until it has finished: for it only that counts.
    """

    def __init__(self, limits: Limits, began: float, streams: bool) -> None:
        self.connect, self.pause = limits.connect, limits.between_tokens
        self._limits = limits
        self._began = began
        self.end = began + limits.total
        self._first = began + limits.first_token if streams else self.end
        self._streams = streams
        self.opening = min(self.end, self._first)

    @property
    def total(self) -> float:
        """The time for the whole try, in seconds."""
        return self._limits.total

    def doubled(self) -> Patience:
        """Patience for an answer that nobody waits for any more, but whose end frees a card."""
        limits = replace(self._limits, total=2 * self._limits.total)
        return Patience(limits, self._began, streams=self._streams)

    def deadline(self, now: float, *, begun: bool) -> float:
        """When waiting for the next bytes ends; `begun` tells whether content has come."""
        if begun:
            return min(self.end, now + self.pause)
        return self.opening

    def error(self, deadline: float, *, begun: bool) -> UpstreamTimeout:
        """Say what passing `deadline` means."""
        if deadline >= self.end:
            return TotalTimeout(f"The backend did not finish within {self._limits.total:g} s.")
        if begun:
            return StallTimeout(f"The backend's stream paused for {self.pause:g} s.")
        return FirstTokenTimeout(f"The backend sent nothing within {self._limits.first_token:g} s.")
