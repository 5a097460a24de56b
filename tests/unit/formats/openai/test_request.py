"""Chat requests are read strictly and kept as they came."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from gateway.errors import BadRequest
from gateway.formats import openai
from gateway.formats.native import NativeRequest
from gateway.formats.openai import ChatRequest, Message

USER = {"role": "user", "content": "Hello"}
FUNCTION = {"name": "clock", "parameters": {"type": "object"}}
TOOL = {"type": "function", "function": FUNCTION}

message_of = TypeAdapter(Message).validate_python


def read(**body: Any) -> ChatRequest:
    return openai.read_chat(json.dumps({"model": "m", "messages": [USER], **body}).encode())


def refusal(**body: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        read(**body)
    return caught.value


def test_a_small_request_has_every_default() -> None:
    request = read()
    assert (request.model, request.stream, request.n, request.budget) == ("m", False, 1, None)
    assert (request.stops, request.offered, request.tool_mode) == ((), [], "none")
    assert request.total_length is None


def test_unknown_members_are_kept_for_those_who_know_them() -> None:
    request = read(messages=[{**USER, "mood": "good"}], guided_regex="a+")
    assert request.body["guided_regex"] == "a+"
    assert request.body["messages"][0]["mood"] == "good"


def test_null_is_absent() -> None:
    assert "temperature" not in read(temperature=None).body
    assert read(temperature=None, stream=None, n=None, tools=None).n == 1


def test_the_newer_name_of_the_budget_wins() -> None:
    assert read(max_tokens=5).budget == 5
    assert read(max_tokens=5, max_completion_tokens=7).budget == 7


@pytest.mark.parametrize(
    ("stop", "stops"),
    [("a", ("a",)), (["a", "b"], ("a", "b")), ([], ()), (None, ())],
)
def test_stops_are_read_in_both_forms(stop: Any, stops: tuple[str, ...]) -> None:
    assert read(stop=stop).stops == stops


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        pytest.param({"stream": True, "stream_options": {"include_usage": True}}, True, id="asked"),
        pytest.param({"stream": True, "stream_options": {"include_usage": False}}, False, id="refused"),
        pytest.param({"stream": True, "stream_options": {}}, False, id="unsaid"),
        pytest.param({"stream": True}, False, id="no-options"),
        pytest.param({"stream_options": {"include_usage": True}}, False, id="no-stream"),
    ],
)
def test_the_usage_chunk_comes_when_asked_for(body: dict[str, Any], wanted: bool) -> None:
    assert read(**body).include_usage is wanted


@pytest.mark.parametrize(
    ("body", "mode", "named", "legacy"),
    [
        pytest.param({}, "none", None, False, id="no-tools"),
        pytest.param({"tool_choice": "required"}, "none", None, False, id="choice-without-tools"),
        pytest.param({"tools": [TOOL]}, "auto", None, False, id="tools"),
        pytest.param({"tools": [TOOL], "tool_choice": "none"}, "none", None, False, id="none"),
        pytest.param({"tools": [TOOL], "tool_choice": "required"}, "required", None, False, id="required"),
        pytest.param(
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "clock"}}},
            "required",
            "clock",
            False,
            id="named",
        ),
        pytest.param({"functions": [FUNCTION]}, "auto", None, True, id="functions"),
        pytest.param({"functions": [FUNCTION], "function_call": "none"}, "none", None, True, id="old-none"),
        pytest.param(
            {"functions": [FUNCTION], "function_call": {"name": "clock"}},
            "required",
            "clock",
            True,
            id="old-named",
        ),
        pytest.param({"tools": [TOOL], "functions": [FUNCTION]}, "auto", None, False, id="both-forms"),
    ],
)
def test_tools_are_read_in_both_forms(
    body: dict[str, Any], mode: str, named: str | None, legacy: bool
) -> None:
    request = read(**body)
    assert (request.tool_mode, request.named_tool, request.legacy_functions) == (mode, named, legacy)
    names = [tool.function.name for tool in request.offered if tool.function]
    assert names == (["clock"] if "tools" in body or "functions" in body else [])


def test_calls_are_read_in_both_forms() -> None:
    function = {"name": "f", "arguments": "{}"}
    today = message_of({"role": "assistant", "tool_calls": [{"id": "c", "function": function}]})
    old = message_of({"role": "assistant", "function_call": function})
    assert [(call.id, call.function.name) for call in today.calls] == [("c", "f")]
    assert [(call.id, call.function.name) for call in old.calls] == [("", "f")]
    assert Message.of({"role": "user", "content": "x"}).calls == []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        pytest.param({"messages": []}, "messages", id="no-messages"),
        pytest.param({"messages": "Hello"}, "messages", id="messages-a-text"),
        pytest.param({"messages": [USER, {"content": "x"}]}, "messages[1].role", id="no-role"),
        pytest.param({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", id="odd-role"),
        pytest.param({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", id="odd-content"),
        pytest.param(
            {"messages": [{"role": "user", "content": [{"text": "x"}]}]},
            "messages[0].content[0].type",
            id="part-without-a-type",
        ),
        pytest.param({"temperature": 2.5}, "temperature", id="too-hot"),
        pytest.param({"temperature": "0.5"}, "temperature", id="temperature-a-text"),
        pytest.param({"top_p": -1}, "top_p", id="top_p-negative"),
        pytest.param({"max_tokens": -2}, "max_tokens", id="less-than-nothing-wanted"),
        pytest.param({"max_tokens": 2**31}, "max_tokens", id="too-much-wanted"),
        pytest.param({"max_completion_tokens": 1.5}, "max_completion_tokens", id="half-a-token"),
        pytest.param({"n": 0}, "n", id="no-choice"),
        pytest.param({"n": True}, "n", id="a-truth-is-no-number"),
        pytest.param({"stream": "yes"}, "stream", id="stream-a-text"),
        pytest.param({"tools": [{"function": FUNCTION}]}, "tools[0].type", id="tool-without-a-type"),
        pytest.param({"tool_choice": "sometimes"}, "tool_choice", id="odd-choice"),
        pytest.param({"top_logprobs": 21}, "top_logprobs", id="too-many-logprobs"),
    ],
)
def test_a_refusal_names_the_field_and_never_repeats_the_value(body: dict[str, Any], param: str) -> None:
    error = refusal(**body)
    assert error.param == param
    assert error.message.startswith(param)
    assert "robot" not in error.message


def test_a_missing_member_is_called_required() -> None:
    with pytest.raises(BadRequest, match=r"^messages is required\.$"):
        openai.read_chat(b'{"model":"m"}')


def test_a_request_is_shared_and_never_changed() -> None:
    request = read()
    with pytest.raises(AttributeError, match="never changed"):
        request.n = 2


def test_one_choice_of_several_asks_the_same_for_one() -> None:
    one = read(n=3, temperature=0.5).single()
    assert (one.n, one.temperature) == (1, 0.5)
    assert "n" not in one.body


def test_pairs_become_turns() -> None:
    native = NativeRequest("q", (("a", "b"), ("", "c")), max_length=90, temperature=0.5)
    whole = openai.chat_of_pairs(native, "m", empty_halves=True)
    assert [(one.role, one.content) for one in whole.messages] == [
        ("user", "a"),
        ("assistant", "b"),
        ("user", ""),
        ("assistant", "c"),
        ("user", "q"),
    ]
    assert (whole.total_length, whole.temperature, whole.top_p, whole.budget) == (90, 0.5, None, None)
    assert whole.single().total_length == 90


def test_empty_halves_are_left_out_where_roles_are_spoken() -> None:
    native = NativeRequest("q", (("", "c"), ("d", "")))
    request = openai.chat_of_pairs(native, "m", empty_halves=False)
    assert [one.content for one in request.messages] == ["c", "d", "q"]


def test_texts_are_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    message = message_of({"role": "user", "content": parts})
    assert openai.text_of(message, "messages[0]") == "a\nb"
    assert openai.text_of(message, "messages[0]", " ") == "a b"
    assert openai.text_of(Message.of({"role": "assistant"}), "messages[0]") == ""


@pytest.mark.parametrize("part", [{"type": "image_url", "image_url": {}}, {"type": "text"}])
def test_a_part_that_is_no_text_is_refused_by_its_place(part: dict[str, Any]) -> None:
    message = message_of({"role": "user", "content": [{"type": "text", "text": "a"}, part]})
    with pytest.raises(BadRequest) as caught:
        openai.text_of(message, "messages[4]")
    assert caught.value.param == "messages[4].content[1].type"


@pytest.mark.parametrize("value", [True, False, None])
def test_stream_options_are_read_in_one_look(value: bool | None) -> None:
    body = {
        "messages": [{"role": "user", "content": "q"}],
        "stream": True,
        "stream_options": {"include_usage": value},
    }
    chat = openai.read_chat(json.dumps(body).encode())
    assert chat.include_usage is bool(value)
    assert chat.raw


def test_equal_messages_have_equal_canonical_bytes_whatever_their_order() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    forms = (
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"tool_calls": [dict(reversed(call.items()))], "role": "assistant"},
    )
    one, other = (read(messages=[USER, form]).messages[1].canonical() for form in forms)
    assert one == other


def test_different_messages_have_different_canonical_bytes() -> None:
    forms = [
        {"role": "user", "content": "hi"},
        {"role": "system", "content": "hi"},
        {"role": "user", "content": "hi "},
        {"role": "user", "content": "hi", "name": "bob"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "user", "content": "\ud800"},
    ]
    assert len({read(messages=[form]).messages[0].canonical() for form in forms}) == len(forms)
