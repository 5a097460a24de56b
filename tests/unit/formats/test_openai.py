from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from gateway.errors import BadRequest, ContextExceeded, UpstreamError
from gateway.formats import jsontext, openai
from gateway.formats.events import Delta, Event, Finish, FinishReason, Repair, ToolPiece, Usage
from gateway.formats.native import NativeRequest
from gateway.formats.openai import AnswerChoice, ChatRequest, ChunkWriter, Message

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


# --- requests --------------------------------------------------------------------------------------


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


# --- answers ---------------------------------------------------------------------------------------

CALL = (ToolPiece(0, '{"a"', id="call_1", name="f"), ToolPiece(0, ":1}"))
USAGE = Usage(3, 4, "backend")


def choice(*deltas: Delta) -> AnswerChoice:
    made = AnswerChoice()
    for delta in deltas:
        made.add(delta)
    return made


def test_a_text_is_put_together() -> None:
    message = choice(Delta("Hel"), Delta("lo")).message(legacy=False)
    assert message == {"role": "assistant", "content": "Hello", "refusal": None}


def test_an_empty_text_is_a_text() -> None:
    assert choice().message(legacy=False)["content"] == ""


def test_a_call_is_put_together_and_has_no_content() -> None:
    message = choice(Delta(tools=CALL[:1]), Delta(tools=CALL[1:])).message(legacy=False)
    function = {"name": "f", "arguments": '{"a":1}'}
    assert message["content"] is None
    assert message["tool_calls"] == [{"id": "call_1", "type": "function", "function": function}]
    assert "function_call" not in message


def test_an_old_client_gets_its_function_call() -> None:
    made = choice(Delta(tools=CALL))
    made.finish = "tool_calls"
    told = made.object(0, legacy=True)
    assert told["message"]["function_call"] == {"name": "f", "arguments": '{"a":1}'}
    assert "tool_calls" not in told["message"]
    assert told["finish_reason"] == "function_call"


def test_calls_come_in_the_order_of_their_index() -> None:
    message = choice(
        Delta(tools=(ToolPiece(1, "{}", "b", "g"),)), Delta(tools=(ToolPiece(0, "{}", "a", "f"),))
    ).message(legacy=False)
    assert [call["id"] for call in message["tool_calls"]] == ["a", "b"]


def test_extras_and_logprobs_pass_unread() -> None:
    made = choice(
        Delta(extras={"reasoning": "be"}), Delta(extras={"reasoning": "cause"}), Delta(logprobs={"x": 1})
    )
    assert made.message(legacy=False)["reasoning"] == "because"
    assert made.object(0, legacy=False)["logprobs"] == {"x": 1}


def test_a_whole_completion_has_every_member_of_the_api() -> None:
    raw = openai.write_completion(
        answer_id="chatcmpl-1",
        created=5,
        model=b'"m"',
        choices=openai.write_choices({1: choice(Delta("b")), 0: choice(Delta("a"))}, legacy=False),
        usage=USAGE,
    )
    answer = json.loads(raw)
    assert (answer["id"], answer["object"], answer["created"], answer["model"]) == (
        "chatcmpl-1",
        "chat.completion",
        5,
        "m",
    )
    assert [one["message"]["content"] for one in answer["choices"]] == ["a", "b"]
    assert [one["index"] for one in answer["choices"]] == [0, 1]
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


@pytest.mark.parametrize(
    "made",
    [
        choice(),
        choice(Delta('"\u4f60\n'), Delta("\ud800")),
        choice(Delta("a", extras={"refusal": "no"})),
        choice(Delta("a", logprobs={"x": 1})),
        choice(Delta("a", tools=CALL)),
    ],
    ids=["empty", "text", "refusal", "logprobs", "call"],
)
@pytest.mark.parametrize("reason", [None, "stop", "length", "tool_calls"])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_choice_is_written_as_its_object(
    made: AnswerChoice, reason: FinishReason | None, legacy: bool
) -> None:
    made.finish = reason
    assert made.written(2, legacy) == jsontext.write(made.object(2, legacy))


@pytest.mark.parametrize("text", ["", "a", '"\u4f60\n', "\ud800"])
@pytest.mark.parametrize("reason", ["stop", "length", "content_filter"])
def test_a_text_is_written_as_a_choice_of_one_piece(text: str, reason: FinishReason) -> None:
    made = choice(Delta(text))
    made.finish = reason
    for legacy in (False, True):
        assert openai.write_text([Delta(text), Finish(reason), USAGE]) == (made.written(0, legacy), USAGE)


@pytest.mark.parametrize(
    "events",
    [
        [],
        [Delta("a"), Finish("stop")],
        [Delta("a"), Delta("b"), Finish("stop"), USAGE],
        [Delta("a", tools=CALL), Finish("tool_calls"), USAGE],
        [Delta("a", extras={"refusal": "no"}), Finish("stop"), USAGE],
        [Delta("a", logprobs={"x": 1}), Finish("stop"), USAGE],
        [Delta("a"), Finish("stop", 1), USAGE],
        [Finish("stop"), Delta("a"), USAGE],
        [Repair("no_finish"), Finish("stop"), USAGE],
    ],
)
def test_what_is_more_than_a_text_is_put_together(events: list[Event]) -> None:
    assert openai.write_text(events) is None


