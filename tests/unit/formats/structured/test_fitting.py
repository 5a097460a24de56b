"""Values that a schema leaves no doubt about."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.formats.structured.fitting import fitted

TEXT, INTEGER = {"type": "string"}, {"type": "integer"}


def of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


@pytest.mark.parametrize(
    ("schema", "value", "meant"),
    [
        (of(user_name=TEXT), {"UserName": "a"}, {"user_name": "a"}),
        (of(user_name=TEXT), {"user-name": "a"}, {"user_name": "a"}),
        (of(a=INTEGER), {"a": "42"}, {"a": 42}),
        (of(a=INTEGER), {"a": "-1"}, {"a": -1}),
        (of(a={"type": "number"}), {"a": "1.5"}, {"a": 1.5}),
        (of(a={"type": "boolean"}), {"a": "是"}, {"a": True}),
        (of(a=TEXT), {"a": 5}, {"a": "5"}),
        (of(a={"type": "array", "items": TEXT}), {"a": "x"}, {"a": ["x"]}),
        (of(a={"enum": ["good", "bad"]}), {"a": "Good "}, {"a": "good"}),
        (of(a={"type": ["integer", "null"]}), {"a": "null"}, {"a": None}),
        (of(a={"anyOf": [INTEGER, {"type": "null"}]}), {"a": "3"}, {"a": 3}),
        (of(a=of(b=INTEGER)), {"a": {"B": "1"}}, {"a": {"b": 1}}),
        ({"type": "array", "items": of(a=INTEGER)}, [{"A": "1"}], [{"a": 1}]),
        ({"$defs": {"x": INTEGER}, **of(a={"$ref": "#/$defs/x"})}, {"a": "1"}, {"a": 1}),
        (of(a=INTEGER), {"a": 2.0}, {"a": 2}),
        (of(a=INTEGER, b=TEXT), {"a": 1, "b": None}, {"a": 1}),
    ],
)
def test_value_is_changed_to_what_was_meant(schema: Any, value: Any, meant: Any) -> None:
    assert fitted(value, schema)[0] == meant


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (of(a=INTEGER), {"a": "five"}),
        (of(a=INTEGER), {"a": 1.5}),
        (of(ab=TEXT, a_b=TEXT), {"AB": "x"}),
        (of(a=TEXT), {"a": True}),
        (of(a=TEXT), {"b": "x"}),
        (INTEGER, True),
        (of(a={"anyOf": [INTEGER, TEXT]}), {"a": "3"}),
    ],
)
def test_doubtful_value_is_left_as_it_is(schema: Any, value: Any) -> None:
    assert fitted(value, schema)[0] == value


@pytest.mark.parametrize(
    "value", [{"result": {"a": 1}}, [{"a": 1}], {"答案": {"A": "1"}}, {"Person": {"a": 1}}]
)
def test_wrapper_is_taken_off(value: Any) -> None:
    assert {"a": 1} in fitted(value, of(a=INTEGER) | {"title": "Person"})


def test_property_that_is_named_like_a_wrapper_is_none() -> None:
    assert fitted({"result": {"a": 1}}, of(result=of(a=INTEGER))) == [{"result": {"a": 1}}]
