from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from gateway.dialects.shared.folding import AGREED, FoldedConversation, fold, plain_messages, told
from gateway.errors import BadRequest
from gateway.formats.openai import ChatRequest, Message, read_chat

message_of = TypeAdapter(Message).validate_python


def chat(*messages: dict[str, Any] | str) -> ChatRequest:
    """Return a chat. `u:text`, `a:text`, `s:text` and `d:text` are messages of the four roles."""
    roles = {"u": "user", "a": "assistant", "s": "system", "d": "developer"}
    whole = [{"role": roles[one[0]], "content": one[2:]} if isinstance(one, str) else one for one in messages]
    return read_chat(json.dumps({"messages": whole}).encode())


def call(name: str, arguments: str = "{}", call_id: str = "c1") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def shown(folded: FoldedConversation) -> list[Any]:
    return [*folded.history, folded.prompt.text]


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        pytest.param(["u:q"], ["q"], id="one-question"),
        pytest.param(["u:a", "a:b", "u:c"], [("a", "b"), "c"], id="pairs"),
        pytest.param(["s:S", "u:q"], ["S\n\nq"], id="system-first"),
        pytest.param(["d:S", "u:q"], ["S\n\nq"], id="developer"),
        pytest.param(["s:S", "s:T", "u:q"], ["S\n\nT\n\nq"], id="system-run"),
        pytest.param(["u:a", "a:b", "s:S", "u:c"], [("a", "b"), "S\n\nc"], id="system-middle"),
        pytest.param(["u:a", "s:S", "a:b", "u:c"], [("a", "b"), "S\n\nc"], id="system-before-an-answer"),
        pytest.param(["u:a", "s:S"], ["S\n\na"], id="system-last"),
        pytest.param(["u:a", "a:b", "s:S"], [("a", "b"), "S"], id="system-is-the-question"),
        pytest.param(["s:S"], ["S"], id="system-alone"),
        pytest.param(["s:", "u:q"], ["q"], id="empty-system"),
        pytest.param(["s:S", "u:"], ["S"], id="empty-question-behind-system"),
        pytest.param(["u:"], [""], id="empty-question"),
        pytest.param(["u:a", "u:b"], ["a\n\nb"], id="questions-run"),
        pytest.param(["u:a", "s:S", "u:b"], ["a\n\nS\n\nb"], id="system-inside-a-run"),
        pytest.param(["u:a", "a:b", "a:c", "u:d"], [("a", "b\n\nc"), "d"], id="answers-run"),
        pytest.param(["a:x", "a:y", "u:q"], [("", "x\n\ny"), "q"], id="leading-answers"),
        pytest.param(["s:S", "a:x", "u:q"], [("", "x"), "S\n\nq"], id="leading-answer-behind-system"),
        pytest.param(["u:a", "a:", "u:b"], [("a", ""), "b"], id="empty-answer"),
    ],
)
def test_a_chat_folds_into_pairs_and_a_question(messages: list[str], expected: list[Any]) -> None:
    assert shown(fold(chat(*messages))) == expected


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        pytest.param(["s:S", "u:q"], [("S", AGREED), "q"], id="first"),
        pytest.param(["s:S", "u:a", "a:b", "s:T", "u:c"], [("S\n\nT", AGREED), ("a", "b"), "c"], id="many"),
        pytest.param(["s:S"], ["S"], id="alone-it-is-the-question"),
        pytest.param(["s:", "u:q"], ["q"], id="empty"),
        pytest.param(["u:a", "a:b", "s:S"], [("a", "b"), "S"], id="last-behind-an-answer"),
    ],
)
def test_a_system_text_can_be_a_pair_of_its_own(messages: list[str], expected: list[Any]) -> None:
    assert shown(fold(chat(*messages), system="pair")) == expected


def test_a_leading_answer_can_go_before_the_question() -> None:
    folded = fold(chat("a:x", "u:a", "a:b", "u:c"), leading_assistant="fold")
    assert shown(folded) == [("x\n\na", "b"), "c"]


@pytest.mark.parametrize("messages", [["a:x"], ["u:q", "a:x"], ["u:q", "a:x", "a:y"]])
def test_an_answer_cannot_be_the_last_word(messages: list[str]) -> None:
    with pytest.raises(BadRequest) as caught:
        fold(chat(*messages))
    assert caught.value.param == "messages"


def test_calls_and_results_are_told_in_words() -> None:
    made = {
        "role": "assistant",
        "content": "Wait.",
        "tool_calls": [call("f", '{"a":1}'), call("g", "{}", "c2")],
    }
    results: list[dict[str, Any]] = [
        {"role": "tool", "tool_call_id": "c2", "content": "two"},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "one"}]},
    ]
    assert shown(fold(chat("u:q", made, *results))) == [
        ("q", 'Wait.\nCalled f with {"a":1}\nCalled g with {}'),
        "Tool g returned: two\n\nTool f returned: one",
    ]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        pytest.param(
            {"role": "tool", "tool_call_id": "x", "name": "f", "content": "1"},
            "Tool f returned: 1",
            id="name",
        ),
        pytest.param({"role": "tool", "content": "1"}, "Tool tool returned: 1", id="nothing"),
        pytest.param({"role": "function", "name": "f", "content": None}, "Tool f returned: ", id="function"),
    ],
)
def test_a_result_without_its_call_is_named_as_well_as_can_be(message: dict[str, Any], text: str) -> None:
    assert shown(fold(chat(message))) == [text]


def test_an_old_call_is_told_too() -> None:
    message = message_of({"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}})
    assert told(message, "messages[0]") == "Called f with {}"


def test_an_answer_of_null_is_empty_and_a_question_of_null_is_refused() -> None:
    assert plain_messages(chat({"role": "assistant", "content": None})) == [("assistant", "")]
    with pytest.raises(BadRequest) as caught:
        fold(chat("u:a", "a:b", {"role": "user", "content": None}))
    assert caught.value.param == "messages[2].content"


def test_a_part_that_is_no_text_is_refused_by_its_place() -> None:
    with pytest.raises(BadRequest) as caught:
        fold(chat("u:a", {"role": "user", "content": [{"type": "image_url"}]}))
    assert caught.value.param == "messages[1].content[0].type"


def test_dropping_the_oldest_pair_keeps_its_system_text() -> None:
    folded = fold(chat("s:S", "u:a", "a:b", "s:T", "u:c", "a:d", "u:e"))
    once = folded.without_oldest()
    assert shown(once) == [("S\n\nT\n\nc", "d"), "e"]
    assert shown(once.without_oldest()) == ["S\n\nT\n\ne"]


def test_dropping_a_pair_without_system_text_leaves_the_rest_alone() -> None:
    assert shown(fold(chat("u:a", "a:b", "u:c", "a:d", "u:e")).without_oldest()) == [("c", "d"), "e"]


def test_dropping_the_system_pair_keeps_its_text() -> None:
    folded = fold(chat("s:S", "u:a", "a:b", "u:c"), system="pair").without_oldest()
    assert shown(folded) == [("S\n\na", "b"), "c"]
