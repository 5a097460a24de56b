"""How one request moves to another backend, by the letters of the failover table (F1 to F16).

What holds for every dialect stands in the files of the faults; here it is the whole story of one call. Tries
are counted at the servers.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.faults.checks import (
    BOTH,
    EVERY_STREAM,
    PROMPT,
    SECRET,
    check_good,
    check_refused,
    limits,
    over,
    playing,
    reset_at_once,
    stay_silent,
)
from tests.faults.test_no_end import events
from tests.faults.test_refused import refusing
from tests.faults.test_server_error import failing
from tests.support.fleet import Server
from tests.support.peer import Talk, peer
from tests.support.tapes import REPLY, tape
from tests.support.visitor import ask

OPENAI = Server("openai", "openai")
SHORT = 0.15


@BOTH
async def test_f1_a_busy_backend_is_left_alone_for_as_long_as_it_says(stream: bool) -> None:
    good = await tape(OPENAI, stream=stream)
    times: list[float] = []

    async def busy(talk: Talk) -> None:
        while await talk.wait_request():
            times.append(asyncio.get_running_loop().time())
            await talk.send(failing(429, "retry-after: 2"))

    async with peer(busy) as here, peer(playing(*[good.chunked] * 2)) as other:
        async with over(OPENAI, here.url, other.url) as gateway:
            answer = await ask(gateway, stream=stream)
    check_good(answer, REPLY)
    assert answer.headers["x-gateway-attempts"] == "2"
    assert len(times) == 1


@BOTH
async def test_f3_one_500_costs_one_more_try(stream: bool) -> None:
    good = await tape(OPENAI, stream=stream)
    first: list[bytes] = []
    second: list[bytes] = []
    script = playing(failing(500), good.chunked, requests=first)
    async with peer(script) as here, peer(playing(*[good.chunked] * 2, requests=second)) as other:
        async with over(OPENAI, here.url, other.url) as gateway:
            check_good(await ask(gateway, stream=stream), REPLY)
    assert (len(first), len(second)) == (1, 1)


@BOTH
async def test_f4_tries_of_a_503_for_ever_are_bounded(stream: bool) -> None:
    requests: list[bytes] = []
    script = playing(*[failing(503)] * 10, requests=requests)
    async with peer(script) as here, peer(script) as other, over(OPENAI, here.url, other.url) as gateway:
        answer = await ask(gateway, stream=stream)
    check_refused(answer, 503, "overloaded")
    assert len(requests) <= 2


@BOTH
async def test_f5_a_reset_before_the_head_is_unseen(stream: bool) -> None:
    good = await tape(OPENAI, stream=stream)
    async with peer(reset_at_once) as here, peer(playing(good.chunked)) as other:
        async with over(OPENAI, here.url, other.url) as gateway:
            check_good(await ask(gateway, stream=stream), REPLY)
    assert (here.seen, other.seen) == (1, 1)


@EVERY_STREAM
async def test_f7_a_role_without_a_token_is_not_shown_and_fails_over(server: Server) -> None:
    good = await tape(server, stream=True)
    first = events(good.body)[0]
    role_alone = b'"role"' in first and REPLY[:1] not in json.dumps(_data(first), ensure_ascii=False)

    async def script(talk: Talk) -> None:
        if not (await talk.wait_request()).startswith(b"GET "):
            await talk.send(good.head("connection: close") + (first if role_alone else b": ping\n\n"))
        await talk.wait_left()

    async with peer(script) as here, peer(playing(good.chunked)) as other:
        times = limits(first_token=SHORT, total=4 * SHORT)
        async with over(server, here.url, other.url, extra=times, settle=False) as gateway:
            answer = await ask(gateway, stream=True)
    check_good(answer, REPLY)
    roles = [choice["delta"].get("role") for event in answer.events[:-1] for choice in event["choices"]]
    assert roles.count("assistant") == 1
    assert answer.seconds < PROMPT


def _data(event: bytes) -> Any:
    return json.loads(event.partition(b"data:")[2])


@BOTH
async def test_f12_a_chat_too_long_is_tried_once(stream: bool) -> None:
    body = {"error": {"message": "x", "type": "y", "param": None, "code": "context_length_exceeded"}}
    requests: list[bytes] = []
    async with (
        peer(playing(refusing(400, body), requests=requests)) as here,
        peer(stay_silent) as other,
    ):
        async with over(OPENAI, here.url, other.url) as gateway:
            answer = await ask(gateway, stream=stream)
    check_refused(answer, 400, "context_length_exceeded")
    assert (len(requests), other.seen) == (1, 0)


@BOTH
async def test_f13_a_content_filter_is_tried_once_and_named(stream: bool) -> None:
    words = "The response was filtered."
    error = {"message": words, "type": SECRET, "param": "prompt", "code": "content_filter"}
    requests: list[bytes] = []
    async with (
        peer(playing(refusing(400, {"error": error}), requests=requests)) as here,
        peer(stay_silent) as other,
    ):
        async with over(OPENAI, here.url, other.url) as gateway:
            answer = await ask(gateway, stream=stream)
            assert gateway.metric("gateway_backend_up", backend="gpu-0") == 1
    check_refused(answer, 400, "content_filter")
    assert words in answer.error["message"]
    assert (len(requests), other.seen) == (1, 0)


@pytest.mark.parametrize("status", [500, 429])
@BOTH
async def test_f16_tries_that_failed_are_no_completions(stream: bool, status: int) -> None:
    good = await tape(OPENAI, stream=stream)
    async with peer(playing(failing(status))) as here, peer(playing(good.chunked)) as other:
        async with over(OPENAI, here.url, other.url) as gateway:
            answer = await ask(gateway, stream=stream, stream_options={"include_usage": True})
            counted = gateway.metric("gateway_tokens_total", token_type="output")
            assert gateway.metric("gateway_tokens_total", backend="gpu-0") == 0
            assert gateway.metric("gateway_requests_total") == 1
    said = answer.events[-2] if stream else answer.json
    assert answer.headers["x-gateway-backend"] == "gpu-1"
    assert said["model"] == "m"
    assert counted == said["usage"]["completion_tokens"] > 0
