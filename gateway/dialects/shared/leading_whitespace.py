"""The newline and the blank that ChatGLM3 and GLM-4 write before an answer, which no client asked for."""

from __future__ import annotations


class LeadingWhitespace:
    """Removes the lead from one answer, however its pieces are cut. One per answer."""

    def __init__(self, expected: str = "\n ") -> None:
        self._expected = expected

    def strip(self, piece: str) -> str:
        """The piece without what is left of the lead."""
        while piece and self._expected:
            if piece[0] != self._expected[0]:
                self._expected = ""
                break
            piece, self._expected = piece[1:], self._expected[1:]
        return piece


def without_lead(text: str) -> str:
    """A whole answer without its lead."""
    return LeadingWhitespace().strip(text)
