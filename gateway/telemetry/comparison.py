"""The record of one copy beside the answer that its caller got: all that is kept of either, and no text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

Skip: TypeAlias = Literal["busy", "full", "unfit", "unanswered", "gave_way", "shutdown"]
"""Why a copy was not made, or not to its end: see docs/canary.md."""


@dataclass(frozen=True, slots=True)
class ComparedAnswer:
    """One of the two answers. Seconds count from the slot on; None: it never came to that.

    `outcome` is "ok" or an outcome of the error table; `characters` are those of the texts of all choices.
    """

    backend: str
    outcome: str
    finish: str
    characters: int
    first_token: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A copy that has run. `same_text`: whether both say the same but for blanks; None: not known."""

    request_id: str
    model: str
    shadow: str
    caller: ComparedAnswer
    copy: ComparedAnswer
    same_text: bool | None

    @property
    def both_answered(self) -> bool:
        """Whether there are two whole answers."""
        return self.caller.outcome == self.copy.outcome == "ok"


class Observer(Protocol):
    """Somebody who is told of copies. Methods never block and never raise."""

    def shadowed(self, comparison: Comparison) -> None:
        """Take note of a copy that has run, beside the answer that its caller got."""

    def shadow_skipped(self, model: str, shadow: str, reason: Skip) -> None:
        """Take note of a copy of a request to `model` that its `shadow` did not get, or not to its end."""
