"""The end of the gateway while answers are being made: told to clients, never a cut."""

from __future__ import annotations

import asyncio
import json

import httpx

from gateway.server import running
from gateway.simulator import Options, Simulator
from tests.support.stack import configured, wait_until

LONG = Options(dialect="openai", speed=20, reply="一二三四五六七八九十" * 40)
BODY = {"model": "m", "messages": [{"role": "user", "content": "你好"}]}


async def ask(url: str, began: asyncio.Event, *, stream: bool) -> tuple[int, str]:
    """Give status and text of an answer; `began` is set with its first byte."""
    async with (
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as http,
        http.stream("POST", "/v1/chat/completions", json={**BODY, "stream": stream}) as answer,
    ):
        pieces: list[str] = []
        async for piece in answer.aiter_text():
            began.set()
            pieces.append(piece)
        return answer.status_code, "".join(pieces)


async def ended_in_the_middle(*, stream: bool) -> tuple[int, str]:
    """Ask, end the gateway while the answer is being made, and give what the client got."""
    began = asyncio.Event()
    async with Simulator(LONG) as simulator, asyncio.TaskGroup() as group:
        settings = configured({"gpu-0": (simulator.url, "openai")})
        short = settings.model_copy(update={"server": settings.server.model_copy(update={"drain": 0.1})})
        async with running(short) as run:
            asking = group.create_task(ask(run.url, began, stream=stream))
            await wait_until(lambda: simulator.in_flight == 1)
            if stream:
                await began.wait()
        await wait_until(lambda: simulator.in_flight == 0)
        return await asking


async def test_who_waits_is_told_at_once_and_who_is_served_may_finish() -> None:
    short = Options(dialect="chatglm", latency=0.5, reply="你好")
    began = asyncio.Event()
    async with Simulator(short) as simulator, asyncio.TaskGroup() as group:
        extra = "[health]\nprobes = false\n"
        async with running(configured({"gpu-0": (simulator.url, "chatglm")}, extra)) as run:
            served = group.create_task(ask(run.url, began, stream=False))
            await wait_until(lambda: simulator.in_flight == 1)
            waiting = group.create_task(refusal(run.url))
            await wait_until(lambda: run.gateway.dispatcher.queue_depth("m") == 1)
            waiting.add_done_callback(lambda _: order.append("refused"))
            served.add_done_callback(lambda _: order.append("served"))
            order: list[str] = []
        answer = await waiting
    assert order == ["refused", "served"]
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "draining")
    assert int(answer.headers["retry-after"]) >= 1
    assert (await served)[0] == 200
    assert simulator.started == 1


async def refusal(url: str) -> httpx.Response:
    """Ask and give whatever comes."""
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as http:
        return await http.post("/v1/chat/completions", json=BODY)


async def test_a_stream_past_the_drain_limit_ends_with_an_error_event() -> None:
    status, text = await ended_in_the_middle(stream=True)
    events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert status == 200
    assert json.loads(events[-1])["error"]["code"] == "draining"
    assert "[DONE]" not in text
    assert '"finish_reason":"stop"' not in text


async def test_a_whole_answer_past_the_drain_limit_is_a_503_in_the_envelope() -> None:
    status, text = await ended_in_the_middle(stream=False)
    assert status == 503
    assert json.loads(text)["error"]["code"] == "draining"
