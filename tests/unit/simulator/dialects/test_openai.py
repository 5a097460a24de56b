from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.simulator.dialects.openai import OpenAIProgram
from gateway.simulator.exchange import ModelError
from tests.unit.simulator.helpers import canned, chat, events, get, make, post, whole

TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "parameters": {"properties": {"city": {}}}}}
]


async def chunks(*messages: tuple[str, str], **fields: object) -> list[Any]:
    found = await events(make(OpenAIProgram, canned()), chat(*messages, stream=True, **fields))
    assert found[-1] == "data: [DONE]"
    return [json.loads(event.removeprefix("data: ")) for event in found[:-1]]


async def test_reply_is_complete_and_counts_characters() -> None:
    _, reply = await whole(make(OpenAIProgram), chat(("system", "S"), ("user", "@@reply:hello@@")))
    assert list(reply) == ["id", "object", "created", "model", "choices", "usage"]
    message = {"role": "assistant", "content": "hello", "tool_calls": []}
    assert reply["choices"] == [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
    assert reply["usage"] == {"prompt_tokens": 16, "total_tokens": 21, "completion_tokens": 5}


async def test_every_choice_is_a_generation_of_its_own() -> None:
    _, reply = await whole(make(OpenAIProgram), chat(("user", "@@reply:hello@@"), n=3))
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2]
    assert reply["usage"]["completion_tokens"] == 15


@pytest.mark.parametrize(
    ("fields", "text", "finish"),
    [
        pytest.param({"max_tokens": 6}, "abcdef", "length", id="max-tokens"),
        pytest.param({"max_completion_tokens": 3, "max_tokens": 6}, "abc", "length", id="newer-name-wins"),
        pytest.param({"max_tokens": 12}, "abcdefghijkl", "stop", id="just-enough"),
        pytest.param({"stop": "ef"}, "abcd", "stop", id="stop-across-pieces"),
        pytest.param({"stop": ["jk", "c"]}, "ab", "stop", id="first-of-two"),
        pytest.param({"stop": "xyz"}, "abcdefghijkl", "stop", id="stop-that-never-comes"),
    ],
)
async def test_answer_ends_where_it_must(fields: dict[str, object], text: str, finish: str) -> None:
    _, reply = await whole(make(OpenAIProgram), chat(("user", "@@reply:abcdefghijkl@@"), **fields))
    assert (reply["choices"][0]["message"]["content"], reply["choices"][0]["finish_reason"]) == (text, finish)
    streamed = await chunks(("user", "@@reply:abcdefghijkl@@"), **fields)
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in streamed) == text
    assert streamed[-1]["choices"][0]["finish_reason"] == finish


async def test_stream_keeps_one_identity_and_tells_the_usage_if_asked() -> None:
    found = await chunks(("user", "@@reply:hello@@"), stream_options={"include_usage": True})
    assert len({(chunk["id"], chunk["created"]) for chunk in found}) == 1
    assert found[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert found[-1]["choices"] == []
    assert found[-1]["usage"]["completion_tokens"] == 5
    assert all("usage" not in chunk for chunk in await chunks(("user", "hi")))


async def test_tool_is_called_whole_and_streamed() -> None:
    _, reply = await whole(make(OpenAIProgram, canned()), chat(("user", "北京天气"), tools=TOOLS))
    (choice,) = reply["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert (choice["finish_reason"], call["function"]["arguments"]) == ("tool_calls", '{"city": "北京"}')
    named, argued, last = [
        chunk["choices"][0] for chunk in (await chunks(("user", "北京天气"), tools=TOOLS))[1:]
    ]
    assert named["delta"]["tool_calls"][0]["function"] == {"name": "get_weather", "arguments": ""}
    assert argued["delta"]["tool_calls"][0]["function"] == {"arguments": '{"city": "北京"}'}
    assert last["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    ("choice", "finish"),
    [
        pytest.param("auto", "stop", id="auto"),
        pytest.param("none", "stop", id="none"),
        pytest.param("required", "tool_calls", id="required"),
        pytest.param({"type": "function", "function": {"name": "get_weather"}}, "tool_calls", id="named"),
    ],
)
async def test_tool_choice_is_obeyed(choice: object, finish: str) -> None:
    request = chat(("user", "hello"), tools=TOOLS, tool_choice=choice)
    _, reply = await whole(make(OpenAIProgram, canned()), request)
    assert reply["choices"][0]["finish_reason"] == finish


async def test_plain_answer_with_tools_streams_as_text() -> None:
    found = await chunks(("user", "hello"), tools=TOOLS)
    assert "hello" in found[1]["choices"][0]["delta"]["content"]
    assert found[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        pytest.param({"temperature": 3}, "temperature", id="temperature"),
        pytest.param({"n": 0}, "n", id="n"),
        pytest.param({"max_tokens": 0}, "max_tokens", id="max-tokens"),
        pytest.param({"messages": []}, "messages", id="no-messages"),
        pytest.param({"messages": [{"role": "critic", "content": "x"}]}, "messages.0.role", id="role"),
    ],
)
async def test_bad_field_is_a_400_that_names_it(fields: dict[str, object], param: str) -> None:
    status, body = await whole(make(OpenAIProgram), chat(("user", "q"), **fields))
    assert (status, body["error"]["param"], body["error"]["type"]) == (400, param, "BadRequestError")


async def test_body_that_is_no_object_is_a_400() -> None:
    assert (await whole(make(OpenAIProgram), post("/v1/chat/completions", [1])))[0] == 400


async def test_parts_and_null_contents_are_taken() -> None:
    messages = [
        {"role": "assistant", "content": None},
        {"role": "user", "content": [{"type": "text", "text": "@@reply:ok@@"}]},
    ]
    _, reply = await whole(
        make(OpenAIProgram), post("/v1/chat/completions", {"model": "m", "messages": messages})
    )
    assert reply["choices"][0]["message"]["content"] == "ok"


async def test_model_error_is_a_500_or_a_broken_stream() -> None:
    assert (await whole(make(OpenAIProgram), chat(("user", "@@raise@@"))))[0] == 500
    with pytest.raises(ModelError):
        await events(make(OpenAIProgram), chat(("user", "@@raise@@"), stream=True))


async def test_health_and_models_are_there() -> None:
    assert await whole(make(OpenAIProgram), get("/health")) == (200, None)
    assert (await whole(make(OpenAIProgram), get("/v1/models")))[1]["data"][0]["object"] == "model"
