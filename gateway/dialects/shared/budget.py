"""Computes how long an answer may be, whether it fits, and why it ended (rules T10 and T11).

ChatGLM's native servers limit the tokens of prompt, history and answer together, by `max_length`. OpenAI
clients limit the tokens of the answer alone. All token counts here are estimates, so a margin of one tenth
is added to the prompt.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

from gateway.dialects.base import Profile
from gateway.errors import BadRequest, ContextExceeded
from gateway.formats.events import FinishReason
from gateway.formats.openai import ChatRequest


def wanted_output(request: ChatRequest, profile: Profile, prompt_tokens: int) -> int:
    """Return B, the maximum number of tokens of the answer.

    B is the client's limit, within the model's own limit. The `max_length` of a native client includes the
    prompt, so B is what remains of it, at least 1. Raises `BadRequest` for a limit of 0.
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
    """Return P plus one tenth, rounded up."""
    return prompt_tokens + -(-prompt_tokens // 10)


def fits(prompt_tokens: int, context: int) -> bool:
    """Return True if a prompt and its margin leave room for an answer."""
    return with_margin(prompt_tokens) < context


def require_room(prompt_tokens: int, context: int) -> None:
    """Raise `ContextExceeded` if a prompt and its margin fill the context."""
    if not fits(prompt_tokens, context):
        raise ContextExceeded.told(context, prompt_tokens, estimated=True)


def fewest_dropped(most: int, fits: Callable[[int], bool]) -> int:
    """Return the smallest number of oldest exchanges to drop so that the rest fits.

    Returns `most` if nothing helps. `fits` is called with a number of dropped exchanges. The search is
    binary, because a long chat can have very many exchanges.
    """
    return bisect_left(range(most), True, key=fits)


def total_length(
    request: ChatRequest, prompt_tokens: int, budget: int, context: int, window: int | None = None
) -> int:
    """Return the `max_length` to send: the prompt with its margin and the answer, within the context.

    No margin is added for a native client, whose own limit counts the prompt in. A server that keeps only
    `window` tokens of a longer prompt counts only those.
    """
    wanted = prompt_tokens if request.total_length else with_margin(prompt_tokens)
    return min(context, (wanted if window is None else min(wanted, window)) + budget)


def clamped(budget: int, prompt_tokens: int, context: int | None) -> int:
    """Return B, limited to what the context leaves after the prompt; at least 1."""
    return budget if context is None else max(1, min(budget, context - prompt_tokens))


def finish_reason(counted: int, budget: int | None, prompt_tokens: int, total: int | None) -> FinishReason:
    """Return `length` if the answer reached a limit, else `stop`.

    This is an estimate, because these servers do not report a finish reason.
    """
    if budget is not None and counted >= budget:
        return "length"
    if total is not None and prompt_tokens + counted >= total:
        return "length"
    return "stop"


def stops_for(request: ChatRequest) -> tuple[str, ...]:
    """Return the client's stop sequences (rule T9). Raises `BadRequest` for more than 4, or an empty one."""
    stops = request.stops
    if len(stops) > 4:
        raise BadRequest("At most 4 stop texts are taken.", param="stop")
    if "" in stops:
        raise BadRequest("A stop text must not be empty.", param="stop")
    return stops
