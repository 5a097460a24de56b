"""An answer of status 200 whose body is not what the dialect promises."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.faults.checks import (
    BOTH,
    EVERY,
    EVERY_STREAM,
    SECRET,
    check_broken,
    check_good,
    check_refused,
    ended,
    over,
    playing,
    tries,
)
from tests.faults.test_no_end import events
from tests.support.fleet import Server
from tests.support.peer import Talk, peer
from tests.support.site import Site
from tests.support.tapes import REPLY, STREAMING, Tape, tape
from tests.support.visitor import Visitor, ask, chat

CHAT = {"object": "chat.completion", "id": "x", "created": 1, "model": "m"}


def a_choice(message: Any) -> dict[str, Any]:
    return {**CHAT, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


BODIES: dict[str, bytes] = {
    "empty": b"",
    "half": b'{"response": "' + SECRET.encode(),
    "html": f"<html><body>{SECRET}</body></html>".encode(),
    "text": SECRET.encode(),
    "list": json.dumps([SECRET]).encode(),
    "number": b"42",
    "null": b"null",
    "bad-utf-8": b'{"response": "\xff\xfe", "choices": "\xff' + SECRET.encode() + b'"}',
    "no-members": json.dumps({"note": SECRET}).encode(),
    "null-members": json.dumps({"response": None, "choices": None, "note": SECRET}).encode(),
    "wrong-types": json.dumps({"response": [SECRET], "choices": {"text": SECRET}}).encode(),
    "choice-is-text": json.dumps({"response": 1, "choices": [SECRET]}).encode(),
    "no-choice": json.dumps({"response": {}, "choices": [], "note": SECRET}).encode(),
    "message-is-text": json.dumps({"response": True} | a_choice(SECRET)).encode(),
    "content-is-number": json.dumps(
        {"response": 1.5} | a_choice({"role": "assistant", "content": 5})
    ).encode(),
}


@EVERY
@pytest.mark.parametrize("spoiled", BODIES)
async def test_a_whole_answer_is_a_502_and_not_echoed(server: Server, spoiled: str) -> None:
    requests: list[bytes] = []
    raw = Tape("application/json", BODIES[spoiled]).sized
    async with peer(playing(raw, requests=requests)) as here, over(server, here.url) as gateway:
        answer = await ask(gateway)
        assert tries(gateway, "bad_payload") == 1
        assert ended(gateway, "bad_payload", 502) == 1
        assert gateway.metric("gateway_backend_up") == 1, "it answers, whatever it says"
        assert SECRET not in gateway.log.getvalue()
    check_refused(answer, 502, "upstream_invalid_response")
    assert answer.headers["x-should-retry"] == "false"
    assert len(requests) == 1


EVENTS: dict[str, bytes] = {
    "half": b'data: {"choices": "' + SECRET.encode() + b"\n\n",
    "html": f"data: <html>{SECRET}</html>\n\n".encode(),
    "number": b"data: 42\n\n",
    "no-members": f'data: {{"note": "{SECRET}"}}\n\n'.encode(),
    "wrong-types": f'data: {{"choices": "{SECRET}", "response": 5}}\n\n'.encode(),
    "delta-is-text": f'data: {{"choices": [{{"delta": "{SECRET}"}}], "response": null}}\n\n'.encode(),
    "content-is-number": b'data: {"choices": [{"index": 0, "delta": {"content": 7}}]}\n\n',
}


@EVERY_STREAM
@pytest.mark.parametrize("spoiled", EVENTS)
async def test_a_stream_of_it_is_a_502_and_not_echoed(server: Server, spoiled: str) -> None:
    requests: list[bytes] = []
    raw = Tape("text/event-stream", EVENTS[spoiled]).sized
    async with peer(playing(raw, requests=requests)) as here, over(server, here.url) as gateway:
        answer = await ask(gateway, stream=True)
        assert tries(gateway, "bad_payload") == 1
        assert SECRET not in gateway.log.getvalue()
    check_refused(answer, 502, "upstream_invalid_response")
    assert len(requests) == 1


@EVERY
@pytest.mark.parametrize("spoiled", BODIES)
async def test_a_whole_answer_of_it_is_tried_elsewhere(server: Server, spoiled: str) -> None:
    good = await tape(server, stream=False)
    requests: list[bytes] = []
    raw = Tape("application/json", BODIES[spoiled]).sized
    async with (
        peer(playing(raw, requests=requests)) as here,
        peer(playing(good.chunked, requests=requests)) as other,
    ):
        async with over(server, here.url, other.url) as gateway:
            answer = await ask(gateway)
            check_tried_elsewhere(gateway, requests)
    check_good(answer, REPLY)
    assert answer.headers["x-gateway-attempts"] == "2"


@EVERY_STREAM
@pytest.mark.parametrize("spoiled", EVENTS)
async def test_a_stream_of_it_is_tried_elsewhere(server: Server, spoiled: str) -> None:
    good = await tape(server, stream=True)
    requests: list[bytes] = []
    raw = Tape("text/event-stream", EVENTS[spoiled]).sized
    async with (
        peer(playing(raw, requests=requests)) as here,
        peer(playing(good.chunked, requests=requests)) as other,
    ):
        async with over(server, here.url, other.url) as gateway:
            answer = await ask(gateway, stream=True)
            check_tried_elsewhere(gateway, requests)
    check_good(answer, REPLY)
    assert answer.headers["x-gateway-attempts"] == "2"


def check_tried_elsewhere(gateway: Site, requests: list[bytes]) -> None:
    """One failed try, one more with the same bytes, and nobody ejected."""
    assert tries(gateway, "bad_payload") == 1
    assert tries(gateway, "ok", "gpu-1") == 1
    assert gateway.metric("gateway_retries_total", reason="bad_payload") == 1
    assert gateway.metric("gateway_backend_up", backend="gpu-0") == 1
    first, second = (request.partition(b"\r\n\r\n")[2] for request in requests)
    assert first == second


@EVERY_STREAM
async def test_garbage_after_content_is_never_tried_elsewhere(server: Server) -> None:
    good = await tape(server, stream=True)
    half = b"".join(events(good.body)[:4])
    seen = asyncio.Event()

    async def turn_bad(talk: Talk) -> None:
        await talk.wait_request()
        await talk.send(good.head("connection: close") + half)
        await seen.wait()
        await talk.send(EVENTS["number"])
        await talk.wait_left()

    others: list[bytes] = []
    script = playing(good.chunked, requests=others)
    async with peer(turn_bad) as here, peer(script) as other:
        async with over(server, here.url, other.url, settle=False) as gateway:
            visitor = await Visitor.to(gateway, chat(stream=True))
            came = await visitor.reader.readuntil(REPLY[:1].encode())
            seen.set()
            answer = await visitor.wait_answer(came)
    check_broken(answer, "upstream_invalid_response", REPLY)
    assert others == []


@BOTH
@EVERY
async def test_a_web_page_in_place_of_either_is_a_502(server: Server, stream: bool) -> None:
    page = Tape("text/html", f"<html><body><h1>{SECRET}</h1></body></html>\n".encode())
    async with peer(playing(page.sized, page.sized)) as here, over(server, here.url) as gateway:
        answer = await ask(gateway, stream=stream)
    assert answer.status == 502
    assert answer.error["code"] in {"upstream_invalid_response", "upstream_error", "empty_response"}
    assert SECRET.encode() not in answer.body


@pytest.mark.parametrize("server", STREAMING, ids=lambda server: server.id)
async def test_a_stream_of_done_alone_is_no_answer(server: Server) -> None:
    nothing = Tape("text/event-stream", b"data: [DONE]\n\n")
    async with peer(playing(nothing.sized, nothing.sized)) as here, over(server, here.url) as gateway:
        answer = await ask(gateway, stream=True)
    assert answer.status == 502
    assert not answer.done
