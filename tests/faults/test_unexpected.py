"""Answers of backends in shapes that no code expects: an error to the client, and the backend is blamed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.dialects.openai import OpenAIDialect
from gateway.dialects.shared.passing import PassingDecoder
from tests.faults.checks import EVERY, EVERY_STREAM, ONCE, SECRET, over, tries
from tests.faults.test_no_end import events
from tests.support.fleet import Server
from tests.support.peer import Talk, peer
from tests.support.stack import wait_until
from tests.support.tapes import Tape, tape
from tests.support.visitor import Answer, ask

ODD: tuple[Any, ...] = ("oops", 7, -1, 1.5, True, None, [], {}, ["oops"], {"oops": 1}, [None])
"""What may stand where something else is expected."""
OPENAI = Server("openai", "openai")


def spoiled(value: Any) -> Iterator[Any]:
    """The value with each of its parts, and itself, replaced by each odd thing."""
    yield from ODD
    if isinstance(value, dict):
        for name, part in value.items():
            for other in spoiled(part):
                yield {**value, name: other}
    elif isinstance(value, list):
        for place, part in enumerate(value):
            for other in spoiled(part):
                yield [*value[:place], other, *value[place + 1 :]]


def spoiled_streams(good: Tape) -> Iterator[bytes]:
    """Streams of which one event, in the middle or near the end, is spoiled in every way."""
    said = events(good.body)
    with_json = [place for place, one in enumerate(said) if b"{" in one]
    for place in {with_json[len(with_json) // 2], with_json[-1]}:
        value = json.loads(said[place].partition(b"data:")[2])
        for other in spoiled(value):
            event = b"data: " + json.dumps(other).encode() + b"\n\n"
            yield b"".join([*said[:place], event, *said[place + 1 :]])


def check_ended(answer: Answer, sent: bytes) -> None:
    """A well-framed end: an error, or a good answer."""
    assert answer.whole, sent
    if answer.status != 200:
        assert answer.error["code"] in ("upstream_invalid_response", "upstream_error", "empty_response"), sent
    elif answer.streamed:
        assert answer.done != ("error" in answer.body.decode()), sent


async def play(server: Server, answers: list[bytes], head: bytes, *, stream: bool) -> None:
    """Have each of these answered to a request, and look at what the client got."""
    turn = iter(answers)

    async def script(talk: Talk) -> None:
        while request := await talk.wait_request():
            if request.startswith(b"GET "):
                await talk.send(b"HTTP/1.1 204 No Content\r\n\r\n")
                continue
            body = next(turn, answers[-1])
            await talk.send(head % len(body) + body)

    async with peer(script) as here, over(server, here.url, extra=ONCE, slots=1) as gateway:
        for sent in answers:
            check_ended(await ask(gateway, stream=stream), sent)
        assert gateway.metric("gateway_requests_total", outcome="internal") == 0


@EVERY_STREAM
async def test_streams_with_one_odd_event_end_well_framed(server: Server) -> None:
    good = await tape(server, stream=True)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n"
    await play(server, list(spoiled_streams(good)), head, stream=True)


@EVERY
async def test_whole_answers_with_one_odd_part_end_well_framed(server: Server) -> None:
    good = await tape(server, stream=False)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    answers = [json.dumps(other).encode() for other in spoiled(json.loads(good.body))]
    await play(server, answers, head, stream=False)


class Trap(Exception):
    """Nobody expects it."""


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_an_unexpected_exception_is_logged_without_texts_and_blames_the_backend(
    stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> Any:
        raise Trap(SECRET)

    good = await tape(OPENAI, stream=stream)
    monkeypatch.setattr(PassingDecoder if stream else OpenAIDialect, "feed" if stream else "answer", fails)

    async def script(talk: Talk) -> None:
        while request := await talk.wait_request():
            await talk.send(good.chunked if request.startswith(b"POST ") else b"HTTP/1.1 204 No\r\n\r\n")

    async with peer(script) as here, over(OPENAI, here.url, extra=ONCE) as gateway:
        answer = await ask(gateway, stream=stream)
        assert tries(gateway, "bad_payload") == 1
        (crash,) = [line for line in gateway.lines if line["event"] == "crash"]
        assert "Trap" in json.dumps(crash)
        assert SECRET not in gateway.log.getvalue()
    assert answer.whole
    assert answer.error["code"] == "upstream_invalid_response"
    assert answer.status == 502


async def test_an_exception_while_bytes_flow_ends_the_stream_with_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: object) -> Any:
        raise Trap(SECRET)

    good = await tape(OPENAI, stream=True)
    said = events(good.body)

    async def script(talk: Talk) -> None:
        while (await talk.wait_request()).startswith(b"GET "):
            await talk.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        await talk.send(good.head("connection: close") + b"".join(said[:2]))
        await another.wait()
        await talk.send(b"".join(said[2:]))

    another = asyncio.Event()
    async with peer(script) as here, over(OPENAI, here.url, extra=ONCE) as gateway:
        call = asyncio.ensure_future(ask(gateway, stream=True))
        await wait_until(lambda: gateway.metric("gateway_backend_inflight") == 1)
        for name in ("feed", "passes", "passed"):
            monkeypatch.setattr(PassingDecoder, name, fails, raising=False)
        another.set()
        answer = await call
        assert tries(gateway, "bad_payload") == 1
    assert answer.whole
    assert not answer.done
    assert answer.error["code"] == "upstream_invalid_response"
