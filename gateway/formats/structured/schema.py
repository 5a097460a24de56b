"""JSON Schemas that clients send: checked for what the gateway understands, then used to check values.

A schema comes from a client and is applied to text that a model wrote, on the event loop. So it is copied
first, and only the keywords below are kept; what is kept has the right types. Validation stops after
`MAX_STEPS` keyword checks, because `$ref` and `allOf` can make a small schema exponentially expensive. A
`pattern` is applied only if it cannot backtrack for long.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from jsonschema import Draft202012Validator, ValidationError, validators
from referencing import Registry
from referencing.exceptions import Unresolvable

from gateway.errors import BadRequest
from gateway.formats.structured.reference import at_reference

MAX_DEPTH = 32
"""Deepest nesting of subschemas."""
MAX_SCHEMAS = 2_000
"""Most subschemas of one schema."""
MAX_STEPS = 5_000
"""Keyword checks of one validation; each takes a few microseconds."""
MAX_MATCHED = 256
"""Longest text, in characters, that a `pattern` is applied to."""
MAX_UNIQUE = 256
"""Longest list for which `uniqueItems` is checked."""

_TYPES = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_ONE = ("items", "not", "additionalProperties", "contains", "propertyNames", "if", "then", "else")
_SEVERAL = ("anyOf", "allOf", "oneOf", "prefixItems")
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_SLOW_GROUP = re.compile(r"[*+}?]\)[*+{]|\|[^()]*\)[*+{]|\\[1-9]|\(\?[P<=!]")
_UNBOUNDED = re.compile(r"(?<!\\)(?:[*+]|\{\d+,\})")


class JsonSchema:
    """A schema of a client, ready to check values. Immutable.

    Raises `BadRequest` that names the place below `param` if the schema cannot be used.
    """

    def __init__(self, schema: Mapping[str, Any] | bool, param: str) -> None:
        self.plain = _Copier(param).copied(schema)
        self._validator = _Bounded(self.plain, registry=Registry())
        self._param = param
        for place, reference in _references(self.plain):
            if not _found(self.plain, reference):
                raise BadRequest(
                    f"{param}{place}: $ref {reference[:64]!r} leads nowhere.", param=param + place
                )

    def fault(self, value: Any) -> str | None:
        """Return in one line why a value does not fit, with its path (`$.a[0]`); None if it fits.

        Raises `BadRequest` if the schema is too expensive to check.
        """
        token = _steps_left.set([MAX_STEPS])
        try:
            error = next(self._validator.iter_errors(value), None)
        except (_TooManyStepsError, RecursionError):
            raise BadRequest(
                f"{self._param}: checking the answer against the schema takes too long.", param=self._param
            ) from None
        except Unresolvable:
            raise BadRequest(
                f"{self._param}: a $ref of the schema leads nowhere.", param=self._param
            ) from None
        finally:
            _steps_left.reset(token)
        return None if error is None else _told(error)

    def fits(self, value: Any) -> bool:
        """Return True if a value fits. Raises as `fault`."""
        return self.fault(value) is None


def _told(error: ValidationError) -> str:
    message = (
        error.message if len(error.message) <= 200 else f"{error.message[:120]} ... {error.message[-60:]}"
    )
    return f"{error.json_path}: {message}"


class _Copier:
    """Copies the known keywords of a schema. Raises `BadRequest` for those of a wrong type."""

    def __init__(self, param: str) -> None:
        self._param = param
        self._count = 0

    def copied(self, schema: Any, place: str = "", depth: int = 0) -> Any:
        self._count += 1
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise self._wrong(place, "a schema is an object")
        if depth > MAX_DEPTH or self._count > MAX_SCHEMAS:
            raise self._wrong("", "the schema is too large or too deep")
        out: dict[str, Any] = {}
        for name, value in schema.items():
            kept = self._keyword(name, value, f"{place}.{name}", depth + 1)
            if kept is not None:
                out[name] = kept
        if schema.get("const", _MISSING) is None:
            out["const"] = None  # a keyword with the value null is left out above
        return out

    def _keyword(self, name: str, value: Any, place: str, depth: int) -> Any:
        """Return the value of a keyword, copied; None if it is not used."""
        if name in _ONE:
            if name == "items" and isinstance(value, list):
                raise self._wrong(place, "a list of schemas is prefixItems")
            return self.copied(value, place, depth)
        if name in _SEVERAL:
            if not isinstance(value, list) or not value:
                raise self._wrong(place, "a list of schemas is needed")
            return [self.copied(one, f"{place}[{index}]", depth) for index, one in enumerate(value)]
        if name in _NAMED:
            return self._named(name, value, place, depth)
        return self._simple(name, value, place)

    def _named(self, name: str, value: Any, place: str, depth: int) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._wrong(place, "an object of schemas is needed")
        items = value.items()
        if name == "patternProperties":
            items = {key: one for key, one in items if self._pattern(key, place)}.items()
        return {key: self.copied(one, f"{place}.{key[:64]}", depth) for key, one in items}

    def _simple(self, name: str, value: Any, place: str) -> Any:
        match name:
            case "type":
                names = [value] if isinstance(value, str) else value
                if (
                    not isinstance(names, list)
                    or not names
                    or not all(one in _TYPES for one in map(str, names))
                ):
                    raise self._wrong(place, f"a type is one of {', '.join(sorted(_TYPES))}")
                return value
            case "enum":
                if not isinstance(value, list) or not value:
                    raise self._wrong(place, "a list of values is needed")
                return value
            case "required":
                if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
                    raise self._wrong(place, "a list of names is needed")
                return value
            case "const":
                return value
            case "$ref":
                if not isinstance(value, str) or not value.startswith("#"):
                    raise self._wrong(
                        place, "a $ref leads to a place in the schema itself, such as #/$defs/x"
                    )
                return value
            case "pattern":
                return value if self._pattern(value, place) else None
            case "uniqueItems":
                return value if isinstance(value, bool) else None
            case "description" | "title":
                return value if isinstance(value, str) else None
        if name in _COUNTS or name in _NUMBERS:
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not (whole or (name in _NUMBERS and isinstance(value, float))):
                raise self._wrong(place, "a number is needed")
            if (name in _COUNTS and value < 0) or (name == "multipleOf" and value <= 0):
                raise self._wrong(place, "the number is too small")
            return value
        return None

    def _pattern(self, value: Any, place: str) -> bool:
        """Return True if a pattern can be applied. Raises `BadRequest` if it is none."""
        try:
            re.compile(value)
        except (re.error, TypeError, OverflowError, RecursionError):
            raise self._wrong(place, "the pattern is not a regular expression") from None
        return len(value) <= 256 and not _SLOW_GROUP.search(value) and len(_UNBOUNDED.findall(value)) <= 3

    def _wrong(self, place: str, what: str) -> BadRequest:
        return BadRequest(f"{self._param}{place}: {what}.", param=self._param + place)


_MISSING = object()


def _references(schema: Any, place: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield place, schema["$ref"]
        for name, value in schema.items():
            if name not in ("enum", "const"):
                yield from _references(value, f"{place}.{name}")
    elif isinstance(schema, list):
        for index, value in enumerate(schema):
            yield from _references(value, f"{place}[{index}]")


def _found(root: Any, reference: str) -> bool:
    return isinstance(at_reference(root, reference), dict | bool)


# --- bounded validation ----------------------------------------------------------------------------


class _TooManyStepsError(Exception):
    """A validation has taken `MAX_STEPS` keyword checks."""


_steps_left: ContextVar[list[int]] = ContextVar("steps_left")
"""The number of keyword checks left for the validation that runs, in a list of one."""

Check = Callable[[Any, Any, Any, Any], Iterable[ValidationError] | None]


def _counted(check: Check) -> Check:
    def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        left = _steps_left.get()
        left[0] -= 1
        if left[0] < 0:
            raise _TooManyStepsError
        yield from check(validator, value, instance, schema) or ()

    return counted


def _pattern_of_short(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """`pattern` for texts of bounded length."""
    if isinstance(instance, str) and len(instance) <= MAX_MATCHED:
        yield from Draft202012Validator.VALIDATORS["pattern"](validator, pattern, instance, schema) or ()


def _unique_of_short(validator: Any, unique: bool, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """`uniqueItems` for lists of bounded length: comparing all pairs takes quadratic time."""
    if isinstance(instance, list) and len(instance) <= MAX_UNIQUE:
        yield from Draft202012Validator.VALIDATORS["uniqueItems"](validator, unique, instance, schema) or ()


_OWN_CHECKS: Mapping[str, Any] = {"pattern": _pattern_of_short, "uniqueItems": _unique_of_short}
_Bounded: Any = validators.extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {name: _counted(_OWN_CHECKS.get(name, check)) for name, check in Draft202012Validator.VALIDATORS.items()},
)
"""The validator of draft 2020-12 with bounded checks."""
