from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.errors import BadRequest
from gateway.formats import openai
from gateway.formats.openai import MEMBERS

USER = {"role": "user", "content": "Hello"}
SPOKEN_BY_PYDANTIC = (
    "Input",
    "valid ",
    "instance",
    "dictionary",
    "integer",
    "string",
    "validation",
    "unable to",
)


def said(**body: Any) -> str:
    with pytest.raises(BadRequest) as caught:
        openai.read_chat(json.dumps({"model": "m", "messages": [USER], **body}).encode())
    return caught.value.message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"messages": []}, "messages: it should be a list that is not empty."),
        ({"messages": [5]}, "messages[0]: it should be an object."),
        (
            {"messages": [{"role": "user", "content": 5}]},
            "messages[0].content: it should be a text or a list.",
        ),
        ({"temperature": 3}, "temperature: it should be at most 2."),
        ({"temperature": "1"}, "temperature: it should be a number."),
        ({"n": 1.5}, "n: it should be a whole number."),
        ({"n": 0}, "n: it should be at least 1."),
        ({"stream": "yes"}, "stream: it should be true or false."),
        ({"stop": 5}, "stop: it should be a text or a list."),
        ({"stop": "x" * 1025}, "stop: it should be a text of at most 1024 characters or a list."),
        ({"stream_options": 5}, "stream_options: it should be an object."),
        ({"response_format": "json"}, "response_format: it should be an object."),
        ({"tool_choice": "x"}, "tool_choice: it should be 'none', 'auto' or 'required' or an object."),
        ({"tool_choice": {"function": {}}}, "tool_choice.function.name is required."),
        ({"tools": [1] * 1025}, "tools: it should be of at most 1024 items."),
    ],
)
def test_a_complaint_says_in_plain_words_what_is_taken(body: dict[str, Any], message: str) -> None:
    assert said(**body) == message


def complaint(raw: bytes) -> str:
    """What is said of a body, "" where nothing is."""
    try:
        openai.read_chat(raw)
    except BadRequest as error:
        return error.message
    return ""


WRONG: list[Any] = [
    5,
    -5,
    1.5,
    1e30,
    "x",
    True,
    [],
    [5],
    [[]],
    ["x"],
    {},
    {"x": 5},
    [{}],
    [{"x": {}}],
    [None],
]


@pytest.mark.parametrize("name", sorted(MEMBERS.__annotations__))
def test_no_complaint_speaks_pydantic(name: str) -> None:
    for value in WRONG:
        for body in ({name: value}, {"messages": [{**USER, name: value}]}):
            told = complaint(json.dumps({"model": "m", "messages": [USER], **body}).encode())
            assert not any(word in told for word in SPOKEN_BY_PYDANTIC), told


def test_the_messages_of_a_tool_are_plain_too() -> None:
    call = {"role": "assistant", "tool_calls": [{"id": 5.5, "function": {"name": "f"}}]}
    assert said(messages=[call]) == "messages[0].tool_calls[0].id: it should be a text."
    assert (
        said(tools=[{"type": "function", "function": {"name": 5}}])
        == "tools[0].function.name: it should be a text."
    )
