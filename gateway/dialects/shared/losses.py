"""What a request loses on a backend that cannot honour all of it: reported, or refused under `strict`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gateway.dialects.base import Profile
from gateway.errors import UnsupportedParameter
from gateway.formats.openai import ChatRequest

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
_HARMLESS = frozenset(
    {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}
    | {"prompt_cache_retention"}
)
"""Unknown members that change no answer: reported, but never refused."""

NAMES = frozenset({*_NEUTRAL, "tools", "functions", "tool_choice", "function_call", "messages"})
"""All known names that can stand in `x-gateway-ignored`, beside those of members that nobody knows."""


def lost(
    request: ChatRequest,
    profile: Profile,
    honoured: frozenset[str],
    more: Sequence[str] = (),
) -> tuple[str, ...]:
    """Name the parameters of this request that the backend will not honour.

    `honoured` are parameter names the dialect sends on; `more` are losses the dialect found itself. Members
    that nobody knows come last, with those inside of messages and tools.
    Raises `UnsupportedParameter` under `strict`.
    """
    body = request.body
    suspects = _LOSABLE.intersection(body).difference(honoured)
    unread = request.unread
    if not (suspects or more or unread):
        return ()
    names = [name for name, neutral in _NEUTRAL.items() if name in suspects and not neutral(body[name])]
    names += more
    unknown = [name for name in unread if name not in _NEUTRAL and name not in honoured]
    if profile.strict:
        names += [name for name in unknown if "." not in name and name not in _HARMLESS]
        _refuse(names)
    return tuple(dict.fromkeys([*names, *unknown]))


def _refuse(names: list[str]) -> None:
    if names:
        raise UnsupportedParameter(
            f"This model cannot honour {names[0]}, and it is set to refuse what it cannot honour.",
            param=names[0],
        )
