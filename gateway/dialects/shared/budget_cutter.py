"""Cuts an answer at its token budget, for servers that accept no limit.

Tokens are estimated by `formats.token_counts` over the whole text and not over its pieces. The cut is
therefore at the same place however the text is split into pieces. The cut is between user-perceived
characters: a letter keeps its combining marks and an emoji its joiners, even if they are a few tokens over
the budget.
"""

from __future__ import annotations

import unicodedata

from gateway.formats import token_counts

MOST_MARKS = 16
"""Maximum number of tokens of combining marks that may exceed the budget."""

_JOINERS = frozenset("\u200c\u200d\ufe0e\ufe0f")


class BudgetCutter:
    """Keeps one answer within `budget` tokens. One per answer.

    `full` is True once text has been cut off. No more text is accepted then.
    """

    def __init__(self, budget: int | None, cjk: int) -> None:
        self.full = False
        self._budget = budget
        self._cjk = cjk
        self._kept: list[str] = []
        self._at_most = 0

    @property
    def counted(self) -> int:
        """The estimated number of tokens of the text that was kept."""
        return token_counts.estimate("".join(self._kept), self._cjk)

    def take(self, text: str) -> str:
        """Return the part of the next piece that is within the budget."""
        if self.full or not text:
            return ""
        kept = text if self._fits(text) else self._cut(text)
        self.full = len(kept) < len(text)
        self._kept.append(kept)
        return kept

    def _fits(self, text: str) -> bool:
        if self._budget is None:
            return True
        # Every estimate is rounded up, so the sum over the pieces is never too low. The whole text is only
        # counted once that sum exceeds the budget.
        self._at_most += token_counts.estimate(text, self._cjk)
        if self._at_most > self._budget:
            self._at_most = self._count(text)
        return self._at_most <= self._budget

    def _cut(self, text: str) -> str:
        end = self._longest(text, self._budget or 0)
        limit = self._longest(text, (self._budget or 0) + MOST_MARKS)
        before = text[end - 1] if end else self._last()
        while end < limit and before and continues(before, text[end]):
            before = text[end]
            end += 1
        return text[:end]

    def _longest(self, text: str, budget: int) -> int:
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._count(text[:middle]) <= budget else (low, middle - 1)
        return low

    def _count(self, text: str) -> int:
        return token_counts.estimate("".join([*self._kept, text]), self._cjk)

    def _last(self) -> str:
        return next((piece[-1] for piece in reversed(self._kept) if piece), "")


def continues(before: str, char: str) -> bool:
    """Return True if `char` belongs to the same user-perceived character as the code point `before` it."""
    return (
        char in _JOINERS
        or before == "\u200d"
        or unicodedata.category(char) in ("Mn", "Mc", "Me")
        or "\U0001f3fb" <= char <= "\U0001f3ff"  # skin tones of emoji
    )
