"""The values that a server accepts. A request with any other value is refused before it is sent.

Each dialect names its table in `Dialect.ranges`, and `check` compares a request with it. A value to which a
server answers with an unspecific 500 must not reach the server, because a 500 also counts against the
backend's health. Values that rule T12 adjusts (temperature near 0, top_p 0, limits beyond the context) are
inside the ranges.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from gateway.errors import BadRequest
from gateway.formats.openai import MAX_INTEGER, ChatRequest, NamedChoice, NamedFunction

GREEDY_BELOW = 0.01
"""Temperatures below this value are sent as 0 (greedy decoding).

They overflow in half precision (rule T12).
"""


class AllowedRange(NamedTuple):
    """The permitted values of one parameter: from `low` to `high`, both included.

    With `above`, `low` itself is excluded.
    """

    low: float
    high: float = math.inf
    above: bool = False

    def takes(self, value: float) -> bool:
        """Return True if the value is in the range."""
        return self.low <= value <= self.high and not (self.above and value == self.low)

    @property
    def words(self) -> str:
        """The range in the words of an error message."""
        low = f"above {_plain(self.low)}" if self.above else f"at least {_plain(self.low)}"
        return low if self.high == math.inf else f"{low} and at most {_plain(self.high)}"


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)


Ranges = Mapping[str, AllowedRange]
"""The permitted range of each parameter that a dialect sends."""

NOTHING: Ranges = MappingProxyType({})
"""For a server that gets no numbers, or that checks all numbers itself and answers 400."""

_LIMIT = AllowedRange(1, MAX_INTEGER)
NATIVE: Ranges = MappingProxyType(
    {
        "temperature": AllowedRange(0, 2),
        "top_p": AllowedRange(0, 1),
        "max_tokens": _LIMIT,
        "max_completion_tokens": _LIMIT,
    }
)
"""Sampling parameters and length limits that every ChatGLM server accepts."""
TRANSFORMERS: Ranges = MappingProxyType({**NATIVE, "repetition_penalty": AllowedRange(0, above=True)})
"""For servers based on `transformers`, which refuses a repetition penalty of 0 or less."""
VLLM: Ranges = MappingProxyType({**NATIVE, "repetition_penalty": AllowedRange(0, 2, above=True)})
"""For servers based on vLLM, whose `SamplingParams` refuses a repetition penalty above 2."""


def check(request: ChatRequest, ranges: Ranges) -> None:
    """Raise `BadRequest` for a value outside its range, or for a choice of a function that is not offered."""
    body = request.body
    if not ranges.keys().isdisjoint(body):  # fast path: most requests have none of these parameters
        _check_values(body, ranges)
    if request.tool_choice is not None or request.function_call is not None:
        check_choice(request)


def _check_values(body: Mapping[str, Any], ranges: Ranges) -> None:
    for name, range_ in ranges.items():
        value = body.get(name)
        if value is None:
            continue
        if not range_.takes(value):
            raise BadRequest(f"{name} must be {range_.words} for this model.", param=name)


def check_choice(request: ChatRequest) -> None:
    """Raise `BadRequest` for a `tool_choice` or `function_call` that names a function not offered."""
    choice, call = request.tool_choice, request.function_call
    if isinstance(choice, NamedChoice):
        _check_named("tool_choice", choice.function.name, request)
    if isinstance(call, NamedFunction):
        _check_named("function_call", call.name, request)


def _check_named(param: str, name: str, request: ChatRequest) -> None:
    offered = {tool.function.name for tool in request.tools or () if tool.function}
    offered |= {function.name for function in request.functions or ()}
    if name not in offered:
        raise BadRequest(f"{param} names a function that is not among those offered.", param=param)


def check_functions(request: ChatRequest) -> None:
    """Raise `BadRequest` for a function name that the server could not recognise in an answer.

    These servers read the first line of an answer as the function name. An empty name, or a name with a
    line break, can never match.
    """
    for place, tool in enumerate(request.tools or ()):
        if tool.function is not None:
            _check_name(tool.function.name, f"tools[{place}].function.name")
    for place, function in enumerate(request.functions or ()):
        _check_name(function.name, f"functions[{place}].name")


def _check_name(name: str, param: str) -> None:
    if not name.strip() or len(name.splitlines()) > 1 or name != name.strip():
        raise BadRequest(f"{param} must be a word without line breaks or blanks around it.", param=param)


def greedy(sampling: dict[str, Any]) -> dict[str, Any]:
    """Return the sampling members with a temperature below `GREEDY_BELOW` replaced by 0.

    For servers in half precision that decode greedily at temperature 0.
    """
    if 0 < sampling.get("temperature", 1) < GREEDY_BELOW:
        return {**sampling, "temperature": 0}
    return sampling
