from __future__ import annotations

import asyncio

import httpx
import pytest

from gateway.simulator import Options, Simulator
from tests.unit.simulator.helpers import Pauses, until

CHAT = {"model": "m", "messages": [{"role": "user", "content": "@@reply:a text of some length@@"}]}


async def test_reply_has_the_head_of_a_real_server() -> None:
    async with Simulator(Options(dialect="chatglm")) as simulator, httpx.AsyncClient() as client:
        response = await client.post(simulator.url, json={"prompt": "hi"})
    assert list(response.headers) == ["date", "server", "content-length", "content-type"]
    assert (response.headers["server"], response.headers["content-type"]) == ("uvicorn", "application/json")


async def test_stream_has_the_head_of_a_real_server() -> None:
    async with Simulator(Options(dialect="chatglm3")) as simulator, httpx.AsyncClient() as client:
        response = await client.post(simulator.url + "/v1/chat/completions", json={**CHAT, "stream": True})
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["transfer-encoding"] == "chunked"
    assert response.text.endswith("data: [DONE]\r\n\r\n")


@pytest.mark.parametrize(
    ("fault", "status", "text"),
    [
        pytest.param("status:503", 503, '{"detail":"Service Unavailable"}', id="status"),
        pytest.param("status:500", 500, "Internal Server Error", id="plain-500"),
        pytest.param("garbage", 200, '{"response": "half a rep', id="garbage"),
    ],
)
async def test_fault_replaces_one_reply(fault: str, status: int, text: str) -> None:
    async with Simulator(Options(faults=(fault,))) as simulator, httpx.AsyncClient() as client:
        first = await client.post(simulator.url, json={"prompt": "hi"})
        second = await client.post(simulator.url, json={"prompt": "hi"})
        assert (simulator.started, simulator.completed) == (2, 1)
    assert (first.status_code, first.text) == (status, text)
    assert second.status_code == 200


async def test_empty_is_a_good_reply_without_a_text() -> None:
    async with Simulator(Options(faults=("empty",))) as simulator, httpx.AsyncClient() as client:
        reply = await client.post(simulator.url, json={"prompt": "hi"})
    assert reply.json()["response"] == ""


async def test_missing_response_spoils_an_otherwise_good_reply() -> None:
    async with Simulator(Options(faults=("missing-response",))) as simulator, httpx.AsyncClient() as client:
        reply = await client.post(simulator.url, json={"prompt": "hi"})
    assert list(reply.json()) == ["history", "status", "time"]


async def test_body_is_cut_after_so_many_bytes() -> None:
    async with Simulator(Options(faults=("cut:5",))) as simulator, httpx.AsyncClient() as client:
        with pytest.raises(httpx.RemoteProtocolError, match="received 5 bytes"):
            await client.post(simulator.url, json={"prompt": "hi"})


@pytest.mark.parametrize("count", [0, 2, 99])
async def test_stream_is_cut_after_so_many_events(count: int) -> None:
    options = Options(dialect="openai", faults=(f"cut:{count}",))
    received = bytearray()

    async def read() -> None:
        url = simulator.url + "/v1/chat/completions"
        async with client.stream("POST", url, json={**CHAT, "stream": True}) as response:
            async for part in response.aiter_bytes():
                received.extend(part)

    async with Simulator(options) as simulator, httpx.AsyncClient() as client:
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
            await read()
    assert received.count(b"\n\n") == min(count, 9)


async def test_slow_is_the_usual_reply_after_its_time() -> None:
    pauses = Pauses()
    options = Options(faults=("slow:7",), sleep=pauses.sleep)
    async with Simulator(options) as simulator, httpx.AsyncClient() as client:
        request = asyncio.ensure_future(client.post(simulator.url, json={"prompt": "hi"}))
        await until(lambda: pauses.waiting)
        pauses.release()
        reply = await request
    assert (reply.status_code, pauses.asked) == (200, [7.0])


async def test_fault_for_a_path_spares_generations() -> None:
    options = Options(dialect="chatglm3", faults=("status:503*always@/health",))
    async with Simulator(options) as simulator, httpx.AsyncClient() as client:
        assert (await client.get(simulator.url + "/health")).status_code == 503
        assert (await client.post(simulator.url + "/v1/chat/completions", json=CHAT)).status_code == 200
        assert (await client.get(simulator.url + "/health")).status_code == 503


async def test_openai_server_refuses_in_the_words_of_openai() -> None:
    options = Options(dialect="openai", faults=("status:429",))
    async with Simulator(options) as simulator, httpx.AsyncClient() as client:
        reply = await client.post(simulator.url + "/v1/chat/completions", json=CHAT)
    error = {"message": "Too Many Requests", "type": "TooManyRequests", "param": None, "code": 429}
    assert (reply.status_code, reply.json()) == (429, {"error": error})


async def test_request_body_may_be_anything() -> None:
    async with Simulator(Options(dialect="chatglm")) as simulator, httpx.AsyncClient() as client:
        reply = await client.post(simulator.url, content=b"\xff\xfe{")
        assert reply.status_code == 500
        assert simulator.requests[0].json is None
