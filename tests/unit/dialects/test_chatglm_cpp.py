from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects.base import Outgoing, Profile
from gateway.dialects.chatglm_cpp import ChatGLMCppDialect
from gateway.dialects.shared.budget import with_margin
from gateway.errors import ContextExceeded
from gateway.formats import sse
from gateway.formats.events import Delta, Event, Finish, ToolPiece
from gateway.formats.native import NativeRequest
from gateway.formats.openai import chat_of_pairs, read_chat

TOOL = {"type": "function", "function": {"name": "f"}}


def ask(
    text: str = "hi", stream: bool = False, members: dict[str, Any] | None = None, **profile: Any
) -> Outgoing:
    body = {"messages": [{"role": "user", "content": text}], **(members or {})}
    chat = read_chat(json.dumps(body).encode())
    return ChatGLMCppDialect().ask(chat, Profile(model="m", **profile), stream=stream)


def test_the_server_is_asked_one_thing_at_a_time() -> None:
    dialect = ChatGLMCppDialect()
    assert (dialect.name, dialect.context) == ("chatglm-cpp", 4096)
    assert dialect.probe == "/v1/models"


@pytest.mark.parametrize("family", ["chatglm", "chatglm2", "chatglm3", "glm4"])
def test_the_context_is_4096_tokens_whatever_the_model(family: str) -> None:
    with pytest.raises(ContextExceeded):
        ask("x" * 14_600, family=family)
    assert ask("x" * 14_200, family=family, prompt_window=4096).total == 4096


@pytest.mark.parametrize("family", ["chatglm", "chatglm2", "chatglm3", "glm4"])
def test_of_a_prompt_over_the_window_only_what_the_server_keeps_is_counted_into_its_limit(
    family: str,
) -> None:
    assert ask("x" * 14_200, family=family).total == 512 + 1024
    few = {"max_tokens": 7}
    assert ask("x" * 14_200, members=few, family=family, prompt_window=100).total == 107
    short = ask("hi", members=few, family=family)
    assert short.total == with_margin(short.prompt_tokens) + 7


def whole(content: str, prompt: int, completion: int, **members: Any) -> list[Event]:
    outgoing = ask("x" * 8000, members=members, family="chatglm3")
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return ChatGLMCppDialect().answer(outgoing, json.dumps({"choices": [choice], "usage": usage}).encode())


def test_finish_goes_by_the_servers_own_count_of_the_prompt() -> None:
    # The estimate for the prompt alone exceeds max_length. Only the server knows how much of it was kept.
    assert whole("y", 512, 99, max_tokens=100)[1] == Finish("stop")
    assert whole("y", 512, 100, max_tokens=100)[1] == Finish("length")
    assert whole("y", 530, 82, max_tokens=100)[1] == Finish("length")


@pytest.mark.parametrize("family", ["chatglm2", "chatglm3", "glm4"])
@pytest.mark.parametrize("pieces", [["\n 你好", "！"], ["\n", " ", "你", "好！"], ["\n你好！"], ["你好！"]])
def test_leading_newline_is_removed_from_streams_and_whole_answers(family: str, pieces: list[str]) -> None:
    outgoing = ask(stream=True, family=family)
    decoder = ChatGLMCppDialect().decoder(outgoing)
    deltas = [{"role": "assistant"}, *({"content": piece} for piece in pieces)]
    events = [sse.SseEvent(json.dumps({"choices": [{"delta": delta}]})) for delta in deltas]
    said = [out for event in events for out in decoder.feed(event)]
    assert "".join(one.text for one in said if isinstance(one, Delta)) == "你好！"
    choice = {"message": {"role": "assistant", "content": "".join(pieces)}, "finish_reason": "stop"}
    answer = ChatGLMCppDialect().answer(outgoing, json.dumps({"choices": [choice]}).encode())
    assert answer[0] == Delta("你好！")


@pytest.mark.parametrize(
    ("text", "profile", "notes"),
    [
        pytest.param("x" * 1930, {}, (), id="511-tokens-are-read-whole"),
        pytest.param("x" * 1940, {}, ("prompt_window",), id="514-are-cut"),
        pytest.param("x" * 1940, {"prompt_window": 2048}, (), id="a-wider-window"),
        pytest.param("hi", {"prompt_window": 16}, ("prompt_window",), id="a-narrower-one"),
    ],
)
def test_a_prompt_the_server_will_cut_is_asked_and_noted(
    text: str, profile: dict[str, Any], notes: tuple[str, ...]
) -> None:
    outgoing = ask(text, **profile)
    assert outgoing.notes == notes
    assert json.loads(outgoing.body)["messages"][-1]["content"] == text


def test_tools_are_counted_as_part_of_the_prompt() -> None:
    with_tools = ask(members={"tools": [TOOL]}, family="chatglm3")
    assert with_tools.prompt_tokens > ask(family="chatglm3").prompt_tokens
    assert with_tools.tool_names == {"f"}


def test_a_native_clients_length_is_sent_as_it_is() -> None:
    chat = chat_of_pairs(NativeRequest("hi", max_length=100), "m", empty_halves=False)
    outgoing = ChatGLMCppDialect().ask(chat, Profile(model="m"), stream=False)
    assert (outgoing.total, outgoing.budget) == (100, 83)


def answer(calls: list[dict[str, Any]]) -> bytes:
    message = {"role": "assistant", "content": "raw", "tool_calls": calls}
    return json.dumps({"choices": [{"message": message, "finish_reason": "function_call"}]}).encode()


def call(name: str) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": "{}"}, "type": "function"}


def test_calls_come_without_an_id_which_is_left_to_the_door() -> None:
    outgoing = ask(members={"tools": [TOOL]}, family="chatglm3")
    assert ChatGLMCppDialect().answer(outgoing, answer([call("f")])) == [
        Delta(tools=(ToolPiece(0, "{}", None, "f"),)),
        Finish("tool_calls"),
    ]


def test_one_wrong_call_makes_text_of_all() -> None:
    outgoing = ask(members={"tools": [TOOL]}, family="chatglm3")
    events = ChatGLMCppDialect().answer(outgoing, answer([call("f"), call("g")]))
    assert events == [Delta("raw"), Finish("stop")]


def test_named_tool_is_offered_alone() -> None:
    other = {"type": "function", "function": {"name": "g"}}
    choice = {"type": "function", "function": {"name": "g"}}
    outgoing = ask(members={"tools": [TOOL, other], "tool_choice": choice}, family="chatglm3")
    assert outgoing.tool_names == {"g"}
    assert outgoing.ignored == ("tool_choice",)


def test_a_choice_of_the_old_form_is_reported_by_its_own_name() -> None:
    members = {"functions": [TOOL["function"]], "function_call": {"name": "f"}}
    assert ask(members=members, family="chatglm3").ignored == ("function_call",)


@pytest.mark.parametrize(("events", "reason"), [(20, "length"), (19, "stop")])
def test_stream_cut_at_its_limit_is_told_by_the_number_of_its_events(events: int, reason: str) -> None:
    decoder = ChatGLMCppDialect().decoder(ask(stream=True, members={"max_tokens": 20}, family="chatglm3"))
    deltas = [{"role": "assistant"}, *[{"content": "7"}] * events]
    for delta in deltas:
        decoder.feed(sse.SseEvent(json.dumps({"choices": [{"delta": delta}]})))
    end = sse.SseEvent(json.dumps({"choices": [{"delta": {}, "finish_reason": "stop"}]}))
    assert decoder.feed(end) == [Finish(reason)]  # type: ignore[arg-type]  # a plain text here
