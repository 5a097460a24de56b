from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects import DIALECTS
from gateway.dialects.base import Profile
from gateway.errors import BadRequest
from gateway.formats import openai
from gateway.formats.events import Delta, ToolPiece
from gateway.formats.openai import AnswerChoice, ChatRequest

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
        ({**CALL, "id": 7}, {**CALL, "id": "7"}),
        ({"type": "function", "function": CALL["function"]}, {**CALL, "id": "call_1_0"}),
        ({**CALL, "type": None}, CALL),
        ({**CALL, "type": ""}, CALL),
        ({"id": "c", "type": "function", "name": "f", "arguments": "{}"}, CALL),
        ({**CALL, "function": {"name": "f", "arguments": [1]}},
         {**CALL, "function": {"name": "f", "arguments": "[1]"}}),
        ({**CALL, "function": {"name": "f", "arguments": 5}},
         {**CALL, "function": {"name": "f", "arguments": "5"}}),
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


TEXT = {"type": "text", "text": "a"}


@pytest.mark.parametrize(
    ("role", "content", "meant"),
    [
        ("tool", {"t": 20}, '{"t":20}'),
        ("tool", [1, 2], "[1,2]"),
        ("tool", [{"t": 20}], '[{"t":20}]'),
        ("function", 20, "20"),
        ("tool", True, "true"),
        ("tool", [TEXT], [TEXT]),
        ("assistant", ["a"], [TEXT]),
        ("assistant", [{"type": "output_text", "text": "a", "annotations": []}], [TEXT]),
        ("assistant", [{"type": "refusal", "refusal": "a"}], [TEXT]),
        ("assistant", [{"type": "thinking", "thinking": "hm"}, TEXT], [TEXT]),
        ("assistant", [{"type": "text", "text": None}], [{"type": "text", "text": ""}]),
        ("user", [{"type": "input_text", "text": "a"}], [TEXT]),
    ],
)
def test_contents_of_the_history_are_taken_in_every_form(role: str, content: Any, meant: Any) -> None:
    request = read_history({"role": role, "content": content, "tool_call_id": "c"})
    assert request.body["messages"][1]["content"] == meant


@pytest.mark.parametrize(
    ("ids", "results", "joined"),
    [
        (("a", "b"), (None, None), ["a", "b"]),
        (("a", "b"), ("b", ""), ["b", "a"]),
        ((None, None), (None, None), ["call_1_0", "call_1_1"]),
        ((None,), ("x",), ["call_1_0"]),
        ((7,), (7,), ["7"]),
        (("a",), ("x",), ["x"]),
        (("a",), (None, None), ["a", None]),
    ],
)
def test_results_without_an_id_are_those_of_the_calls_in_turn(ids: Any, results: Any, joined: Any) -> None:
    made: dict[str, Any] = {"role": "assistant", "tool_calls": [{**CALL, "id": one} for one in ids]}
    request = read_history(made, *({"role": "tool", "content": "1", "tool_call_id": one} for one in results))
    assert [message.tool_call_id for message in request.messages[2:-1]] == joined


@pytest.mark.parametrize("old", [{}, [], None])
def test_an_empty_old_call_is_none(old: Any) -> None:
    assert read_history({"role": "assistant", "content": "a", "function_call": old}).messages[1].calls == []


HISTORIES: dict[str, list[dict[str, Any]]] = {
    "ids-missing": [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]},
                    {"role": "tool", "content": {"t": 1}}],
    "one-call-as-an-object": [{"role": "assistant", "tool_calls": CALL},
                              {"role": "tool", "tool_call_id": "c", "content": None}],
    "thoughts": [{"role": "assistant", "reasoning_content": "hm",
                  "content": [{"type": "thinking", "thinking": "hm"}, {"type": "output_text", "text": "a"}]}],
    "refusal": [{"role": "assistant", "content": None, "refusal": "no", "audio": None, "annotations": []}],
    "old-form": [{"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": None}},
                 {"role": "function", "name": "f", "content": 5}],
}  # fmt: skip


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("history", HISTORIES)
def test_every_dialect_takes_odd_histories(history: str, name: str) -> None:
    request = read_history(*HISTORIES[history])
    for stream in (False, True):
        assert DIALECTS[name].ask(request, Profile("m"), stream=stream).body


def test_an_old_call_with_an_object_for_arguments_is_taken() -> None:
    request = read_history({"role": "assistant", "function_call": {"name": "f", "arguments": {"a": 1}}})
    assert request.messages[1].calls[0].function.arguments == '{"a":1}'


def test_what_is_in_order_passes_as_the_bytes_it_came_in() -> None:
    raw = json.dumps(
        {"messages": [USER, {"role": "assistant", "tool_calls": [CALL]}], "tools": [], "x": 1}
    ).encode()
    assert openai.read_chat(raw).raw == raw


def test_whatever_an_answer_holds_is_taken_back() -> None:
    choice = AnswerChoice()
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
