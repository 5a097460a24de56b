"""What a request loses on a backend that cannot honour all of it: reported, or refused under `strict`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gateway.dialects.base import Profile
from gateway.errors import UnsupportedParameter
from gateway.wire.openai import ChatRequest

_NEUTRAL: dict[str, Callable[[Any], bool]] = {
    "frequency_penalty": lambda value: value == 0,
    "presence_penalty": lambda value: value == 0,
    "repetition_penalty": lambda value: value == 1,
    "logit_bias": lambda value: not value,
    "logprobs": lambda value: value is False,
    "top_logprobs": lambda value: value == 0,
    "parallel_tool_calls": lambda value: value is True,
    "response_format": lambda value: value == {"type": "text"},
    "seed": lambda _: False,
    "top_k": lambda value: value in (-1, 0),
    "min_p": lambda value: value == 0,
    "best_of": lambda value: value == 1,
    "length_penalty": lambda value: value == 1,
    "min_tokens": lambda value: value == 0,
    "ignore_eos": lambda value: value is False,
    "stop_token_ids": lambda value: not value,
    "thinking": lambda _: False,
    "modalities": lambda value: value == ["text"],
    "audio": lambda _: False,
    "prediction": lambda _: False,
    "reasoning_effort": lambda _: False,
    "verbosity": lambda _: False,
    "web_search_options": lambda _: False,
    "temperature": lambda _: False,
    "top_p": lambda _: False,
    "max_tokens": lambda _: False,
    "max_completion_tokens": lambda _: False,
}
"""The parameters that can be lost, with the test for a value that asks for nothing."""

_LOSABLE = frozenset(_NEUTRAL)

NAMES = frozenset({*_NEUTRAL, "tools", "functions", "tool_choice", "function_call", "messages"})
"""All names that can stand in `x-gateway-ignored`."""


def lost(
    request: ChatRequest,
    profile: Profile,
    honoured: frozenset[str],
    more: Sequence[str] = (),
) -> tuple[str, ...]:
    """Name the parameters of this request that the backend will not honour.

    `honoured` are parameter names the dialect sends on; `more` are losses the dialect found itself.
    Raises `UnsupportedParameter` under `strict`.
    """
    body = request.body
    suspects = _LOSABLE.intersection(body).difference(honoured)
    if not (suspects or more):
        return ()
    names = [name for name, neutral in _NEUTRAL.items() if name in suspects and not neutral(body[name])]
    found = tuple(dict.fromkeys([*names, *more]))
    if found and profile.strict:
        raise UnsupportedParameter(
            f"This model cannot honour {found[0]}, and it is set to refuse what it cannot honour.",
            param=found[0],
        )
    return found
