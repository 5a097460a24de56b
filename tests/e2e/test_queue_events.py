"""Waiting in the queue, seen by a reader like a browser's and by the newest OpenAI SDK, on real ports."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk

from gateway.formats.sse import SseEvent, SseParser
from gateway.simulator import Options
from tests.support.stack import Stack, client, stack, wait_until

ASKED = {"x-gateway-queue-events": "true"}
NOT_ASKED = {"x-gateway-queue-events": "false"}
BODY: dict[str, Any] = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}


@contextlib.asynccontextmanager
async def busy(events: str = "") -> AsyncIterator[Stack]:
    """A gateway over one card that works for somebody else until the next has waited for a while."""
    extra = f"[queue]\nkeepalive = 0.02\n{events}"
    free = asyncio.Event()

    async def work(_: float) -> None:
        await free.wait()

    async def end_soon() -> None:
        await wait_until(lambda: one.run.gateway.dispatcher.queue_depth("m") == 1)
        asyncio.get_running_loop().call_later(0.1, free.set)

    async with stack(Options(dialect="chatglm2", reply="hello", latency=1, sleep=work), extra) as one:
        server = one.settings.server.model_copy(update={"stream_head_wait": 0.0})
        one.run.reconfigure(one.settings.model_copy(update={"server": server}))
        async with client(one) as http, asyncio.TaskGroup() as group:
            first = group.create_task(http.post("/v1/chat/completions", json=BODY | {"stream": False}))
            await wait_until(lambda: one.in_flight() == 1)
            group.create_task(end_soon())
            yield one
            assert (await first).status_code == 200


async def test_a_reader_like_a_browsers_can_show_the_place() -> None:
    async with busy() as one, client(one) as http:
        answer = await http.post("/v1/chat/completions", json=BODY, headers=ASKED)
    events = SseParser().feed(answer.content)
    kinds = [event.type for event in events]
    told = [json.loads(event.data) for event in events if event.type == "queue"]
    assert told[0]["state"] == "queued"
    assert told[0]["position"] == 1
    assert told[0]["wait"] >= 0
    assert kinds == ["queue"] * len(told) + ["message"] * (len(kinds) - len(told))
    assert b"\n: " not in b"\n" + answer.content
    assert events[-1] == SseEvent("[DONE]")


async def wait_chunks(one: Stack, headers: dict[str, str]) -> list[ChatCompletionChunk]:
    """Everything that the SDK takes for a chunk."""
    async with openai.AsyncOpenAI(base_url=f"{one.url}/v1", api_key="none", max_retries=0) as sdk:
        stream = await sdk.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hi"}], stream=True, extra_headers=headers
        )
        return [chunk async for chunk in stream]


def text(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


@pytest.mark.parametrize("headers", [{}, {"x-gateway-queue-events": "false"}])
async def test_the_sdk_sees_nothing_of_the_queue_unless_it_is_asked_for(headers: dict[str, str]) -> None:
    async with busy("" if not headers else "events = true\n") as one:
        chunks = await wait_chunks(one, headers)
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert all(chunk.choices for chunk in chunks)
    assert text(chunks) == "hello"


async def test_the_sdk_takes_an_event_of_the_queue_for_a_chunk_without_choices() -> None:
    async with busy() as one:
        chunks = await wait_chunks(one, ASKED)
    kinds = [str(chunk.object) for chunk in chunks]
    told = kinds.count("queue")
    assert told > 0
    assert kinds == ["queue"] * told + ["chat.completion.chunk"] * (len(kinds) - told)
    assert all(chunk.choices == [] for chunk in chunks[:told])
    first = chunks[0].model_extra or {}
    assert (first["state"], first["position"]) == ("queued", 1)
    # Whoever goes through the choices gets the answer all the same; whoever takes the first one does not.
    assert text(chunks) == "hello"
    with pytest.raises(IndexError):
        _ = chunks[0].choices[0]


@pytest.mark.parametrize(
    ("style", "header", "what"),
    [
        pytest.param("chunks", {}, "chunks", id="chunks"),
        pytest.param("none", {}, "nothing", id="nothing"),
        pytest.param("events", {}, "events", id="events"),
        pytest.param("events", NOT_ASKED, "comments", id="events-not-wanted"),
        pytest.param("chunks", ASKED, "events", id="chunks-but-events-wanted"),
        pytest.param("none", ASKED, "events", id="nothing-but-events-wanted"),
        pytest.param("chunks", NOT_ASKED, "chunks", id="chunks-and-no-events-wanted"),
        pytest.param("comments", {}, "comments", id="comments"),
    ],
)
async def test_a_waiting_stream_is_kept_open_in_the_style_that_is_set(
    style: str, header: dict[str, str], what: str
) -> None:
    async with busy(f'keepalive_style = "{style}"\n') as one, client(one) as http:
        answer = await http.post("/v1/chat/completions", json=BODY, headers=header)
    lines = [line for line in answer.text.split("\n") if line]
    data = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    empty = [one for one in data if one["choices"] and one["choices"][0]["delta"] == {"content": ""}]
    seen = {
        "comments": any(line.startswith(":") for line in lines),
        "events": any(line.startswith("event: queue") for line in lines),
        "chunks": bool(empty),
    }
    assert {name for name, there in seen.items() if there} == ({what} - {"nothing"})
    texts = [one["choices"][0]["delta"].get("content") or "" for one in data if one["choices"]]
    assert "".join(texts) == "hello"
    if what in ("chunks", "nothing"):
        assert all(line.startswith("data: ") for line in lines)


async def test_the_sdk_adds_empty_chunks_as_nothing() -> None:
    async with busy('keepalive_style = "chunks"\n') as one:
        sdk = openai.AsyncOpenAI(base_url=f"{one.url}/v1", api_key="none")
        async with sdk, await sdk.chat.completions.create(**BODY) as chunks:
            texts = [chunk.choices[0].delta.content or "" async for chunk in chunks]
    assert "".join(texts) == "hello"
    assert len(texts) > 3
