"""Schemas of clients: checked, bounded, and used."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.errors import BadRequest
from gateway.formats.structured.schema import MAX_DEPTH, MAX_SCHEMAS, JsonSchema

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 1}, "age": {"type": ["integer", "null"]}},
    "required": ["name"],
    "additionalProperties": False,
    "description": "a person",
    "x-unknown": {"type": "nonsense"},
}


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({"name": "a"}, None),
        ({"name": "a", "age": None}, None),
        ({"name": ""}, "$.name"),
        ({}, "'name' is a required property"),
        ({"name": "a", "age": 1.5}, "$.age"),
        ({"name": "a", "b": 1}, "'b' was unexpected"),
        ([], "$: [] is not of type 'object'"),
    ],
)
def test_fault_names_the_place(value: Any, fault: str | None) -> None:
    found = JsonSchema(PERSON, "schema").fault(value)
    assert (found is None) if fault is None else (found is not None and fault in found)


def test_unknown_keywords_are_left_out_of_the_copy() -> None:
    assert "x-unknown" not in JsonSchema(PERSON, "schema").plain
    assert JsonSchema({"const": None}, "schema").fault(1) is not None
    assert JsonSchema({"format": 5, "default": {}}, "schema").plain == {}


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        (5, ""),
        ({"type": "text"}, ".type"),
        ({"type": []}, ".type"),
        ({"properties": []}, ".properties"),
        ({"properties": {"a": 1}}, ".properties.a"),
        ({"items": [{}]}, ".items"),
        ({"anyOf": []}, ".anyOf"),
        ({"allOf": [{}, {"enum": []}]}, ".allOf[1].enum"),
        ({"required": "a"}, ".required"),
        ({"minLength": -1}, ".minLength"),
        ({"multipleOf": 0}, ".multipleOf"),
        ({"minimum": "1"}, ".minimum"),
        ({"maxItems": True}, ".maxItems"),
        ({"pattern": "("}, ".pattern"),
        ({"patternProperties": {"[": {}}}, ".patternProperties"),
        ({"$ref": "https://example.com/s"}, ".$ref"),
        ({"$ref": "#/$defs/a"}, ""),
    ],
)
def test_schema_that_is_none_is_refused_with_its_place(schema: Any, place: str) -> None:
    with pytest.raises(BadRequest) as caught:
        JsonSchema(schema, "schema")
    assert caught.value.param == "schema" + place


def test_schema_of_unbounded_size_or_depth_is_refused() -> None:
    deep: Any = {}
    for _ in range(MAX_DEPTH + 1):
        deep = {"items": deep}
    wide: Any = {"properties": {str(index): {} for index in range(MAX_SCHEMAS)}}
    for schema in (deep, wide):
        with pytest.raises(BadRequest, match="too large or too deep"):
            JsonSchema(schema, "schema")


def test_references_within_the_schema_are_followed() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}, "additionalProperties": False}
    schema = JsonSchema({"$defs": {"node": node}, "$ref": "#/$defs/node"}, "schema")
    assert schema.fits({"next": {"next": {}}})
    assert not schema.fits({"next": {"other": 1}})


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {
            "$defs": {
                **{f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(40)},
                "a40": {},
            },
            "$ref": "#/$defs/a0",
        },
    ],
    ids=["endless", "exponential"],
)
def test_schema_whose_check_takes_too_long_is_refused(schema: Any) -> None:
    with pytest.raises(BadRequest, match="takes too long"):
        JsonSchema(schema, "schema").fault("x")


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)*b", "(.*)*", r"(a)\1+", "(?=a)b", "a*a*a*a*b"])
def test_pattern_that_could_backtrack_for_long_is_not_applied(pattern: str) -> None:
    assert JsonSchema({"pattern": pattern}, "schema").fits("a" * 250)


def test_harmless_pattern_is_applied_to_short_texts() -> None:
    schema = JsonSchema({"pattern": "^[a-z]+@[a-z]+$"}, "schema")
    assert schema.fits("a@b")
    assert not schema.fits("a")
    assert schema.fits("a" * 300)


def test_unique_items_of_long_lists_are_not_compared() -> None:
    schema = JsonSchema({"uniqueItems": True}, "schema")
    assert not schema.fits([1, 1])
    assert schema.fits([{}] * 300)
