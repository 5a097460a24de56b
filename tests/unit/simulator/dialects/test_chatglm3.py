from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.simulator.dialects.chatglm3 import ChatGLM3Of2023, ChatGLM3Of2024, ChatGLM3Program
from gateway.simulator.exchange import ModelError, Stream
from gateway.simulator.program import Program
from tests.unit.simulator.helpers import canned, chat, deltas, events, get, make, post, whole

TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "parameters": {"properties": {"city": {}}}}}
]


async def heard(program: Program, *messages: tuple[str, str], **fields: object) -> Any:
    _, reply = await whole(program, chat(*messages, **fields))
    return json.loads(reply["choices"][0]["message"]["content"])


@pytest.mark.parametrize(
    ("program", "keys"),
    [
        pytest.param(ChatGLM3Program, ["model", "id", "object", "choices", "created", "usage"], id="2024-05"),
        pytest.param(ChatGLM3Of2024, ["object", "choices", "created", "usage"], id="2024-01"),
        pytest.param(ChatGLM3Of2023, ["model", "object", "choices", "created", "usage"], id="2023-11"),
    ],
)
async def test_reply_has_the_keys_of_its_variant(program: type[Program], keys: list[str]) -> None:
    _, reply = await whole(make(program), chat(("user", "hi")))
    assert list(reply) == keys


async def test_tools_replace_the_first_system_text_only_in_the_newest() -> None:
    messages = (("system", "S"), ("system", "T"), ("user", "hi"))
    newest = await heard(make(ChatGLM3Program), *messages, tools=TOOLS)
    elder = await heard(make(ChatGLM3Of2024), *messages, tools=TOOLS)
    assert [entry["content"] for entry in newest["history"][1:]] == ["T"]
    assert [entry["content"] for entry in elder["history"][1:]] == ["S", "T"]


async def test_budget_cuts_the_answer_and_the_last_token_gets_lost() -> None:
    _, reply = await whole(make(ChatGLM3Program), chat(("user", "@@reply:abcdefghijkl@@"), max_tokens=9))
    assert reply["choices"][0]["message"]["content"] == "abcde"
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert reply["usage"]["completion_tokens"] == 8


@pytest.mark.parametrize("budget", [1, 2])
async def test_budget_too_small_for_a_text_gives_none(budget: int) -> None:
    _, reply = await whole(make(ChatGLM3Program), chat(("user", "@@reply:abc@@"), max_tokens=budget))
    assert reply["choices"][0]["message"]["content"] == ""


async def test_stream_of_seven_characters_has_no_event() -> None:
    assert await events(make(ChatGLM3Program), chat(("user", "@@reply:short@@"), stream=True)) == []
    assert len(await events(make(ChatGLM3Program), chat(("user", "@@reply:longer@@"), stream=True))) == 3


async def test_stream_with_an_early_get_is_one_chunk() -> None:
    items = await deltas(make(ChatGLM3Program), chat(("user", "@@reply:get_x early@@"), stream=True))
    assert [item["delta"] for item in items[:-1]] == [{"role": "assistant", "content": "\n get_x early"}, {}]
    assert items[-1] == "[DONE]"


async def test_stream_with_a_late_get_ends_in_all_its_text_raw() -> None:
    *chunks, last = await events(
        make(ChatGLM3Program), chat(("user", "@@reply:some code get_x()@@"), stream=True)
    )
    contents = [
        json.loads(chunk.removeprefix("data: "))["choices"][0]["delta"]["content"] for chunk in chunks
    ]
    assert contents == ["\n some code", " get"]
    assert last == "data: \r\ndata:  some code get_x()"


async def test_canned_model_calls_a_tool_and_quotes_its_result() -> None:
    program = make(ChatGLM3Program, canned())
    _, reply = await whole(program, chat(("user", "北京天气"), tools=TOOLS))
    choice = reply["choices"][0]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"] == {"name": "get_weather", "arguments": '{"city": "北京"}'}
    _, reply = await whole(program, chat(("user", "北京天气"), ("function", "晴 3C"), tools=TOOLS))
    assert "晴 3C" in reply["choices"][0]["message"]["content"]


async def test_streamed_call_of_a_tool_is_made_up() -> None:
    items = await deltas(
        make(ChatGLM3Program, canned()), chat(("user", "北京天气"), tools=TOOLS, stream=True)
    )
    text = "".join(item["delta"].get("content", "") for item in items[:-1])
    assert text == "\n The tool returned: "


async def test_2023_streams_the_call_and_finishes_twice() -> None:
    functions = [tool["function"] for tool in TOOLS]
    items = await deltas(
        make(ChatGLM3Of2023, canned()), chat(("user", "北京天气"), functions=functions, stream=True)
    )
    assert [item["finish_reason"] for item in items[-3:-1]] == ["function_call", "stop"]
    assert items[-3]["delta"]["function_call"] == {"name": "get_weather", "arguments": '{"city": "北京"}'}


@pytest.mark.parametrize("program", [ChatGLM3Program, ChatGLM3Of2024, ChatGLM3Of2023])
async def test_stream_ends_with_done(program: type[Program]) -> None:
    items = await deltas(make(program), chat(("user", "@@reply:hello world@@"), stream=True))
    assert items[-1] == "[DONE]"
    assert items[-2]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("message", "status"),
    [
        pytest.param({"role": "tool", "content": "x"}, 422, id="role-tool"),
        pytest.param({"role": "user", "content": None}, 422, id="null"),
        pytest.param({"role": "user"}, 500, id="absent"),
        pytest.param({"role": "assistant", "content": "a"}, 400, id="last-assistant"),
    ],
)
async def test_unfit_message_is_refused(message: dict[str, object], status: int) -> None:
    request = post("/v1/chat/completions", {"model": "m", "messages": [message]})
    assert (await whole(make(ChatGLM3Program), request))[0] == status


async def test_2023_has_neither_health_nor_embeddings() -> None:
    assert (await whole(make(ChatGLM3Of2023), get("/health")))[0] == 404
    assert (await whole(make(ChatGLM3Of2023), post("/v1/embeddings", {})))[0] == 404
    assert (await whole(make(ChatGLM3Program), get("/health"))) == (200, None)


async def test_embeddings_of_a_lone_text_are_miscounted() -> None:
    _, reply = await whole(make(ChatGLM3Program), post("/v1/embeddings", {"model": "m", "input": "ab c"}))
    assert len(reply["data"]) == 1
    assert reply["usage"] == {"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 4}


@pytest.mark.parametrize("program", [ChatGLM3Program, ChatGLM3Of2024])
async def test_tools_that_are_neither_an_object_nor_a_list_of_objects_are_a_422(
    program: type[ChatGLM3Program],
) -> None:
    for tools, places in (
        ("x", [["body", "tools", "dict[any,any]"], ["body", "tools", "list[dict[any,any]]"]]),
        ([1], [["body", "tools", "dict[any,any]"], ["body", "tools", "list[dict[any,any]]", 0]]),
    ):
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "tools": tools}
        status, answer = await whole(make(program), post("/v1/chat/completions", body))
        assert status == 422
        assert [problem["loc"] for problem in answer["detail"]] == places


async def test_null_temperature_cuts_a_stream_of_2023_behind_its_role_and_is_a_500_whole() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": None}
    assert (await whole(make(ChatGLM3Of2023), post("/v1/chat/completions", body)))[0] == 500
    stream = await make(ChatGLM3Of2023).answer(post("/v1/chat/completions", body | {"stream": True}))
    assert isinstance(stream, Stream)
    assert b'"role": "assistant"' in await anext(stream.events)
    with pytest.raises(ModelError):
        await anext(stream.events)
