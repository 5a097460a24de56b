from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects.base import Outgoing, Profile
from gateway.dialects.chatglm3 import ChatGLM3Dialect
from gateway.dialects.shared.v3_stream import V3Decoder
from gateway.errors import ContextExceeded, UnsupportedParameter, UpstreamGarbled
from gateway.formats.events import Delta, Event, Finish, ToolPiece, Usage
from gateway.formats.native import NativeRequest
from gateway.formats.openai import ChatRequest, chat_of_pairs, read_chat

PLAIN = Profile("served-name")
TOOL = {"type": "function", "function": {"name": "f"}}


def read(**body: Any) -> ChatRequest:
    return read_chat(json.dumps({"messages": [{"role": "user", "content": "q"}], **body}).encode())


def ask(profile: Profile = PLAIN, *, stream: bool = False, **body: Any) -> Outgoing:
    return ChatGLM3Dialect().ask(read(**body), profile, stream=stream)


def sent(outgoing: Outgoing) -> dict[str, Any]:
    body = json.loads(outgoing.body)
    assert isinstance(body, dict)
    return body


def test_the_backends_own_name_of_the_model_is_sent() -> None:
    assert sent(ask(model="alias"))["model"] == "served-name"


@pytest.mark.parametrize(
    ("profile", "body", "streams"),
    [
        pytest.param(PLAIN, {}, True, id="plain"),
        pytest.param(PLAIN, {"tools": [TOOL]}, False, id="tools"),
        pytest.param(PLAIN, {"tools": [TOOL], "tool_choice": "none"}, True, id="tools-not-to-be-used"),
        pytest.param(Profile("m", v3_stream="safe"), {}, False, id="safe"),
    ],
)
def test_it_streams_only_what_streams_well(profile: Profile, body: dict[str, Any], streams: bool) -> None:
    out = ask(profile, stream=True, **body)
    assert (out.streams, sent(out)["stream"]) == (streams, streams)
    assert out.abandon == ("close" if streams else "drain")
    assert not ask(profile, stream=False, **body).streams


@pytest.mark.parametrize(
    ("variant", "members"),
    [
        ("auto", {"tools", "functions"}),
        ("2023-11", {"functions"}),
        ("2024-01", {"tools"}),
        ("2024-05", {"tools"}),
    ],
)
def test_each_edition_gets_the_field_it_knows(variant: Any, members: set[str]) -> None:
    body = sent(ask(Profile("m", variant=variant), tools=[TOOL]))
    assert {"tools", "functions"} & set(body) == members
    assert {body[name][0]["name"] for name in members} == {"f"}


def test_only_offered_names_may_be_called() -> None:
    assert ask(tools=[TOOL]).tool_names == {"f"}
    assert ask(tools=[TOOL], tool_choice="none").tool_names == frozenset()


