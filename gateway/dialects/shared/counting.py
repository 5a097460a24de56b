"""P: how many tokens a conversation has once a model's own template is around it (estimates).

Source: the templates in ChatGLM-6B's, ChatGLM2's and ChatGLM3's model code.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.dialects.shared.folding import FoldedConversation
from gateway.formats import jsontext, token_counts

ROUND = 14
"""Tokens that the labels of one round cost, on ChatGLM-6B and ChatGLM2."""
PREFIX = 2
"""Tokens these models put before every prompt."""
ROLE = 3
"""Tokens that a message's role costs, and the opening of the answer, from ChatGLM3 on."""


def count_bare(folded: FoldedConversation, cjk: int) -> int:
    """P on ChatGLM-6B, where a first question stands bare and only later ones are rounds."""
    count = PREFIX + token_counts.estimate(folded.prompt.text, cjk)
    if folded.pairs:
        count += ROUND * (len(folded.pairs) + 1)
    for question, answer in folded.pairs:
        count += token_counts.estimate(question.text, cjk) + token_counts.estimate(answer.text, cjk)
    return count


def count_rounds(folded: FoldedConversation, cjk: int) -> int:
    """P on ChatGLM2, where every question is a labelled round, the first and the last included."""
    count = PREFIX + ROUND * (len(folded.pairs) + 1) + token_counts.estimate(folded.prompt.text, cjk)
    for question, answer in folded.pairs:
        count += token_counts.estimate(question.text, cjk) + token_counts.estimate(answer.text, cjk)
    return count


def count_messages(texts: Iterable[str], tools: list[dict[str, Any]] | None = None) -> int:
    """P from ChatGLM3 on, where every message has its role, and the tools stand in it as JSON."""
    count = ROLE + sum(ROLE + token_counts.estimate(text) for text in texts)
    return count + token_counts.estimate(jsontext.write(tools).decode()) if tools else count
