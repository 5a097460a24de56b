from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects.shared.v3_messages import V3Message, folded, translated
from gateway.errors import BadRequest
from gateway.formats.openai import read_chat

U: V3Message = {"role": "user", "content": "q"}
A: V3Message = {"role": "assistant", "content": "a"}
S: V3Message = {"role": "system", "content": "S"}
F: V3Message = {"role": "function", "content": "1", "name": "f"}


def said(role: str, text: str) -> V3Message:
    return {"role": role, "content": text}


def made(name: str = "f", call_id: str = "c1") -> dict[str, Any]:
    call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": "{}"}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def result(call_id: str, text: str | None = "1") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": text}


def translate(*messages: dict[str, Any]) -> list[V3Message]:
    return translated(read_chat(json.dumps({"messages": messages}).encode()))


def test_messages_stay_in_place() -> None:
    chat = [S, A, A, U, U, S, A, U]
    assert translate(*chat) == chat


def test_only_what_the_server_knows_is_sent() -> None:
    assert translate({"role": "developer", "content": "S", "name": "x"}, {**U, "name": "y", "z": 1}) == [S, U]


def test_a_call_and_its_result_are_told_in_the_old_words() -> None:
    sent = translate(U, made(), result("c1"))
    assert sent[1:] == [
        {
            "role": "assistant",
            "content": "f\n```python\ntool_call()\n```",
            "function_call": {"name": "f", "arguments": "{}"},
        },
        F,
    ]


def test_a_result_finds_its_call_however_far_back() -> None:
    sent = translate(U, made("f", "c1"), result("c1"), made("g", "c2"), result("c2"), U, result("c1"))
    assert [one.get("name") for one in sent if one["role"] == "function"] == ["f", "g", "f"]


def test_an_id_used_again_means_the_latest_call() -> None:
    sent = translate(U, made("f"), result("c1"), made("g"), result("c1"))
    assert [one.get("name") for one in sent if one["role"] == "function"] == ["f", "g"]


@pytest.mark.parametrize("content", ["", None, []])
def test_an_empty_result_is_a_blank(content: Any) -> None:
    assert translate(U, made(), {**result("c1"), "content": content})[-1]["content"] == " "


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        pytest.param([U, made(), result("c9")], "messages[2].tool_call_id", id="unknown-call"),
        pytest.param([U, result("c1"), made()], "messages[1].tool_call_id", id="result-before-its-call"),
        pytest.param([U, {"role": "tool", "content": "1"}], "messages[1].tool_call_id", id="id-missing"),
        pytest.param([U, A], "messages", id="answer-last"),
        pytest.param([U, made()], "messages", id="call-last"),
        pytest.param([U, made(name=""), result("c1")], "messages[1]", id="call-without-a-name"),
        pytest.param([U, made(name="a\nb"), result("c1")], "messages[1]", id="call-over-two-lines"),
        pytest.param(
            [U, made(name="a<|assistant|>b"), result("c1")], "messages[1]", id="call-that-would-be-cut"
        ),
        pytest.param([{"role": "user"}], "messages[0].content", id="no-question"),
        pytest.param(
            [S, {"role": "user", "content": [{"type": "x"}]}], "messages[1].content[0].type", id="part"
        ),
    ],
)
def test_what_the_server_would_choke_on_is_refused_by_its_place(messages: list[Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        translate(*messages)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        pytest.param([U], [U], id="nothing-to-fold"),
        pytest.param([S, U], [said("user", "S\n\nq")], id="first"),
        pytest.param([S, U, A, S, U], [said("user", "S\n\nS\n\nq"), A, U], id="all-of-them"),
        pytest.param([S, A, U], [A, said("user", "S\n\nq")], id="behind-an-answer"),
        pytest.param([S], [said("user", "S")], id="alone"),
        pytest.param([S, A, F], [said("user", "S"), A, F], id="no-question"),
        pytest.param([said("system", ""), U], [U], id="empty"),
        pytest.param([said("system", "")], [said("user", "")], id="empty-and-alone"),
        pytest.param([S, said("user", "")], [said("user", "S")], id="empty-question"),
    ],
)
def test_system_texts_go_before_the_first_question(
    messages: list[V3Message], expected: list[V3Message]
) -> None:
    assert folded(messages) == expected


def test_folding_changes_nothing_it_was_given() -> None:
    messages = [said("system", "S"), said("user", "q")]
    folded(messages)
    assert messages == [S, U]
