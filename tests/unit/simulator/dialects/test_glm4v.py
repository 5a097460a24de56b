from __future__ import annotations

import asyncio

import pytest

from gateway.simulator.dialects.glm4v import GLM4VProgram
from gateway.simulator.exchange import ModelError, Stream
from tests.unit.simulator.helpers import chat, deltas, events, get, make, post, whole


async def test_reply_never_finishes_and_counts_backwards() -> None:
    _, reply = await whole(make(GLM4VProgram), chat(("user", "@@reply:hello@@")))
    assert reply["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": "hello", "name": None}}
    ]
    assert reply["usage"]["completion_tokens"] < 0


async def test_stream_ends_in_an_empty_delta_without_done() -> None:
    items = await deltas(make(GLM4VProgram), chat(("user", "@@reply:hello@@"), stream=True))
    assert items[-1] == {"index": 0, "delta": {}}


@pytest.mark.parametrize(
    ("content", "status"),
    [
        pytest.param(
            [{"type": "text", "text": "a"}, {"type": "text", "text": "@@reply:ok@@"}], 200, id="texts"
        ),
        pytest.param([{"type": "image_url", "image_url": {"url": "http://x"}}], 500, id="picture"),
        pytest.param([{"type": "sound"}], 422, id="unknown-part"),
        pytest.param(None, 422, id="null"),
    ],
)
async def test_parts_are_joined_or_refused(content: object, status: int) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": content}]}
    assert (await whole(make(GLM4VProgram), post("/v1/chat/completions", body)))[0] == status


async def test_system_text_is_an_error_of_the_model() -> None:
    assert (await whole(make(GLM4VProgram), chat(("system", "S"), ("user", "q"))))[0] == 500
    with pytest.raises(ModelError):
        await events(make(GLM4VProgram), chat(("system", "S"), ("user", "q"), stream=True))


async def test_there_is_a_models_page_and_no_health() -> None:
    assert (await whole(make(GLM4VProgram), get("/health")))[0] == 404
    assert (await whole(make(GLM4VProgram), get("/v1/models")))[0] == 200


async def test_last_assistant_is_refused() -> None:
    assert await whole(make(GLM4VProgram), chat(("assistant", "a"))) == (400, {"detail": "Invalid request"})


async def test_whole_answer_holds_the_loop_and_a_stream_does_not() -> None:
    program = make(GLM4VProgram)
    whole_answer = asyncio.ensure_future(program.answer(chat(("user", "@@sleep:60@@"))))
    await asyncio.sleep(0)
    assert program.gate.busy
    whole_answer.cancel()
    await asyncio.wait({whole_answer})
    stream = await make(GLM4VProgram).answer(chat(("user", "@@sleep:60@@"), stream=True))
    assert isinstance(stream, Stream)
    assert stream.linger is None  # it runs on to its end without its client
    await stream.events.aclose()
