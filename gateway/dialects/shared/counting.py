"""Estimates P, the number of prompt tokens after the model's own template has been applied.

Source: the templates in ChatGLM-6B's, ChatGLM2's and ChatGLM3's model code.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.dialects.shared.folding import FoldedConversation
from gateway.formats import jsontext, token_counts

ROUND = 14
"""Number of tokens of the labels of one round, on ChatGLM-6B and ChatGLM2."""
PREFIX = 2
"""Number of tokens that these models put before every prompt."""
ROLE = 3
"""Number of tokens of a message's role, and of the start of the answer, from ChatGLM3 on."""


def count_bare(folded: FoldedConversation, cjk: int) -> int:
    """Return P on ChatGLM-6B, where a first question has no label and later questions are labelled rounds."""
    count = PREFIX + token_counts.estimate(folded.prompt.text, cjk)
    if folded.pairs:
        count += ROUND * (len(folded.pairs) + 1)
    for question, answer in folded.pairs:
        count += token_counts.estimate(question.text, cjk) + token_counts.estimate(answer.text, cjk)
    return count


def count_rounds(folded: FoldedConversation, cjk: int) -> int:
    """Return P on ChatGLM2, where every question is a labelled round, including the first and the last."""
    count = PREFIX + ROUND * (len(folded.pairs) + 1) + token_counts.estimate(folded.prompt.text, cjk)
    for question, answer in folded.pairs:
        count += token_counts.estimate(question.text, cjk) + token_counts.estimate(answer.text, cjk)
    return count


def count_messages(texts: Iterable[str], tools: list[dict[str, Any]] | None = None) -> int:
    """Return P from ChatGLM3 on, where every message has a role, and tools are included as JSON."""
    count = ROLE + sum(ROLE + token_counts.estimate(text) for text in texts)
    return count + token_counts.estimate(jsontext.write(tools).decode()) if tools else count
