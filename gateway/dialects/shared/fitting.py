"""Makes a conversation fit the context: it is trimmed or refused if it does not fit (rule T10).

Trimming removes the oldest exchanges as a whole: a question with everything that answered it. System texts
and the last question are never removed.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeAlias

from gateway.dialects.base import Profile
from gateway.dialects.shared import budget
from gateway.dialects.shared.folding import FoldedConversation, fold
from gateway.formats.openai import ChatRequest

Sent: TypeAlias = dict[str, Any]
"""One message as it is sent to a server: `role`, `content` and further members."""


def fold_to_fit(
    request: ChatRequest, profile: Profile, context: int, count: Callable[[FoldedConversation], int]
) -> tuple[FoldedConversation, int]:
    """Return the conversation folded into pairs that fit the context, and P as `count` estimates it.

    Raises `BadRequest` and `ContextExceeded`.
    """
    folded = fold(request, system=profile.system, leading_assistant=profile.leading_assistant)
    if profile.trim:
        dropped = budget.fewest_dropped(
            len(folded.pairs), lambda drop: budget.fits(count(folded.without_oldest(drop)), context)
        )
        folded = folded.without_oldest(dropped)
    prompt_tokens = count(folded)
    budget.require_room(prompt_tokens, context)
    return folded, prompt_tokens


def messages_to_fit(
    messages: list[Sent], profile: Profile, context: int, count: Callable[[list[Sent]], int]
) -> tuple[list[Sent], int]:
    """Return the messages that fit the context, and P as `count` estimates it.

    Raises `ContextExceeded`.
    """
    starts = [0, *exchanges(messages)] if profile.trim else [0]
    dropped = budget.fewest_dropped(
        len(starts) - 1, lambda drop: budget.fits(count(without_before(messages, starts[drop])), context)
    )
    kept = without_before(messages, starts[dropped])
    prompt_tokens = count(kept)
    budget.require_room(prompt_tokens, context)
    return kept, prompt_tokens


def exchanges(messages: list[Sent]) -> list[int]:
    """Return the start index of every exchange except the first.

    An exchange is a question with everything that answered it, calls included.
    """
    spoken = [place for place, message in enumerate(messages) if message["role"] != "system"]
    return [
        place
        for before, place in pairwise(spoken)
        if messages[place]["role"] == "user" and messages[before]["role"] != "user"
    ]


def without_before(messages: list[Sent], start: int) -> list[Sent]:
    """Return the messages from index `start` on, preceded by all earlier system messages."""
    return [message for message in messages[:start] if message["role"] == "system"] + messages[start:]


def as_messages(folded: FoldedConversation) -> list[Sent]:
    """Return the pairs as strictly alternating messages, with the question as the last message."""
    messages: list[Sent] = []
    for question, answer in folded.history:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return [*messages, {"role": "user", "content": folded.prompt.text}]
