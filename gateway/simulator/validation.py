"""Request bodies checked as FastAPI does it, with the 422 bodies of pydantic 1 and of pydantic 2.

A check takes a value and its place, gives back the value as the program would see it (a number as float, a
default filled in), and notes what is wrong. Programs state their request models as tables of checks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.simulator.exchange import RefusedError, Request, detail, json_reply

Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing wrong: pydantic 2's name for it, where, with which value, and the particulars."""

    kind: str
    place: Place
    value: object = None
    particulars: Mapping[str, object] = field(default_factory=dict)

    @property
    def message(self) -> str:
        """Pydantic 2's sentence about it."""
        return str(_pydantic2(self)["msg"])


Check = Callable[[object, Place, list[Issue]], Any]

_TRUE = ("true", "1", "yes", "on", "y", "t")
_FALSE = ("false", "0", "no", "off", "n", "f")

REQUIRED: Any = object()
"""As a default: the field must be there."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a request: its check and the value it has when absent."""

    check: Check
    default: object = REQUIRED


def anything(value: object, _place: Place, _issues: list[Issue]) -> object:
    """Take every value."""
    return value


def text(value: object, place: Place, issues: list[Issue]) -> object:
    """Text and nothing else."""
    if not isinstance(value, str):
        issues.append(Issue("string_type", place, value))
    return value


def loose_text(value: object, place: Place, issues: list[Issue]) -> object:
    """Text as pydantic 1 takes it: a number turns into its digits."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return text(value, place, issues)


def boolean(value: object, place: Place, issues: list[Issue]) -> object:
    """A truth value, or a text or number that spells one."""
    if isinstance(value, bool):
        return value
    if not isinstance(value, str | int | float):
        issues.append(Issue("bool_type", place, value))
        return value
    spelled = str(value).lower()
    if spelled not in (*_TRUE, *_FALSE):
        issues.append(Issue("bool_parsing", place, value))
    return spelled in _TRUE


def number(low: float | None = None, high: float | None = None) -> Check:
    """A float, given as a number or as a text that spells one."""

    def check(value: object, place: Place, issues: list[Issue]) -> object:
        if not isinstance(value, str | int | float):
            issues.append(Issue("float_type", place, value))
            return value
        try:
            read = float(value)
        except ValueError:
            issues.append(Issue("float_parsing", place, value))
            return value
        return _within(value, read, (low, high), place, issues)

    return check


def integer(low: int | None = None) -> Check:
    """An int, given as a whole number or as a text that spells one."""

    def check(value: object, place: Place, issues: list[Issue]) -> object:
        if not isinstance(value, str | int | float):
            issues.append(Issue("int_type", place, value))
            return value
        if isinstance(value, float) and not value.is_integer():
            issues.append(Issue("int_from_float", place, value))
            return value
        try:
            read = int(value)
        except ValueError:
            issues.append(Issue("int_parsing", place, value))
            return value
        return _within(value, read, (low, None), place, issues)

    return check


def literal(*allowed: str) -> Check:
    """One of these words."""

    def check(value: object, place: Place, issues: list[Issue]) -> object:
        if value not in allowed:
            issues.append(Issue("literal_error", place, value, {"expected": list(allowed)}))
        return value

    return check


def nullable(inner: Check) -> Check:
    """Null, or what the inner check takes."""

    def check(value: object, place: Place, issues: list[Issue]) -> object:
        return None if value is None else inner(value, place, issues)

    return check


def mapping(value: object, place: Place, issues: list[Issue]) -> object:
    """Any object."""
    if not isinstance(value, dict):
        issues.append(Issue("dict_type", place, value))
    return value


def array(inner: Check) -> Check:
    """A list whose every item passes the inner check."""

    def check(value: object, place: Place, issues: list[Issue]) -> object:
        if not isinstance(value, list):
            issues.append(Issue("list_type", place, value))
            return value
        return [inner(item, (*place, index), issues) for index, item in enumerate(value)]

    return check


def pair(inner: Check) -> Check:
    """A list of exactly two items that pass the inner check."""

    def check(value: object, place: Place, issues: list[Issue]) -> object:
        if not isinstance(value, list):
            issues.append(Issue("tuple_type", place, value))
            return value
        if len(value) > 2:
            counts = {"field_type": "Tuple", "max_length": 2, "actual_length": len(value)}
            issues.append(Issue("too_long", place, value, counts))
            return value
        issues += [Issue("missing", (*place, index), value) for index in range(len(value), 2)]
        return [inner(item, (*place, index), issues) for index, item in enumerate(value)]

    return check


def either(**branches: Check) -> Check:
    """The first branch that is content; else the issues of all, each under its branch's name."""

    def check(value: object, place: Place, issues: list[Issue]) -> object:
        collected: list[Issue] = []
        for name, branch in branches.items():
            found: list[Issue] = []
            read = branch(value, (*place, name.replace("_of_", "[") + "]" * ("_of_" in name)), found)
            if not found:
                return read
            collected += found
        issues += collected
        return value

    return check


