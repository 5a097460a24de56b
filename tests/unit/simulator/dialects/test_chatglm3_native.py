from __future__ import annotations

import json

import pytest

from gateway.simulator.dialects.chatglm3_native import ChatGLM3NativeProgram, GLM4Native
from tests.unit.simulator.helpers import make, post, whole

PROGRAMS = pytest.mark.parametrize("program", [ChatGLM3NativeProgram, GLM4Native])
HISTORY = [{"role": "user", "content": "q"}, {"role": "assistant", "metadata": "", "content": "a"}]


@PROGRAMS
async def test_answer_joins_a_history_of_roles(program: type[ChatGLM3NativeProgram]) -> None:
    body = {"prompt": "@@reply:hello@@", "history": HISTORY}
    status, reply = await whole(make(program), post("/", body))
    assert status == 200
    assert list(reply) == ["response", "history", "status", "time"]
    assert reply["response"] == "hello"
    assert reply["history"] == [
        *HISTORY,
        {"role": "user", "content": body["prompt"]},
        {"role": "assistant", "metadata": "", "content": "hello"},
    ]


@PROGRAMS
async def test_zero_and_null_mean_not_given(program: type[ChatGLM3NativeProgram]) -> None:
    body = {"prompt": "b", "history": None, "max_length": 0, "temperature": 0}
    _, reply = await whole(make(program), post("/", body))
    heard = json.loads(reply["response"])
    assert heard["history"] == []
    assert (heard["params"]["max_length"], heard["params"]["temperature"]) == (2048, 0.95)


@PROGRAMS
@pytest.mark.parametrize(
    "history",
    [
        pytest.param([["q", "a"]], id="pairs"),
        pytest.param(["q"], id="texts"),
        pytest.param([{"role": "user"}], id="no-content"),
        pytest.param([{"role": "tool", "content": "x"}], id="unknown-role"),
        pytest.param([{"role": "user", "content": None}], id="null"),
        pytest.param({"role": "user", "content": "x"}, id="one-object"),
    ],
)
async def test_history_of_any_other_form_is_a_500(
    program: type[ChatGLM3NativeProgram], history: object
) -> None:
    body = {"prompt": "x", "history": history}
    assert await whole(make(program), post("/", body)) == (500, "Internal Server Error")


@PROGRAMS
async def test_first_line_that_is_not_empty_makes_the_response_an_object(
    program: type[ChatGLM3NativeProgram],
) -> None:
    body = {"prompt": "@@raw@@ @@reply:A list:\\n1. a@@"}
    _, reply = await whole(make(program), post("/", body))
    assert reply["response"] == {"name": "A list:", "content": "1. a"}


async def test_answer_of_one_line_is_a_500_on_chatglm3_and_an_answer_on_glm4() -> None:
    body = {"prompt": "@@raw@@ @@reply:hello@@"}
    assert (await whole(make(ChatGLM3NativeProgram), post("/", body)))[0] == 500
    assert (await whole(make(GLM4Native), post("/", body)))[1]["response"] == "hello"
