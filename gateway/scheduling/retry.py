"""What happens after a failed attempt: another attempt, another model, or the end. Pure decisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from gateway.errors import ContextExceeded, GatewayError, NoBackend, QueueFull, QueueTimeout

Cause: TypeAlias = Literal["outage", "context"]
"""Why a request is sent to another model: this model is not available, or its context window is too short."""

WINDOW = 10
"""The time window over which retries are compared with requests, in seconds."""
LEAST = 10.0
"""Retries per second that are always allowed, so that a gateway with little traffic can retry at all."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed attempt.

    `retryable` is true if errors of this kind may be retried. `content_sent` is true if the client has
    already received content. `attempt` is the number of the attempt, from 1.
    """

    retryable: bool
    content_sent: bool
    attempt: int


class RetryBudget:
    """Limits the number of retries, so that a failure of all backends does not multiply the load.

    Over the last `WINDOW` seconds, `share` retries per request and `least` retries per second are allowed.
    Requests and retries are counted per whole second, and the current second is included. Times are
    monotonic seconds.
    """

    __slots__ = ("_requests", "_retries", "_second", "_share", "_spare")

    def __init__(self, share: float, least: float = LEAST) -> None:
        self._share = share
        self._spare = least * WINDOW
        self._requests = [0] * WINDOW
        self._retries = [0] * WINDOW
        self._second = 0

    def reconfigure(self, share: float, least: float) -> None:
        """Change the share and the number of retries per second from now on."""
        self._share = share
        self._spare = least * WINDOW

    def earn(self, now: float) -> None:
        """Count one request."""
        second = int(now)
        if second != self._second:
            self._move_on(second)
        self._requests[second % WINDOW] += 1

    def left(self, now: float) -> float:
        """Return how many retries may be made now, at least 0."""
        self._move_on(int(now))
        return max(0.0, self._spare + self._share * sum(self._requests) - sum(self._retries))

    def spend(self, now: float) -> bool:
        """Use one retry of the budget. Return False if there is none left."""
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
    """Return True if another attempt may be made; that attempt is then deducted from the budget.

    `attempts` is the total number of attempts allowed. `now` is in monotonic seconds.
    """
    if failure.content_sent or not failure.retryable or failure.attempt >= attempts:
        return False
    return budget.spend(now)


def cause(error: GatewayError) -> Cause | None:
    """Return why other models may be tried after the final error of this model; None if none may be.

    A refusal is final: if one model must not answer, for example because of a content filter, no other
    model is asked.
    """
    if isinstance(error, ContextExceeded):
        return "context"
    if isinstance(error, NoBackend | QueueFull | QueueTimeout) or error.row.retryable or error.row.blames:
        return "outage"
    return None
