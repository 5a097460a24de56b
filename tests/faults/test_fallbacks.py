"""A model cannot answer, and another stands in for it: the failover table's rows that need two models."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.faults.checks import (
    BOTH,
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
from tests.faults.test_refused import refusing
from tests.faults.test_server_error import failing
from tests.support.faulty import closed_port
from tests.support.fleet import Server
from tests.support.peer import Talk, peer
from tests.support.tapes import REPLY, tape
from tests.support.visitor import Answer, ask

OPENAI = Server("openai", "openai")
SHORT = 0.15
SPARE = '[[models]]\nname = "m"\nfallbacks = ["spare"]\n'
LONGER = '[[models]]\nname = "m"\ncontext_fallbacks = ["spare"]\n'
APART: dict[str, Any] = {"serves": {"gpu-1": "spare"}}


def check_spare(answer: Answer, *, attempts: int) -> None:
    """The whole answer, in the name of the model that gave it."""
    check_good(answer, REPLY)
    said = [event for event in answer.events if event != "[DONE]"] if answer.streamed else [answer.json]
    assert {one["model"] for one in said} == {"spare"}
    assert answer.headers["x-gateway-backend"] == "gpu-1"
    assert answer.headers["x-gateway-attempts"] == str(attempts)


@BOTH
async def test_f1_the_only_backend_is_asked_again_when_it_said_so(stream: bool) -> None:
    good = await tape(OPENAI, stream=stream)
    times: list[float] = []

    async def busy_once(talk: Talk) -> None:
        while await talk.wait_request():
            times.append(asyncio.get_running_loop().time())
            await talk.send(failing(429, "retry-after: 2") if len(times) == 1 else good.chunked)

    async with peer(busy_once) as here, over(OPENAI, here.url) as gateway:
        answer = await ask(gateway, stream=stream)
    check_good(answer, REPLY)
    assert len(times) == 2
    assert times[1] - times[0] >= 2


@BOTH
@pytest.mark.parametrize("status", [429, 503], ids=["f2-429", "f4-503"])
async def test_f2_f4_busy_for_ever_is_asked_with_pauses_and_then_left(status: int, stream: bool) -> None:
    good = await tape(OPENAI, stream=stream)
    times: list[float] = []

    async def busy(talk: Talk) -> None:
        while await talk.wait_request():
            times.append(asyncio.get_running_loop().time())
            await talk.send(failing(status))

    async with peer(busy) as here, peer(playing(good.chunked)) as other:
        async with over(OPENAI, here.url, other.url, extra=SPARE, head_wait=10, **APART) as gateway:
            answer = await ask(gateway, stream=stream)
            assert gateway.metric("gateway_fallbacks_total", **{"from": "m", "to": "spare"}) == 1
            assert gateway.metric("gateway_tokens_total", model="m") == 0
            assert gateway.metric("gateway_tokens_total", model="spare") > 0
    check_spare(answer, attempts=3)
    assert len(times) == 2
    assert times[1] - times[0] >= 0.7, "there is a back-off, spread by chance"


SAYING_500 = {
    "status": failing(500),
    "gateway time-out": failing(504),
    "json": refusing(200, {"error": {"message": SECRET, "type": "InternalServerError", "code": 500}}),
    "text": refusing(200, {"error": SECRET}),
    "fastchat": refusing(400, {"object": "error", "message": SECRET, "code": 50001}),
}


@BOTH
@pytest.mark.parametrize("form", SAYING_500)
async def test_f3_a_single_500_is_repeated_where_it_came_from(form: str, stream: bool) -> None:
    good = await tape(OPENAI, stream=stream)
    async with peer(playing(SAYING_500[form], good.chunked)) as here, peer(playing(good.chunked)) as other:
        async with over(OPENAI, here.url, other.url, extra=SPARE, **APART) as gateway:
            answer = await ask(gateway, stream=stream)
    check_good(answer, REPLY)
    assert (answer.headers["x-gateway-backend"], answer.headers["x-gateway-attempts"]) == ("gpu-0", "2")
    assert other.seen == 0


@BOTH
async def test_f3_f5_a_failure_is_unseen(stream: bool) -> None:
    good = await tape(OPENAI, stream=stream)
    for script, attempts in ((playing(failing(500), failing(500)), 3), (reset_at_once, 2)):
        async with peer(script) as here, peer(playing(good.chunked)) as other:
            async with over(OPENAI, here.url, other.url, extra=SPARE, **APART) as gateway:
                check_spare(await ask(gateway, stream=stream), attempts=attempts)


@BOTH
async def test_f6_the_silent_route_gets_one_try(stream: bool) -> None:
    good = await tape(OPENAI, stream=stream)
    times = limits(first_token=SHORT, total=4 * SHORT)
    async with peer(stay_silent) as here, peer(playing(good.chunked)) as other:
        extra = SPARE + times
        async with over(OPENAI, here.url, other.url, extra=extra, settle=False, **APART) as gateway:
            answer = await ask(gateway, stream=stream)
            assert gateway.metric("gateway_backend_requests_total", backend="gpu-0") == 1
    check_spare(answer, attempts=2)
    assert answer.seconds < PROMPT


@BOTH
async def test_f12_a_chat_too_long_goes_to_the_longer_model_after_one_try(stream: bool) -> None:
    body = {"error": {"message": "x", "type": "y", "param": None, "code": "context_length_exceeded"}}
    good = await tape(OPENAI, stream=stream)
    requests: list[bytes] = []
    script = playing(refusing(400, body), requests=requests)
    async with peer(script) as here, peer(playing(good.chunked)) as other:
        async with over(OPENAI, here.url, other.url, extra=LONGER, **APART) as gateway:
            check_spare(await ask(gateway, stream=stream), attempts=2)
    assert len(requests) == 1


def as_events(*values: object) -> bytes:
    """A stream of these events, whose body ends with the connection."""
    events = b"".join(b"data: " + json.dumps(value).encode() + b"\n\n" for value in values)
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n" + events


ROLE = {
    "id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m",
    "choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}],
}  # fmt: skip
IN_STREAM = {
    "first": as_events(
        {"error": {"message": "The input is longer than the model's context length.", "code": 400}}
    ),
    "after-the-role": as_events(ROLE, {"object": "error", "message": "x", "code": 40303}),
    "typed": as_events() + b"event: error\ndata: prompt is too long\n\n",
    "plain-text": as_events() + b"data: prompt is too long\n\n",
    "base-resp": as_events(
        {"base_resp": {"status_code": 2013, "status_msg": "invalid params, context window exceeds limit"}}
    ),
    "in-a-choice": as_events(
        ROLE,
        {
            **ROLE,
            "choices": [{"index": 0, "delta": {}, "error": {"code": 400, "message": "prompt is too long"}}],
        },
    ),
    "in-a-list": as_events([{"error": {"code": 400, "message": "prompt is too long"}}]),
    "field": as_events() + b'error: {"code":400,"message":"x","type":"exceed_context_size_error"}\n\n',
}


@pytest.mark.parametrize("form", IN_STREAM)
async def test_f12_an_overflow_that_a_stream_tells_moves_to_the_longer_model(form: str) -> None:
    good = await tape(OPENAI, stream=True)
    script = playing(IN_STREAM[form], end="close")
    async with peer(script) as here, peer(playing(good.chunked)) as other:
        async with over(OPENAI, here.url, other.url, extra=LONGER, **APART) as gateway:
            check_spare(await ask(gateway, stream=True), attempts=2)
            assert gateway.metric("gateway_backend_up", backend="gpu-0") == 1
        async with over(OPENAI, here.url) as gateway:
            check_refused(await ask(gateway, stream=True), 400, "context_length_exceeded")


@BOTH
async def test_f13_filtered_content_never_moves(stream: bool) -> None:
    error = {"message": "Filtered.", "type": SECRET, "param": "prompt", "code": "content_filter"}
    extra = SPARE + 'context_fallbacks = ["spare"]\n'
    async with peer(playing(refusing(400, {"error": error}))) as here, peer(stay_silent) as other:
        async with over(OPENAI, here.url, other.url, extra=extra, **APART) as gateway:
            answer = await ask(gateway, stream=stream)
    check_refused(answer, 400, "content_filter")
    assert other.seen == 0


@BOTH
async def test_f14_a_spare_models_refusal_is_never_the_clients_error(stream: bool) -> None:
    body = {"error": {"message": "no prefill", "type": "y", "param": None, "code": None}}
    async with peer(playing(*[failing(500)] * 2)) as here, peer(playing(refusing(400, body))) as other:
        async with over(OPENAI, here.url, other.url, extra=SPARE, **APART) as gateway:
            answer = await ask(gateway, stream=stream)
    check_refused(answer, 502, "upstream_error")


@BOTH
async def test_f15_a_model_that_is_down_costs_its_requests_nothing(stream: bool) -> None:
    good = await tape(OPENAI, stream=stream)
    with closed_port() as nowhere:
        async with peer(playing(*[good.chunked] * 5)) as other:
            async with over(OPENAI, nowhere, other.url, extra=SPARE, **APART) as gateway:
                for _ in range(5):
                    check_good(await ask(gateway, stream=stream), REPLY)
                assert gateway.metric("gateway_backend_requests_total", backend="gpu-0") == 1
