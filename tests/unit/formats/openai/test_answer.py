"""Whole answers are put together from events and written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from gateway.formats import jsontext, openai
from gateway.formats.events import Delta, Event, Finish, FinishReason, Repair, ToolPiece, Usage
from gateway.formats.openai import AnswerChoice, Message

USER = {"role": "user", "content": "Hello"}
FUNCTION = {"name": "clock", "parameters": {"type": "object"}}
TOOL = {"type": "function", "function": FUNCTION}

message_of = TypeAdapter(Message).validate_python


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
