"""Removes the newline and the blank that ChatGLM3 and GLM-4 write before an answer."""

from __future__ import annotations


class LeadingWhitespace:
    """Removes leading whitespace from one answer, however the answer is split into pieces. One per answer."""

    def __init__(self, expected: str = "\n ") -> None:
        self._expected = expected

    def strip(self, piece: str) -> str:
        """Return the next piece without the leading whitespace that is still expected."""
        while piece and self._expected:
            if piece[0] != self._expected[0]:
                self._expected = ""
                break
            piece, self._expected = piece[1:], self._expected[1:]
        return piece


def without_lead(text: str) -> str:
    """Return a complete answer without its leading whitespace."""
    return LeadingWhitespace().strip(text)
