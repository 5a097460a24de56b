from __future__ import annotations

import json

import pytest

from gateway.simulator.dialects.chatglm2_openai import ChatGLM2OpenAIOnPydantic2, ChatGLM2OpenAIProgram
from gateway.simulator.exchange import CutError, ModelError
from tests.unit.simulator.helpers import chat, deltas, events, get, make, whole


@pytest.mark.parametrize(
    ("messages", "prompt", "history"),
    [
        pytest.param([("system", "S."), ("user", "q")], "S.q", [], id="system-glued"),
        pytest.param([("user", "1"), ("assistant", "2"), ("user", "q")], "q", [["1", "2"]], id="pair"),
        pytest.param(
            [("user", "1"), ("user", "2"), ("assistant", "3"), ("user", "q")], "q", [], id="odd-drops-all"
        ),
        pytest.param(
            [("assistant", "1"), ("assistant", "2"), ("user", "q")], "q", [], id="two-assistants-vanish"
        ),
    ],
)
async def test_messages_reach_the_model_as_the_server_maps_them(
    messages: list[tuple[str, str]], prompt: str, history: list[list[str]]
) -> None:
    _, reply = await whole(make(ChatGLM2OpenAIProgram), chat(*messages))
    heard = json.loads(reply["choices"][0]["message"]["content"])
    assert (heard["prompt"], heard["history"]) == (prompt, history)


async def test_reply_has_neither_id_nor_usage() -> None:
    _, reply = await whole(
        make(ChatGLM2OpenAIProgram), chat(("user", "@@reply:hi@@"), temperature=0.1, max_length=7)
    )
    assert list(reply) == ["model", "object", "choices", "created"]


@pytest.mark.parametrize(
    ("messages", "status"),
    [
        pytest.param([], 500, id="none"),
        pytest.param([("assistant", "a")], 400, id="last-assistant"),
        pytest.param([("tool", "a"), ("user", "q")], 422, id="role-tool"),
        pytest.param([("user", "@@raise@@")], 500, id="model-error"),
    ],
)
async def test_unfit_messages_are_refused(messages: list[tuple[str, str]], status: int) -> None:
    assert (await whole(make(ChatGLM2OpenAIProgram), chat(*messages)))[0] == status


async def test_stream_is_a_role_pieces_an_end_and_done() -> None:
    found = await deltas(make(ChatGLM2OpenAIProgram), chat(("user", "@@reply:hello@@"), stream=True))
    assert [choice["delta"] for choice in found[:-1]] == [
        {"role": "assistant"},
        {"content": "hell"},
        {"content": "o"},
        {},
    ]
    assert found[-1] == "[DONE]"


async def test_model_error_comes_after_the_first_chunk() -> None:
    with pytest.raises(ModelError):
        await events(make(ChatGLM2OpenAIProgram), chat(("user", "@@raise@@"), stream=True))


async def test_stream_on_pydantic_2_dies_without_a_chunk() -> None:
    program = make(ChatGLM2OpenAIOnPydantic2)
    with pytest.raises(CutError):
        await events(program, chat(("user", "hi"), stream=True))
    assert not program.gate.busy
    assert (await whole(program, chat(("user", "hi"))))[0] == 200


async def test_models_page_shows_a_borrowed_name() -> None:
    _, page = await whole(make(ChatGLM2OpenAIProgram), get("/v1/models"))
    assert page["data"][0]["id"] == "gpt-3.5-turbo"
