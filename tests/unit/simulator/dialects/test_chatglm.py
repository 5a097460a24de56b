from __future__ import annotations

import json
import re

import pytest

from gateway.simulator.dialects.chatglm import ChatGLM2Program, ChatGLMProgram, native_reply
from tests.unit.simulator.helpers import canned, get, make, post, whole


@pytest.mark.parametrize("program", [ChatGLMProgram, ChatGLM2Program])
async def test_answer_joins_the_callers_history(program: type[ChatGLMProgram]) -> None:
    body = {"prompt": "@@reply: hello \\n@@", "history": [["q", "a"]]}
    status, reply = await whole(make(program), post("/", body))
    assert status == 200
    assert list(reply) == ["response", "history", "status", "time"]
    assert reply["response"] == "hello"
    assert reply["history"] == [["q", "a"], [body["prompt"], "hello"]]


async def test_zero_and_null_mean_not_given() -> None:
    body = {"prompt": "b", "history": None, "max_length": 0, "top_p": 0, "temperature": None}
    _, reply = await whole(make(ChatGLMProgram), post("/", body))
    params = {"do_sample": True, "max_length": 2048, "temperature": 0.95, "top_p": 0.7}
    assert json.loads(reply["response"]) == {
        "stub": "chatglm-6b",
        "prompt": "b",
        "history": [],
        "params": params,
    }


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{", id="broken"),
        pytest.param([1], id="list"),
        pytest.param({"history": []}, id="no-prompt"),
        pytest.param({"prompt": 5}, id="number"),
        pytest.param({"prompt": "x", "history": [["a", "b", "c"]]}, id="three-in-a-row"),
        pytest.param({"prompt": "x", "history": "abc"}, id="history-text"),
        pytest.param({"prompt": "x", "history": [5]}, id="history-numbers"),
        pytest.param(b'{"prompt": "\\ud83d"}', id="lone-surrogate"),
    ],
)
async def test_everything_indigestible_is_the_same_500(body: object) -> None:
    assert await whole(make(ChatGLM2Program), post("/", body)) == (500, "Internal Server Error")


async def test_only_the_root_is_there() -> None:
    assert (await whole(make(ChatGLMProgram), get("/v1/models")))[0] == 404
    assert (await whole(make(ChatGLMProgram), get("/")))[0] == 405
    assert (await whole(make(ChatGLMProgram), get("/openapi.json")))[0] == 200


async def test_canned_model_answers_for_itself() -> None:
    _, reply = await whole(make(ChatGLM2Program, canned()), post("/", {"prompt": "你好"}))
    assert "chatglm2-6b" in reply["response"]


def test_time_of_a_reply_names_no_zone() -> None:
    reply = json.loads(native_reply("q", [], "a").body)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", reply["time"])