@pytest.mark.parametrize("details", [{}, {"prompt_tokens_details": {"cached_tokens": 1}}])
def test_usage_is_written_as_its_object(details: dict[str, Any]) -> None:
    usage = Usage(1, 2, "backend", details)
    made = openai.write_choices({0: choice()}, legacy=False)
    raw = openai.write_completion(
        answer_id="chatcmpl-1", created=5, model='"模"'.encode(), choices=made, usage=usage
    )
    answer = json.loads(raw)
    assert (answer["id"], answer["model"]) == ("chatcmpl-1", "模")
    assert answer["usage"] == openai.usage_object(usage)


def test_details_of_the_usage_pass() -> None:
    usage = Usage(1, 2, "backend", {"prompt_tokens_details": {"cached_tokens": 1}})
    assert openai.usage_object(usage)["prompt_tokens_details"] == {"cached_tokens": 1}


def writer(*, include_usage: bool = False, legacy: bool = False) -> ChunkWriter:
    return ChunkWriter(
        answer_id="chatcmpl-1", created=5, model="m", include_usage=include_usage, legacy=legacy
    )


def chunks(raw: bytes) -> list[dict[str, Any]]:
    return [json.loads(event.removeprefix(b"data: ")) for event in raw.split(b"\n\n")[:-1]]


def deltas(raw: bytes) -> list[dict[str, Any]]:
    return [chunk["choices"][0]["delta"] for chunk in chunks(raw)]


def test_a_stream_opens_each_choice_with_its_role_once() -> None:
    stream = writer()
    assert deltas(stream.delta(Delta("a"))) == [{"role": "assistant", "content": ""}, {"content": "a"}]
    assert deltas(stream.delta(Delta("b"))) == [{"content": "b"}]
    other = chunks(stream.delta(Delta("c", choice=1)))
    assert [one["choices"][0]["index"] for one in other] == [1, 1]
    assert other[0]["choices"][0]["delta"]["role"] == "assistant"


def test_every_chunk_bears_the_same_head() -> None:
    stream = writer()
    raw = stream.delta(Delta("a")) + stream.finish("stop")
    assert {(one["id"], one["object"], one["created"], one["model"]) for one in chunks(raw)} == {
        ("chatcmpl-1", "chat.completion.chunk", 5, "m")
    }
    assert all("usage" not in one for one in chunks(raw))


def test_a_stream_ends_with_its_reason() -> None:
    stream = writer()
    stream.delta(Delta("a"))
    (last,) = chunks(stream.finish("length"))
    assert last["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}


def test_an_empty_answer_is_still_opened() -> None:
    assert deltas(writer().finish("stop")) == [{"role": "assistant", "content": ""}, {}]


def test_a_piece_without_anything_writes_nothing_more_than_its_opening() -> None:
    stream = writer()
    assert len(chunks(stream.delta(Delta()))) == 1
    assert stream.delta(Delta()) == b""


def test_a_streamed_call_names_itself_once() -> None:
    stream = writer()
    opening, named = deltas(stream.delta(Delta(tools=CALL[:1])))
    assert opening == {"role": "assistant", "content": None}
    assert named["tool_calls"] == [
        {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a"'}}
    ]
    (rest,) = deltas(stream.delta(Delta(tools=CALL[1:])))
    assert rest["tool_calls"] == [{"index": 0, "function": {"arguments": ":1}"}}]
    (last,) = chunks(stream.finish("tool_calls"))
    assert last["choices"][0]["finish_reason"] == "tool_calls"


def test_an_old_client_gets_its_function_call_streamed() -> None:
    stream = writer(legacy=True)
    _, named = deltas(stream.delta(Delta(tools=CALL[:1])))
    assert named == {"function_call": {"name": "f", "arguments": '{"a"'}}
    assert deltas(stream.delta(Delta(tools=CALL[1:]))) == [{"function_call": {"arguments": ":1}"}}]
    assert chunks(stream.finish("tool_calls"))[0]["choices"][0]["finish_reason"] == "function_call"


def test_with_usage_asked_for_every_chunk_has_the_member_and_the_last_fills_it() -> None:
    stream = writer(include_usage=True)
    assert [one["usage"] for one in chunks(stream.delta(Delta("a")))] == [None, None]
    (last,) = chunks(stream.usage(USAGE))
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 7


def test_extras_of_a_piece_pass_into_its_chunk() -> None:
    assert deltas(writer().delta(Delta(extras={"reasoning": "x"})))[1] == {"reasoning": "x"}


# --- errors and models -----------------------------------------------------------------------------


def test_the_error_envelope_has_all_four_members() -> None:
    error = ContextExceeded("Too long.", param="messages")
    assert json.loads(openai.write_error(error)) == {
        "error": {
            "message": "Too long.",
            "type": "invalid_request_error",
            "param": "messages",
            "code": "context_length_exceeded",
        }
    }
    assert openai.error_object(UpstreamError("No."))["error"]["param"] is None


def test_models_are_listed_and_shown_alike() -> None:
    listed = json.loads(openai.write_models(["a", "b"], 5))
    assert listed["object"] == "list"
    assert [one["id"] for one in listed["data"]] == ["a", "b"]
    assert json.loads(openai.write_model("a", 5)) == listed["data"][0]


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