OBJECTS = either(**{"dict[any,any]": mapping, "list[dict[any,any]]": array(mapping)})
"""An object or a list of objects: what the servers take for `tools`."""


class Record:
    """An object with these fields; others are dropped. A check that can be a class attribute."""

    def __init__(self, fields: Mapping[str, Field]) -> None:
        self._fields = dict(fields)

    def __call__(self, value: object, place: Place, issues: list[Issue]) -> object:
        """Check an object, as every `Check` does."""
        if not isinstance(value, dict):
            issues.append(Issue("model_attributes_type", place, value))
            return value
        read: dict[str, object] = {}
        for name, wanted in self._fields.items():
            if name in value:
                read[name] = wanted.check(value[name], (*place, name), issues)
            elif wanted.default is REQUIRED:
                issues.append(Issue("missing", (*place, name), value))
            else:
                read[name] = wanted.default
        return read


def record(**fields: Field) -> Record:
    """An object with these fields."""
    return Record(fields)


def check_body(request: Request, model: Check, *, pydantic: int = 2) -> tuple[dict[str, Any], list[Issue]]:
    """The body as the endpoint would get it, and what is wrong with it; RefusedError where it is no JSON."""
    if not request.body:
        return {}, [Issue("missing", ("body",))]
    issues: list[Issue] = []
    read: dict[str, Any] = model(_parse(request, pydantic), ("body",), issues)
    return read, issues


def read_body(request: Request, model: Check, *, pydantic: int = 2) -> dict[str, Any]:
    """The body as the endpoint gets it; RefusedError carries the 400 or 422 that FastAPI answers."""
    read, issues = check_body(request, model, pydantic=pydantic)
    if issues:
        render = _pydantic1 if pydantic == 1 else _pydantic2
        raise RefusedError(json_reply({"detail": [render(issue) for issue in issues]}, 422))
    return read


def _parse(request: Request, pydantic: int) -> object:
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        return request.body.decode(errors="replace")
    try:
        return request.json()
    except json.JSONDecodeError as error:
        raise RefusedError(json_reply({"detail": [_bad_json(error, pydantic)]}, 422)) from error
    except ValueError as error:
        raise RefusedError(detail(400, "There was an error parsing the body")) from error


def _bad_json(error: json.JSONDecodeError, pydantic: int) -> dict[str, object]:
    if pydantic == 2:
        context: dict[str, object] = {"error": error.msg}
        head: dict[str, object] = {"type": "json_invalid", "loc": ["body", error.pos]}
        return {**head, "msg": "JSON decode error", "input": {}, "ctx": context}
    context = {name: getattr(error, name) for name in ("msg", "doc", "pos", "lineno", "colno")}
    return {"loc": ["body", error.pos], "msg": str(error), "type": "value_error.jsondecode", "ctx": context}


