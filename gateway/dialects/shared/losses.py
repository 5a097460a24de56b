"""Finds the parameters that a backend cannot honour: they are reported, or refused if `strict`."""

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
"""Parameters that a backend may not honour, each with a test for values that have no effect."""

_LOSABLE = frozenset(_NEUTRAL)
_HARMLESS = frozenset(
    {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}
    | {"prompt_cache_retention"}
)
"""Unknown members that do not change an answer: they are reported, but never refused."""

NAMES = frozenset({*_NEUTRAL, "tools", "functions", "tool_choice", "function_call", "messages"})
"""All known names that `x-gateway-ignored` may contain, besides the names of unknown members."""


def lost(
    request: ChatRequest,
    profile: Profile,
    honoured: frozenset[str],
    more: Sequence[str] = (),
) -> tuple[str, ...]:
    """Return the names of the parameters of a request that the backend will not honour.

    `honoured` are the parameters that the dialect sends on; `more` are losses that the dialect has found
    itself. Unknown members come last, including those inside messages and tools. Raises
    `UnsupportedParameter` if the model is `strict`.
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
