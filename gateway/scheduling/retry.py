"""Whether a failed try may be repeated on another backend: one decision over plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Verdict: TypeAlias = Literal["retry", "content_sent", "not_retryable", "attempts_spent", "budget_spent"]

FLOOR = 10.0
"""Retries that are always allowed before the share counts, so that a quiet gateway can retry at all."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A try that failed: may its kind be retried, had content gone out, and which try was it (from 1)."""

    retryable: bool
    content_sent: bool
    attempt: int


class Budget:
    """How many retries the last requests have earned: each request `share` of one, up to `FLOOR` saved.

    Bounds the amplification when every backend fails: no storm of second tries on top of the first.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._saved = FLOOR

    @property
    def saved(self) -> float:
        """Retries that may be made now."""
        return self._saved

    def reconfigure(self, share: float) -> None:
        """Earn another share from now on."""
        self._share = share

    def earn(self) -> None:
        """Count one request."""
        self._saved = min(FLOOR, self._saved + self._share)

    def spend(self) -> bool:
        """Take one retry, if there is one."""
        if self._saved < 1:
            return False
        self._saved -= 1
        return True


def decide(failure: Failure, attempts: int, budget: Budget) -> Verdict:
    """Say whether to try again; `attempts` is the number of tries allowed in all."""
    if failure.content_sent:
        return "content_sent"
    if not failure.retryable:
        return "not_retryable"
    if failure.attempt >= attempts:
        return "attempts_spent"
    return "retry" if budget.spend() else "budget_spent"
