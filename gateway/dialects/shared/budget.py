"""Lengths: how long an answer may be, whether it fits, and why it ended (rules T10 and T11).

ChatGLM's native servers count prompt, history and answer together in `max_length`; OpenAI's clients
count the answer alone. All counts here are estimates, so the prompt gets a margin of a tenth.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

from gateway.dialects.base import Profile
from gateway.errors import BadRequest, ContextExceeded
from gateway.formats.events import FinishReason
from gateway.formats.openai import ChatRequest


def wanted_output(request: ChatRequest, profile: Profile, prompt_tokens: int) -> int:
    """B: the answer's length in tokens that the client asked for, within the model's own limit.

    A native client counts the prompt in: what its `max_length` leaves, at least 1.
    """
    if request.max_tokens == 0 or request.max_completion_tokens == 0:
        name = "max_tokens" if request.max_tokens == 0 else "max_completion_tokens"
        raise BadRequest(f"{name}: it should be at least 1 for this model.", param=name)
    if request.total_length is not None:
        wanted = max(1, request.total_length - prompt_tokens)
    else:
        wanted = request.budget or profile.default_output
    return min(wanted, profile.max_output) if profile.max_output else wanted


def with_margin(prompt_tokens: int) -> int:
    """P and a tenth, rounded up."""
    return prompt_tokens + -(-prompt_tokens // 10)


def fits(prompt_tokens: int, context: int) -> bool:
    """Whether a prompt leaves any room for an answer."""
    return with_margin(prompt_tokens) < context


def require_room(prompt_tokens: int, context: int) -> None:
    """Raise `ContextExceeded` for a prompt that fills the context."""
    if not fits(prompt_tokens, context):
        raise ContextExceeded.told(context, prompt_tokens, estimated=True)


def fewest_dropped(most: int, fits: Callable[[int], bool]) -> int:
    """The fewest of `most` oldest exchanges to drop until the rest fits; `most` where nothing helps.

    It halves its way there: a chat has as many exchanges as its body has room for.
    """
    return bisect_left(range(most), True, key=fits)


def total_length(
    request: ChatRequest, prompt_tokens: int, budget: int, context: int, window: int | None = None
) -> int:
    """`max_length`: prompt with margin and answer, within the context; a native client's own as it is.

    Of a prompt longer than `window` the server keeps, and counts, that many tokens.
    """
    wanted = prompt_tokens if request.total_length else with_margin(prompt_tokens)
    return min(context, (wanted if window is None else min(wanted, window)) + budget)


def clamped(budget: int, prompt_tokens: int, context: int | None) -> int:
    """B within what the context leaves after the prompt; at least 1."""
    return budget if context is None else max(1, min(budget, context - prompt_tokens))


def finish_reason(counted: int, budget: int | None, prompt_tokens: int, total: int | None) -> FinishReason:
    """`length` where the answer reached a limit, else `stop`. An estimate: these servers do not say."""
    if budget is not None and counted >= budget:
        return "length"
    if total is not None and prompt_tokens + counted >= total:
        return "length"
    return "stop"


def stops_for(request: ChatRequest) -> tuple[str, ...]:
    """The stop texts to cut at (rule T9). Raises `BadRequest` for more than four, or an empty one."""
    stops = request.stops
    if len(stops) > 4:
        raise BadRequest("At most 4 stop texts are taken.", param="stop")
    if "" in stops:
        raise BadRequest("A stop text must not be empty.", param="stop")
    return stops
