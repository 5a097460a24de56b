from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.simulator.exchange import RefusedError, Request
from gateway.simulator.validation import (
    Check,
    Field,
    Issue,
    array,
    boolean,
    check_body,
    either,
    integer,
    literal,
    loose_text,
    nullable,
    number,
    pair,
    read_body,
    record,
    text,
)
from tests.unit.simulator.helpers import post


def refusal(
    body: object, model: Check, pydantic: int = 2, content_type: str = "application/json"
) -> tuple[int, Any]:
    with pytest.raises(RefusedError) as refused:
        read_body(post("/", body, **{"content-type": content_type}), model, pydantic=pydantic)
    return refused.value.reply.status, json.loads(refused.value.reply.body)["detail"]


@pytest.mark.parametrize(
    ("check", "value", "read"),
    [
        pytest.param(text, "a", "a", id="text"),
        pytest.param(loose_text, 5, "5", id="pydantic-1-takes-numbers-as-text"),
        pytest.param(number(), 1, 1.0, id="float-from-int"),
        pytest.param(number(0, 2), "1.5", 1.5, id="float-from-text"),
        pytest.param(integer(), "7", 7, id="int-from-text"),
        pytest.param(integer(), 7.0, 7, id="int-from-whole-float"),
        pytest.param(boolean, "yes", True, id="bool-from-text"),
        pytest.param(boolean, 0, False, id="bool-from-zero"),
        pytest.param(nullable(text), None, None, id="null"),
        pytest.param(literal("a", "b"), "b", "b", id="literal"),
        pytest.param(pair(text), ["a", "b"], ["a", "b"], id="pair"),
        pytest.param(either(list=array(text), str=text), "a", "a", id="second-branch"),
        pytest.param(record(a=Field(text, "x")), {"b": 1}, {"a": "x"}, id="default-and-unknown-key"),
    ],
)
def test_value_is_taken_as_pydantic_takes_it(check: Check, value: object, read: object) -> None:
    issues: list[Issue] = []
    assert check(value, (), issues) == read
    assert issues == []


@pytest.mark.parametrize(
    ("check", "value", "kind", "message"),
    [
        pytest.param(text, 5, "string_type", "Input should be a valid string", id="text"),
        pytest.param(
            number(),
            "x",
            "float_parsing",
            "Input should be a valid number, unable to parse string as a number",
            id="float-text",
        ),
        pytest.param(number(), None, "float_type", "Input should be a valid number", id="float-null"),
        pytest.param(
            number(0, 2), 3, "less_than_equal", "Input should be less than or equal to 2", id="too-much"
        ),
        pytest.param(
            number(0, 2),
            -1,
            "greater_than_equal",
            "Input should be greater than or equal to 0",
            id="too-little",
        ),
        pytest.param(
            integer(),
            1.5,
            "int_from_float",
            "Input should be a valid integer, got a number with a fractional part",
            id="int-part",
        ),
        pytest.param(
            integer(),
            "x",
            "int_parsing",
            "Input should be a valid integer, unable to parse string as an integer",
            id="int-text",
        ),
        pytest.param(integer(), [], "int_type", "Input should be a valid integer", id="int-list"),
        pytest.param(
            boolean,
            "maybe",
            "bool_parsing",
            "Input should be a valid boolean, unable to interpret input",
            id="bool-text",
        ),
        pytest.param(boolean, None, "bool_type", "Input should be a valid boolean", id="bool-null"),
        pytest.param(
            literal("a", "b", "c"), "d", "literal_error", "Input should be 'a', 'b' or 'c'", id="literal"
        ),
        pytest.param(array(text), "a", "list_type", "Input should be a valid list", id="list"),
        pytest.param(pair(text), "a", "tuple_type", "Input should be a valid tuple", id="tuple"),
        pytest.param(pair(text), ["a"], "missing", "Field required", id="half-a-pair"),
        pytest.param(
            record(),
            5,
            "model_attributes_type",
            "Input should be a valid dictionary or object to extract fields from",
            id="object",
        ),
    ],
)
def test_wrong_value_is_named_as_pydantic_2_names_it(
    check: Check, value: object, kind: str, message: str
) -> None:
    issues: list[Issue] = []
    check(value, (), issues)
    assert [(issue.kind, issue.message) for issue in issues] == [(kind, message)]


@pytest.mark.parametrize(
    ("pydantic", "shown"),
    [
        pytest.param(
            2,
            {
                "type": "less_than_equal",
                "loc": ["body", "t"],
                "msg": "Input should be less than or equal to 2",
                "input": 3,
                "ctx": {"le": 2.0},
            },
            id="pydantic-2",
        ),
        pytest.param(
            1,
            {
                "loc": ["body", "t"],
                "msg": "ensure this value is less than or equal to 2",
                "type": "value_error.number.not_le",
                "ctx": {"le": 2.0},
            },
            id="pydantic-1",
        ),
    ],
)
def test_refusal_is_written_as_either_pydantic_writes_it(pydantic: int, shown: object) -> None:
    assert refusal({"t": 3}, record(t=Field(number(0.0, 2.0))), pydantic) == (422, [shown])


@pytest.mark.parametrize("pydantic", [1, 2])
def test_broken_json_is_a_422_that_tells_the_place(pydantic: int) -> None:
    status, shown = refusal(b"{", record(), pydantic)
    assert (status, shown[0]["loc"]) == (422, ["body", 1])


def test_body_that_is_no_utf8_is_a_400() -> None:
    assert refusal(b'{"a":"\xff"}', record()) == (400, "There was an error parsing the body")


def test_body_of_another_type_is_not_read_as_json() -> None:
    status, shown = refusal({"a": 1}, record(), content_type="text/plain")
    assert (status, shown[0]["type"], shown[0]["input"]) == (422, "model_attributes_type", '{"a": 1}')


def test_empty_body_is_a_missing_field() -> None:
    read, issues = check_body(Request("POST", "/", {}, b""), record())
    assert (read, [issue.kind for issue in issues]) == ({}, ["missing"])


def test_every_branch_of_a_union_tells_what_it_missed() -> None:
    _, shown = refusal({"i": 5}, record(i=Field(either(list_of_str=array(text), str=text))))
    assert [issue["loc"][1:] for issue in shown] == [["i", "list[str]"], ["i", "str"]]
