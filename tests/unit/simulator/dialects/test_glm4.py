from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.simulator.dialects.glm4 import GLM4Program
from tests.unit.simulator.helpers import canned, chat, deltas, get, make, post, whole

TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "parameters": {"properties": {"city": {}}}}}
]


async def test_canned_model_calls_a_tool_in_the_shape_of_openai() -> None:
    _, reply = await whole(make(GLM4Program, canned()), chat(("user", "北京天气"), tools=TOOLS))
    (choice,) = reply["choices"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    assert choice["message"]["tool_calls"][0]["function"] == {
        "name": "get_weather",
        "arguments": '{"city": "北京"}',
    }


async def test_streamed_call_ends_without_done() -> None:
    items = await deltas(make(GLM4Program, canned()), chat(("user", "北京天气"), tools=TOOLS, stream=True))
    calls = [item["delta"]["tool_calls"][0]["function"] for item in items[:-1]]
    assert calls[0] == {"name": "get_weather", "arguments": ""}
    assert json.loads("".join(call["arguments"] for call in calls)) == {"city": "北京"}
    assert items[-1]["finish_reason"] == "tool_calls"


async def test_plain_stream_finishes_in_its_last_piece() -> None:
    items = await deltas(make(GLM4Program), chat(("user", "@@reply:hello@@"), stream=True))
    assert [(item["delta"]["content"], item["finish_reason"]) for item in items[:-1]] == [
        ("\nhel", None),
        ("lo", "stop"),
    ]
    assert items[-1] == "[DONE]"


async def test_stream_that_is_cut_by_its_budget_says_length() -> None:
    items = await deltas(make(GLM4Program), chat(("user", "@@reply:hello@@"), stream=True, max_tokens=4))
    assert (items[-2]["delta"]["content"], items[-2]["finish_reason"]) == ("\nhel", "length")


async def test_plain_answer_with_tools_is_one_chunk() -> None:
    items = await deltas(make(GLM4Program, canned()), chat(("user", "hello"), tools=TOOLS, stream=True))
    assert len(items) == 2


async def test_tool_choice_none_hides_the_tools() -> None:
    _, reply = await whole(make(GLM4Program), chat(("user", "hi"), tools=TOOLS, tool_choice="none"))
    assert json.loads(reply["choices"][0]["message"]["content"])["history"] == []


@pytest.mark.parametrize(
    ("tools", "contents"),
    [
        pytest.param(None, ["S", "S"], id="doubled-without-tools"),
        pytest.param(TOOLS, [None], id="lost-with-tools"),
    ],
)
async def test_system_text_is_doubled_or_lost(tools: object, contents: list[object]) -> None:
    _, reply = await whole(make(GLM4Program), chat(("system", "S"), ("user", "hi"), tools=tools))
    history = json.loads(reply["choices"][0]["message"]["content"])["history"]
    assert [entry["content"] for entry in history] == contents


@pytest.mark.parametrize(
    ("messages", "status"),
    [
        pytest.param([], 400, id="none"),
        pytest.param([("assistant", "a")], 400, id="last-assistant"),
        pytest.param([("function", "f")], 422, id="role-function"),
        pytest.param([("user", "@@raise@@")], 500, id="model-error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_unfit_messages_are_refused(messages: list[tuple[str, str]], status: int, stream: bool) -> None:
    assert (await whole(make(GLM4Program), chat(*messages, stream=stream)))[0] == status


async def test_health_and_models_are_there() -> None:
    assert await whole(make(GLM4Program), get("/health")) == (200, None)
    _, page = await whole(make(GLM4Program), get("/v1/models"))
    assert page["data"][0]["id"] == "glm-4"


@pytest.mark.parametrize(
    "members",
    [
        {"repetition_penalty": 0},
        {"repetition_penalty": 3},
        {"temperature": -1},
        {"top_p": 0},
        {"top_p": 1.1},
        {"max_tokens": -1},
    ],
)
async def test_value_that_vllm_refuses_is_a_500(members: dict[str, Any]) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **members}
    assert (await whole(make(GLM4Program), post("/v1/chat/completions", body)))[0] == 500


@pytest.mark.parametrize("member", ["tools", "tool_choice"])
async def test_tools_of_another_type_are_a_422(member: str) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], member: 7}
    assert (await whole(make(GLM4Program), post("/v1/chat/completions", body)))[0] == 422
