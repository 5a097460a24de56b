"""The record of one shadow copy and of the answer that its caller got: measurements only, no text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

Skip: TypeAlias = Literal["busy", "full", "unfit", "unanswered", "gave_way", "shutdown"]
"""Why a copy was not made or not completed; see docs/canary.md."""


@dataclass(frozen=True, slots=True)
class ComparedAnswer:
    """The measurements of one of the two answers.

    Times are seconds since the slot was granted; None means that the event did not happen. `outcome` is
    "ok" or an outcome of the error table. `characters` is the total length of the text of all choices.
    """

    backend: str
    outcome: str
    finish: str
    characters: int
    first_token: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A copy that has run, with the caller's answer.

    `same_text` is true if both texts are equal except for white space, and None if that is unknown.
    """

    request_id: str
    model: str
    shadow: str
    caller: ComparedAnswer
    copy: ComparedAnswer
    same_text: bool | None

    @property
    def both_answered(self) -> bool:
        """True if both answers are complete."""
        return self.caller.outcome == self.copy.outcome == "ok"


class Observer(Protocol):
    """Receives the records of shadow copies. Its methods never block and never raise."""

    def shadowed(self, comparison: Comparison) -> None:
        """Record a copy that has run and the answer that its caller got."""

    def shadow_skipped(self, model: str, shadow: str, reason: Skip) -> None:
        """Record that a copy of a request to `model` was not sent to `shadow`, or not completed."""
