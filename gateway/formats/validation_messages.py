"""Tells a client in plain words what is wrong with its body: the field, and what it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Any, TypeAlias

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gateway.errors import BadRequest
from gateway.formats import jsontext

MOST = 64
"""Complaints that are looked at."""
Place: TypeAlias = tuple[str | int, ...]

_KINDS: Mapping[str, str] = MappingProxyType(
    {
        "string_type": "a text",
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "int_parsing_size": "a number of ordinary size",
        "float_type": "a number",
        "finite_number": "a number of ordinary size",
        "bool_type": "true or false",
        "list_type": "a list",
        "dict_type": "an object",
        "model_type": "an object",
        "model_attributes_type": "an object",
    }
)
_SIZES: Mapping[str, Callable[[Mapping[str, Any]], str]] = MappingProxyType(
    {
        "literal_error": lambda said: str(said.get("expected")),
        "greater_than_equal": lambda said: f"at least {said['ge']:g}",
        "less_than_equal": lambda said: f"at most {said['le']:g}",
        "too_short": lambda _: "a list that is not empty",
        "string_too_long": lambda said: f"a text of at most {said['max_length']} characters",
    }
)


def refusal(error: ValidationError, body: dict[str, Any]) -> BadRequest:
    """The refusal of a body: of several complaints those that reached deepest are the helpful ones."""
    problems = error.errors(include_url=False, include_input=False)
    placed = [(_place(problem, body), problem) for problem in islice(problems, MOST)]
    deepest = max((place for place, _ in placed), key=len)
    wanted = [problem for place, problem in placed if place == deepest]
    param = jsontext.name_of(deepest)
    if wanted[0]["type"] == "missing":
        return BadRequest(f"{param} is required.", param=param)
    takes = dict.fromkeys(_takes(problem) for problem in wanted)
    return BadRequest(f"{param}: it should be {' or '.join(takes)}.", param=param)


def _takes(problem: ErrorDetails) -> str:
    """What would be right in the place of a complaint."""
    kind, said = problem["type"], problem.get("ctx", {})
    if kind == "too_long":
        return f"of at most {said['max_length']} items"
    if kind in _SIZES:
        return _SIZES[kind](said)
    return _KINDS.get(kind, "as the API has it")


def _place(problem: ErrorDetails, body: Any) -> Place:
    """The steps of a complaint's place that exist in the body; the names of a union's members do not."""
    loc = problem["loc"]
    steps: list[str | int] = []
    at: Any = body
    for number, step in enumerate(loc):
        missing = problem["type"] == "missing" and number == len(loc) - 1
        if isinstance(at, dict) and (step in at or missing):
            steps.append(step)
            at = at.get(step)
        elif isinstance(at, list) and isinstance(step, int) and step < len(at):
            steps.append(step)
            at = at[step]
    return tuple(steps)
