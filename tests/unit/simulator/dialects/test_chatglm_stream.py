from __future__ import annotations

import json

import pytest

from gateway.simulator.dialects.chatglm_stream import ChatGLMStreamProgram
from tests.unit.simulator.helpers import events, make, post, whole


async def test_chat_answers_whole() -> None:
    body = {"query": "@@reply:hello@@", "history": [["q", "a"]]}
    assert await whole(make(ChatGLMStreamProgram), post("/chat", body)) == (
        200,
        {
            "query": body["query"],
            "response": "hello",
            "history": [["q", "a"], [body["query"], "hello"]],
            "success": True,
        },
    )


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"history": []}, id="no-query"),
        pytest.param({"query": "x"}, id="no-history"),
        pytest.param({"query": 5, "history": []}, id="number"),
        pytest.param({"query": "@@raise@@", "history": []}, id="model-error"),
    ],
)
async def test_failed_chat_is_a_200_that_says_so(body: object) -> None:
    assert await whole(make(ChatGLMStreamProgram), post("/chat", body)) == (
        200,
        {"query": "", "response": "", "success": False},
    )


async def test_stream_tells_the_growing_answer_and_its_end() -> None:
    body = {"query": "@@reply:hello@@", "history": []}
    found = await events(make(ChatGLMStreamProgram), post("/stream", body))
    assert all(event.startswith("event: delta\r\ndata: ") for event in found)
    data = [json.loads(event.partition("data: ")[2]) for event in found]
    assert data[:2] == [
        {"delta": "hell", "response": "hell", "finished": False},
        {"delta": "o", "response": "hello", "finished": False},
    ]
    assert data[2] == {
        "query": body["query"],
        "delta": "[EOS]",
        "response": "hello",
        "history": [[body["query"], "hello"]],
        "finished": True,
    }


async def test_stream_of_a_bad_request_is_an_end_alone() -> None:
    (event,) = await events(make(ChatGLMStreamProgram), post("/stream", {"query": "x"}))
    assert json.loads(event.partition("data: ")[2])["finished"] is True


async def test_body_that_is_no_object_is_refused() -> None:
    assert (await whole(make(ChatGLMStreamProgram), post("/chat", [1])))[0] == 422
