from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.simulator.dialects.chatglm_cpp import ChatGLMCppOfGLM4, ChatGLMCppOfV3, ChatGLMCppProgram
from gateway.simulator.exchange import ModelError
from tests.unit.simulator.helpers import canned, chat, deltas, events, get, make, whole

TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "parameters": {"properties": {"city": {}}}}}
]


async def test_reply_hides_the_model_that_was_asked_for() -> None:
    _, reply = await whole(make(ChatGLMCppProgram), chat(("user", "@@reply:hello@@")))
    assert (reply["id"], reply["model"]) == ("chatcmpl", "default-model")
    assert reply["usage"] == {"prompt_tokens": 15, "completion_tokens": 5, "total_tokens": 20}


async def test_count_of_the_prompt_stops_at_the_window() -> None:
    _, reply = await whole(make(ChatGLMCppProgram), chat(("user", "x" * 600)))
    assert reply["usage"]["prompt_tokens"] == 512


async def test_call_has_no_identity_and_keeps_its_text() -> None:
    _, reply = await whole(make(ChatGLMCppProgram, canned()), chat(("user", "北京天气"), tools=TOOLS))
    (choice,) = reply["choices"]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["content"].startswith("get_weather\n")
    function = {"arguments": '{"city": "北京"}', "name": "get_weather"}
    assert choice["message"]["tool_calls"] == [{"function": function, "type": "function"}]


async def test_stream_ends_without_done() -> None:
    items = await deltas(make(ChatGLMCppProgram), chat(("user", "@@reply:hello@@"), stream=True))
    assert items[0] == {"delta": {"role": "assistant"}}
    assert items[-1] == {"delta": {}, "finish_reason": "stop"}


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        pytest.param({"max_tokens": 4097}, 500, id="too-long"),
        pytest.param({"max_tokens": -1}, 422, id="negative"),
        pytest.param({"temperature": 2.5}, 422, id="too-hot"),
        pytest.param({"top_p": None}, 422, id="null"),
        pytest.param(
            {"tools": [{"type": "function", "function": {"name": "f"}}]}, 422, id="tool-without-parameters"
        ),
    ],
)
async def test_field_out_of_range_is_refused(fields: dict[str, object], status: int) -> None:
    assert (await whole(make(ChatGLMCppProgram), chat(("user", "q"), **fields)))[0] == status


async def test_stream_too_long_breaks_behind_its_first_chunk() -> None:
    program = make(ChatGLMCppProgram)
    with pytest.raises(ModelError):
        await events(program, chat(("user", "q"), stream=True, max_tokens=4097))
    assert len(await events(program, chat(("user", "@@reply:hi@@"), stream=True))) == 3


async def test_empty_messages_are_refused_in_its_own_words() -> None:
    assert await whole(make(ChatGLMCppProgram), chat()) == (400, {"detail": "empty messages"})
    assert (await whole(make(ChatGLMCppProgram), get("/health")))[0] == 404


FAMILIES = pytest.mark.parametrize(
    ("program", "lead"), [(ChatGLMCppOfV3, "\n "), (ChatGLMCppOfGLM4, "\n")], ids=["chatglm3", "glm4"]
)


@FAMILIES
async def test_leading_newline_is_in_streams_only(program: type[ChatGLMCppProgram], lead: str) -> None:
    _, answer = await whole(make(program), chat(("user", "@@reply:hello@@")))
    assert answer["choices"][0]["message"]["content"] == "hello"
    found = await deltas(make(program), chat(("user", "@@reply:hello@@"), stream=True))
    assert "".join(choice["delta"].get("content", "") for choice in found) == f"{lead}hello"


@FAMILIES
async def test_answer_ends_where_the_kept_prompt_and_it_reach_the_limit(
    program: type[ChatGLMCppProgram], lead: str
) -> None:
    question = ("user", "x" * 1000 + "@@reply:0123456789@@")
    _, answer = await whole(make(program), chat(question, max_tokens=512 + len(lead) + 4))
    assert answer["choices"][0]["message"]["content"] == "0123"
    assert answer["usage"]["prompt_tokens"] == 512


@FAMILIES
async def test_limit_beyond_the_models_own_is_no_error_until_it_is_reached(
    program: type[ChatGLMCppProgram],
    lead: str,
) -> None:
    status, _ = await whole(make(program), chat(("user", "@@reply:hello@@"), max_tokens=80000))
    assert status == 200
    endless = replace(chat(("user", "hi"), max_tokens=80000), reply="y" * 4096)
    assert (await whole(make(program), endless))[0] == 500
