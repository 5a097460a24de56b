from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.errors import BadRequest
from gateway.wire import openai
from gateway.wire.events import Delta, ToolPiece
from gateway.wire.openai import ChatRequest, Choice

USER = {"role": "user", "content": "Hello"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def read(**body: Any) -> ChatRequest:
    return openai.read_chat(json.dumps({"model": "m", "messages": [USER], **body}).encode())


def read_history(*messages: dict[str, Any]) -> ChatRequest:
    return read(messages=[USER, *messages, USER])


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({**CALL, "id": None}, {**CALL, "id": "call_1_0"}),
        ({**CALL, "id": ""}, {**CALL, "id": "call_1_0"}),
        ({**CALL, "type": None}, CALL),
        ({**CALL, "function": {"name": "f", "arguments": {"a": [1]}}},
         {**CALL, "function": {"name": "f", "arguments": '{"a":[1]}'}}),
        ({**CALL, "function": {"name": "f", "arguments": None}}, CALL),
        ({**CALL, "function": {"name": "f", "arguments": []}}, CALL),
    ],
)  # fmt: skip
def test_a_call_of_the_history_is_taken_in_every_form(given: dict[str, Any], meant: dict[str, Any]) -> None:
    request = read_history({"role": "assistant", "content": None, "tool_calls": [given]})
    assert request.body["messages"][1]["tool_calls"] == [meant]
    assert request.raw == b""
    (call,) = request.messages[1].calls
    assert (call.id, call.function.arguments) == (meant["id"], meant["function"]["arguments"])


def test_an_old_call_with_an_object_for_arguments_is_taken() -> None:
    request = read_history({"role": "assistant", "function_call": {"name": "f", "arguments": {"a": 1}}})
    assert request.messages[1].calls[0].function.arguments == '{"a":1}'


def test_what_is_in_order_passes_as_the_bytes_it_came_in() -> None:
    raw = json.dumps(
        {"messages": [USER, {"role": "assistant", "tool_calls": [CALL]}], "tools": [], "x": 1}
    ).encode()
    assert openai.read_chat(raw).raw == raw


def test_whatever_an_answer_holds_is_taken_back() -> None:
    choice = Choice()
    choice.add(Delta("a", tools=(ToolPiece(0, "{}", None, "f"),), extras={"reasoning": "r", "audio": None}))
    for legacy in (False, True):
        more: dict[str, Any]
        for more in ({}, {"annotations": [], "audio": None, "function_call": None, "reasoning_content": "r"}):
            request = read_history({**more, **choice.message(legacy)})
            assert request.messages[1].content == "a"
    nothing: Any
    for nothing in (None, []):
        assert (
            read_history({"role": "assistant", "content": "a", "tool_calls": nothing}).messages[1].calls == []
        )


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_minus_one_is_no_limit_and_zero_is_one(name: str) -> None:
    assert name not in read(**{name: -1}).body
    assert read(**{name: -1}).budget is None
    assert read(**{name: 0}).body[name] == 0
    for wrong in (-2, -1.0, True, "-1"):
        with pytest.raises(BadRequest):
            read(**{name: wrong})


def test_phps_empty_objects_are_objects() -> None:
    parameters: Any = {"type": "object", "properties": [], "required": []}
    nested: Any = {
        "type": "object",
        "properties": {"a": parameters, "list": {"type": "array", "default": []}},
    }
    schemas: list[Any] = [[], parameters, nested]
    tools = [{"type": "function", "function": {"name": "f", "parameters": one}} for one in schemas]
    read_tools = [tool.function.parameters for tool in read(tools=tools).offered if tool.function]
    meant = {**parameters, "properties": {}}
    assert read_tools == [{}, meant, {**nested, "properties": {**nested["properties"], "a": meant}}]
    assert read(functions=[{"name": "f", "parameters": []}]).offered[0].function is not None
    for name in ("metadata", "logit_bias", "stream_options", "response_format", "tool_choice"):
        assert name not in read(**{name: []}).body


def test_half_of_a_surrogate_pair_is_replaced_and_not_sent_as_it_came() -> None:
    raw = json.dumps({"model": "m", "messages": [{"role": "user", "content": "a\ud800"}]}).encode()
    request = openai.read_chat(raw)
    assert request.messages[0].content == "a\ufffd"
    assert request.body["messages"][0]["content"] == "a\ufffd"
    assert request.raw == b""
