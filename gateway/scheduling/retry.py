"""What becomes of a request whose try has failed: another try, another model, or the end. Pure decisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from gateway.errors import ContextExceeded, GatewayError, NoBackend, QueueFull, QueueTimeout

Cause: TypeAlias = Literal["outage", "context"]
"""Why a request goes to another model: this one cannot answer now, or its context is too short."""

WINDOW = 10
"""Seconds over which retries are held against requests."""
LEAST = 10.0
"""Retries a second that are allowed whatever the share, so that a quiet gateway can retry at all."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A try that failed: may its kind be retried, had content gone out, and which try was it (from 1)."""

    retryable: bool
    content_sent: bool
    attempt: int


class RetryBudget:
    """How many retries there may be: of the last `WINDOW` seconds' requests `share`, and `least` a second.

    Bounds the amplification when every backend fails: no storm of second tries on top of the first. Counts
    whole seconds, the current one included; times are monotonic and in seconds.
    """

    __slots__ = ("_requests", "_retries", "_second", "_share", "_spare")

    def __init__(self, share: float, least: float = LEAST) -> None:
        self._share = share
        self._spare = least * WINDOW
        self._requests = [0] * WINDOW
        self._retries = [0] * WINDOW
        self._second = 0

    def reconfigure(self, share: float, least: float) -> None:
        """Allow another share, and another number a second, from now on."""
        self._share = share
        self._spare = least * WINDOW

    def earn(self, now: float) -> None:
        """Count one request."""
        second = int(now)
        if second != self._second:
            self._move_on(second)
        self._requests[second % WINDOW] += 1

    def left(self, now: float) -> float:
        """Retries that may be made now, at least 0."""
        self._move_on(int(now))
        return max(0.0, self._spare + self._share * sum(self._requests) - sum(self._retries))

    def spend(self, now: float) -> bool:
        """Take one retry, if there is one."""
        if self.left(now) < 1:
            return False
        self._retries[self._second % WINDOW] += 1
        return True

    def _move_on(self, second: int) -> None:
        for passed in range(max(self._second + 1, second - WINDOW + 1), second + 1):
            self._requests[passed % WINDOW] = self._retries[passed % WINDOW] = 0
        self._second = second

    def __repr__(self) -> str:
        return f"<RetryBudget {sum(self._retries)} retries of {sum(self._requests)} requests>"


def may_retry(failure: Failure, attempts: int, budget: RetryBudget, now: float) -> bool:
    """Return whether another attempt may be made, and take it from the budget if so.

    `attempts` is the number of attempts allowed in all; `now` is in monotonic seconds.
    """
    if failure.content_sent or not failure.retryable or failure.attempt >= attempts:
        return False
    return budget.spend(now)


def cause(error: GatewayError) -> Cause | None:
    """Say which other models may help where this one has failed for good; None where none may.

    A refusal stays one: what one model must not answer, such as filtered content, no other is asked for.
    """
    if isinstance(error, ContextExceeded):
        return "context"
    if isinstance(error, NoBackend | QueueFull | QueueTimeout) or error.row.retryable or error.row.blames:
        return "outage"
    return None
