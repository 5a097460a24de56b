from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest

from gateway.dialects.base import Outgoing, Profile
from gateway.dialects.glm4v import GLM4VDialect
from gateway.errors import ContextExceeded
from gateway.formats.openai import read_chat

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9j/AA==", "odd": None}}


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def ask(*messages: dict[str, Any], **profile: Any) -> Outgoing:
    chat = read_chat(json.dumps({"messages": messages}).encode())
    before = deepcopy(chat.body)
    outgoing = GLM4VDialect().ask(chat, Profile(model="m", **profile), stream=False)
    assert chat.body == before
    return outgoing


def sent(outgoing: Outgoing) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = json.loads(outgoing.body)["messages"]
    return messages


def test_the_server_answers_one_at_a_time_and_is_asked_for_its_models() -> None:
    dialect = GLM4VDialect()
    assert (dialect.name, dialect.context, dialect.probe) == ("glm4v", 8192, "/v1/models")
    assert dialect.honours == frozenset()


def test_the_context_is_8192_tokens_unless_configured() -> None:
    question = {"role": "user", "content": "x" * 29_100}
    with pytest.raises(ContextExceeded):
        ask(question)
    assert ask(question, context=9000).budget == 1024


def test_an_image_part_passes_with_members_nobody_here_knows() -> None:
    assert sent(ask({"role": "user", "content": [IMAGE]})) == [{"role": "user", "content": [IMAGE]}]


@pytest.mark.parametrize(
    ("messages", "content"),
    [
        pytest.param(
            [{"role": "user", "content": [text("a"), IMAGE, text("b")]}, {"role": "user", "content": "c"}],
            [text("a"), IMAGE, text("b\n\nc")],
            id="a-text-joins-the-last-text",
        ),
        pytest.param(
            [{"role": "user", "content": [IMAGE]}, {"role": "user", "content": "c"}],
            [IMAGE, text("c")],
            id="a-text-after-an-image-alone",
        ),
        pytest.param(
            [{"role": "user", "content": [IMAGE]}, {"role": "user", "content": [IMAGE]}],
            [IMAGE, IMAGE],
            id="images-alone",
        ),
        pytest.param(
            [{"role": "user", "content": ""}, {"role": "user", "content": [IMAGE]}],
            [IMAGE],
            id="an-empty-text-adds-no-part",
        ),
        pytest.param(
            [{"role": "user", "content": [IMAGE]}, {"role": "user", "content": ""}],
            [IMAGE],
            id="nor-behind",
        ),
        pytest.param(
            [{"role": "assistant", "content": "x"}, {"role": "user", "content": [IMAGE]}],
            [text("x"), IMAGE],
            id="a-leading-answer-folded",
        ),
    ],
)
def test_contents_of_one_turn_become_one(
    messages: list[dict[str, Any]], content: list[dict[str, Any]]
) -> None:
    assert sent(ask(*messages, leading_assistant="fold")) == [{"role": "user", "content": content}]


def test_all_system_texts_together_make_the_agreed_pair() -> None:
    system, question = {"role": "system", "content": "S"}, {"role": "user", "content": [IMAGE]}
    contents = [message["content"] for message in sent(ask(system, question, system, system="pair"))]
    assert contents == ["S\n\nS", "好的。", [IMAGE]]


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([{"role": "system", "content": "S"}], id="alone"),
        pytest.param([{"role": "system", "content": ""}, {"role": "user", "content": "S"}], id="empty"),
    ],
)
def test_no_pair_is_made_of_a_system_text_that_asks_or_says_nothing(messages: list[dict[str, Any]]) -> None:
    assert sent(ask(*messages, system="pair")) == [{"role": "user", "content": "S"}]


def test_only_the_texts_of_parts_are_counted() -> None:
    parts = [text("a" * 39), IMAGE, text("b" * 39)]
    assert ask({"role": "user", "content": parts}).prompt_tokens == 3 + 3 + 21


def test_empty_answer_before_a_picture_is_a_blank() -> None:
    talk: list[dict[str, Any]] = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": [IMAGE]},
    ]
    assert [turn["content"] for turn in sent(ask(*talk))] == ["q", " ", [IMAGE]]
    assert sent(ask(*talk[:2], {"role": "user", "content": "r"}))[1]["content"] == ""
