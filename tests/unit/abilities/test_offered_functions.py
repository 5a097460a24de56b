"""The functions of a request."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.abilities.offered_functions import OfferedFunctions, written
from gateway.errors import BadRequest, UnsupportedParameter
from gateway.formats import jsontext, openai

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": SCHEMA, **more}}


def functions(**body: Any) -> OfferedFunctions:
    return OfferedFunctions(
        openai.read_chat(jsontext.write({"messages": [{"role": "user", "content": "x"}], **body}))
    )


def test_all_functions_are_offered_unless_one_is_named() -> None:
    both = functions(tools=[tool("f"), tool("g")])
    assert (both.names, both.required, both.named) == (("f", "g"), False, None)
    named = functions(
        tools=[tool("f"), tool("g")], tool_choice={"type": "function", "function": {"name": "g"}}
    )
    assert (named.names, named.required, named.named) == (("g",), True, "g")
    old = functions(functions=[{"name": "f"}], function_call="auto")
    assert (old.names, old.one_only) == (("f",), True)


def test_arguments_are_checked_and_fitted() -> None:
    offered = functions(tools=[tool("f", strict=True), tool("g")])
    assert offered.checked("f", {"a": 1}) == ({"a": 1}, "")
    assert offered.checked("f", {"A": "1"}) == ({"a": 1}, "")
    arguments, fault = offered.checked("f", {})
    assert (arguments, fault) == ({}, "f: $: 'a' is a required property")
    assert (offered.strict("f"), offered.strict("g")) == (True, False)


def test_schema_that_cannot_be_used_names_its_place() -> None:
    broken = functions(tools=[tool("f", parameters={"type": "x"})])
    with pytest.raises(BadRequest) as caught:
        broken.checked("f", {})
    assert caught.value.param == "tools[0].function.parameters.type"


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        functions(tools=[tool("f"), {"type": "web_search"}])
    assert caught.value.param == "tools[1].type"
    with pytest.raises(BadRequest):
        functions(tools=[tool("f")], tool_choice={"type": "function", "function": {"name": "h"}})


def test_arguments_are_written_as_json_with_chinese_as_it_is() -> None:
    assert written({"a": "北京"}) == '{"a": "北京"}'