def test_the_offered_tools_count_into_the_prompt_once() -> None:
    text = '[{"name":"f","description":"","parameters":{"type":"object","properties":{}}}]'
    tokens = -(-len(text) * 10 // 39)
    for variant in ("auto", "2023-11", "2024-05"):
        out = ask(Profile("m", variant=variant), tools=[TOOL])
        assert out.prompt_tokens == 3 + 3 + 1 + tokens


def test_the_context_is_8192_tokens() -> None:
    question = [{"role": "user", "content": "é" * 7440}]
    out = ChatGLM3Dialect().ask(read(messages=question, max_tokens=80000), PLAIN, stream=False)
    assert (out.prompt_tokens, out.budget, out.total) == (7446, 746, None)
    with pytest.raises(ContextExceeded):
        ask(messages=[{"role": "user", "content": "é" * 7441}])


def test_a_native_clients_total_becomes_what_it_leaves() -> None:
    request = chat_of_pairs(NativeRequest("q", max_length=100), "m", empty_halves=False)
    assert ChatGLM3Dialect().ask(request, PLAIN, stream=False).budget == 100 - (3 + 3 + 1)
    large = chat_of_pairs(NativeRequest("q", max_length=80000), "m", empty_halves=False)
    assert ChatGLM3Dialect().ask(large, PLAIN, stream=False).budget == 8192 - (3 + 3 + 1)


def test_trimming_counts_the_system_text_where_it_will_stand() -> None:
    chat = [
        {"role": "system", "content": "系" * 50},
        {"role": "user", "content": "旧" * 100},
        {"role": "assistant", "content": "旧" * 100},
        {"role": "user", "content": "q"},
    ]
    out = ask(Profile("m", context=150, trim=True), messages=chat, tools=[TOOL])
    assert sent(out)["messages"] == [{"role": "user", "content": "系" * 50 + "\n\nq"}]


def answer(content: Any, **more: Any) -> list[Event]:
    out = ask(tools=[TOOL], max_tokens=10)
    message = {"role": "assistant", "content": content, **more.pop("message", {})}
    return ChatGLM3Dialect().answer(out, json.dumps({"choices": [{"message": message}], **more}).encode())


def usage(completion: Any) -> dict[str, Any]:
    return {"prompt_tokens": 5, "total_tokens": 5, "completion_tokens": completion}


def test_an_answer_comes_with_the_backends_count() -> None:
    assert answer("\n Hi", usage=usage(2)) == [Delta("Hi"), Finish("stop"), Usage(5, 2, "backend")]


@pytest.mark.parametrize(("completion", "reason"), [(8, "stop"), (9, "length"), (10, "length")])
def test_the_limit_is_told_from_the_backends_count(completion: int, reason: str) -> None:
    assert Finish(reason) in answer("Hi", usage=usage(completion))  # type: ignore[arg-type]  # a table's text


@pytest.mark.parametrize(
    "counted", [None, {}, usage(-1), usage("9"), usage(None), usage(True), usage(10**400), [9], "9"]
)
def test_a_count_that_cannot_be_is_not_believed(counted: Any) -> None:
    assert answer("Hi", usage=counted) == [Delta("Hi"), Finish("stop")]


def test_an_empty_answer_that_the_server_calls_finished_is_one() -> None:
    assert answer("", usage=usage(1))[0] == Finish("stop")


def test_a_call_is_one_piece_without_an_id() -> None:
    call = {"name": "f", "arguments": '{"a": 1}'}
    events = answer("f\n ...", message={"function_call": call}, usage=usage(4))
    assert events == [
        Delta(tools=(ToolPiece(0, '{"a": 1}', None, "f"),)),
        Finish("tool_calls"),
        Usage(5, 4, "backend"),
    ]


@pytest.mark.parametrize(
    "call",
    [
        pytest.param({"name": "x", "arguments": "{}"}, id="not-offered"),
        pytest.param({"name": "f", "arguments": "42"}, id="a-number"),
        pytest.param({"name": "f", "arguments": {"a": 1}}, id="not-a-text"),
        pytest.param({"name": "f"}, id="no-arguments"),
        pytest.param({}, id="empty"),
        pytest.param("f", id="a-text"),
    ],
)
def test_a_call_that_does_not_hold_is_a_text(call: Any) -> None:
    assert answer("f and x", message={"function_call": call}) == [Delta("f and x"), Finish("stop")]


def test_a_call_the_server_missed_is_found_in_the_text() -> None:
    events = answer("\n f\n ```python\ntool_call(a=1)\n```")
    assert events == [Delta(tools=(ToolPiece(0, '{"a":1}', None, "f"),)), Finish("tool_calls")]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"<html>",
        b"{}",
        b'{"choices":[]}',
        b'{"choices":[{}]}',
        b'{"choices":[{"message":{}}]}',
        b'{"choices":[{"message":{"content":null}}]}',
        b'{"choices":[{"message":{"content":5}}]}',
        b'{"choices":"x"}',
        b'{"detail":"Invalid request"}',
    ],
)
def test_what_is_no_answer_is_garbled(body: bytes) -> None:
    with pytest.raises(UpstreamGarbled):
        ChatGLM3Dialect().answer(ask(), body)


def test_streams_are_read_with_their_own_budget() -> None:
    out = ask(stream=True, max_tokens=3)
    decoder = ChatGLM3Dialect().decoder(out)
    assert isinstance(decoder, V3Decoder)
    assert decoder is not ChatGLM3Dialect().decoder(out)


def test_it_has_a_health_path_and_takes_messages() -> None:
    assert (ChatGLM3Dialect.probe, ChatGLM3Dialect.pairs) == ("/health", False)
    assert ChatGLM3Dialect.honours == frozenset({"tools"})


@pytest.mark.parametrize("variant", ["auto", "2023-11", "2024-01", "2024-05"])
@pytest.mark.parametrize("role", ["system", "developer"])
def test_system_text_after_an_answer_is_the_question_where_tools_are_offered(variant: Any, role: str) -> None:
    chat = [("system", "S"), ("user", "q"), ("assistant", "a"), (role, "Try again.")]
    messages = [{"role": one, "content": content} for one, content in chat]
    outgoing = ask(Profile("m", variant=variant), messages=messages, tools=[TOOL])
    assert sent(outgoing)["messages"] == [
        {"role": "user", "content": "S\n\nq"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "Try again."},
    ]


def test_several_system_texts_after_an_answer_leave_the_last_as_the_question() -> None:
    chat = [("user", "q"), ("assistant", "a"), ("system", "one"), ("system", "two")]
    messages = [{"role": one, "content": content} for one, content in chat]
    assert [one["content"] for one in sent(ask(messages=messages, tools=[TOOL]))["messages"]] == [
        "one\n\nq",
        "a",
        "two",
    ]


def test_system_text_after_a_tools_result_stands_before_the_first_question() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "7"},
        {"role": "system", "content": "S"},
    ]
    roles = [(one["role"], one["content"]) for one in sent(ask(messages=messages, tools=[TOOL]))["messages"]]
    assert roles[0] == ("user", "S\n\nq")
    assert roles[-1] == ("function", "7")


@pytest.mark.parametrize("members", [{"tools": [TOOL]}, {"functions": [TOOL["function"]]}])
def test_edition_that_replaces_a_clients_tools_is_never_sent_any(members: dict[str, Any]) -> None:
    (name,) = members
    with pytest.raises(UnsupportedParameter) as caught:
        ask(Profile("m", variant="2024-05-08"), **members)
    assert caught.value.param == name
    outgoing = ask(Profile("m", variant="2024-05-08", tools="ignore"), stream=True, **members)
    assert outgoing.ignored == (name,)
    assert outgoing.streams
    assert not {"tools", "functions", "agent"} & set(sent(outgoing))
