from __future__ import annotations

import json

import pytest

from gateway.simulator.dialects.chatglm_cpp_native import ChatGLMCppNativeProgram
from tests.unit.simulator.helpers import get, make, post, whole


async def test_history_reaches_the_model_as_messages_and_comes_back_as_pairs() -> None:
    _, reply = await whole(
        make(ChatGLMCppNativeProgram), post("/", {"prompt": "hi", "history": [["a", "b"]]})
    )
    heard = json.loads(reply["response"])
    assert heard["history"] == [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert reply["history"] == [["a", "b"], ["hi", reply["response"]]]


async def test_temperature_zero_is_greedy() -> None:
    _, reply = await whole(make(ChatGLMCppNativeProgram), post("/", {"prompt": "hi", "temperature": 0}))
    assert json.loads(reply["response"])["params"]["do_sample"] is False


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        pytest.param({"history": None}, 422, id="history-null"),
        pytest.param({"history": [["a"]]}, 422, id="half-a-pair"),
        pytest.param({"max_length": None}, 422, id="length-null"),
        pytest.param({"max_length": 80000}, 500, id="too-long"),
        pytest.param({"prompt": None}, 422, id="prompt-null"),
        pytest.param({"prompt": "@@raise@@"}, 500, id="model-error"),
        pytest.param({"unknown": 1}, 200, id="unknown-key"),
    ],
)
async def test_fields_are_checked(fields: dict[str, object], status: int) -> None:
    assert (await whole(make(ChatGLMCppNativeProgram), post("/", {"prompt": "hi", **fields})))[0] == status


async def test_root_answers_a_get_with_405() -> None:
    assert (await whole(make(ChatGLMCppNativeProgram), get("/")))[0] == 405