def _within(
    value: object, read: float, bounds: tuple[float | None, float | None], place: Place, issues: list[Issue]
) -> float:
    low, high = bounds
    if low is not None and not read >= low:
        issues.append(Issue("greater_than_equal", place, value, {"ge": low}))
    elif high is not None and not read <= high:
        issues.append(Issue("less_than_equal", place, value, {"le": high}))
    return read


_MESSAGES: Mapping[str, tuple[str, str, str]] = {
    "missing": ("Field required", "value_error.missing", "field required"),
    "string_type": ("Input should be a valid string", "type_error.str", "str type expected"),
    "bool_type": (
        "Input should be a valid boolean",
        "type_error.bool",
        "value could not be parsed to a boolean",
    ),
    "bool_parsing": (
        "Input should be a valid boolean, unable to interpret input",
        "type_error.bool",
        "value could not be parsed to a boolean",
    ),
    "int_type": ("Input should be a valid integer", "type_error.integer", "value is not a valid integer"),
    "int_from_float": (
        "Input should be a valid integer, got a number with a fractional part",
        "type_error.integer",
        "value is not a valid integer",
    ),
    "int_parsing": (
        "Input should be a valid integer, unable to parse string as an integer",
        "type_error.integer",
        "value is not a valid integer",
    ),
    "float_type": ("Input should be a valid number", "type_error.float", "value is not a valid float"),
    "float_parsing": (
        "Input should be a valid number, unable to parse string as a number",
        "type_error.float",
        "value is not a valid float",
    ),
    "dict_type": ("Input should be a valid dictionary", "type_error.dict", "value is not a valid dict"),
    "list_type": ("Input should be a valid list", "type_error.list", "value is not a valid list"),
    "tuple_type": ("Input should be a valid tuple", "type_error.tuple", "value is not a valid tuple"),
    "model_attributes_type": (
        "Input should be a valid dictionary or object to extract fields from",
        "type_error.dict",
        "value is not a valid dict",
    ),
    "too_long": (
        "Tuple should have at most {max_length} items after validation, not {actual_length}",
        "value_error.tuple.length",
        "wrong tuple length {actual_length}, expected {max_length}",
    ),
    "greater_than_equal": (
        "Input should be greater than or equal to {ge:g}",
        "value_error.number.not_ge",
        "ensure this value is greater than or equal to {ge:g}",
    ),
    "less_than_equal": (
        "Input should be less than or equal to {le:g}",
        "value_error.number.not_le",
        "ensure this value is less than or equal to {le:g}",
    ),
}
"""Kind: pydantic 2's message; pydantic 1's type and message."""


def _pydantic2(issue: Issue) -> dict[str, object]:
    particulars = dict(issue.particulars)
    if issue.kind == "literal_error":
        words = _listed(issue.particulars["expected"])
        message, particulars = f"Input should be {words}", {"expected": words}
    else:
        message = _MESSAGES[issue.kind][0].format(**particulars)
    shown: dict[str, object] = {"type": issue.kind, "loc": issue.place, "msg": message, "input": issue.value}
    return {**shown, "ctx": particulars} if particulars else shown


def _pydantic1(issue: Issue) -> dict[str, object]:
    particulars = dict(issue.particulars)
    if issue.kind == "literal_error":
        allowed = particulars["expected"]
        message = f"unexpected value; permitted: {', '.join(repr(word) for word in _words(allowed))}"
        kind, particulars = "value_error.const", {"given": issue.value, "permitted": allowed}
    elif issue.value is None and issue.kind != "missing":
        message, kind, particulars = "none is not an allowed value", "type_error.none.not_allowed", {}
    else:
        _, kind, template = _MESSAGES[issue.kind]
        message = template.format(**particulars)
    shown: dict[str, object] = {"loc": issue.place, "msg": message, "type": kind}
    return {**shown, "ctx": particulars} if particulars else shown


def _words(allowed: object) -> Sequence[str]:
    return [str(word) for word in allowed] if isinstance(allowed, list) else []


def _listed(allowed: object) -> str:
    *others, last = [repr(word) for word in _words(allowed)]
    return f"{', '.join(others)} or {last}" if others else last
