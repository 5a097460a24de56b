"""A stream that stays open after its finish reason: neither its client nor the next one waits for its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.faults.checks import EVERY_STREAM, check_good, over, tries
from tests.faults.test_no_end import events, says_the_end
from tests.support.fleet import Server
from tests.support.peer import Peer, Talk, peer
from tests.support.site import Site
from tests.support.stack import wait_until
from tests.support.tapes import REPLY, Tape, chunks, tape
from tests.support.visitor import Visitor, ask, chat

OPENAI = Server("openai", "openai")
UNTIL = pytest.mark.parametrize("until", ["finish", "done"])
SOON = 0.05
"""Seconds from the finish to `[DONE]`, in the best of a few tries: other programs may hold up any of them."""


def beginning(tape: Tape, until: str) -> bytes:
    """A chunked answer without its end: up to the finish reason, or up to `[DONE]` where there is one."""
    said = events(tape.body)
    last = max(place for place, one in enumerate(said) if says_the_end(one) and b"[DONE]" not in one)
    kept = said[: last + 1] if until == "finish" else said
    return tape.head("transfer-encoding: chunked") + chunks(b"".join(kept))


@contextlib.asynccontextmanager
async def holding(start: bytes, rest: bytes = b"", after: float = 0.0) -> AsyncIterator[Peer]:
    """A server that says `start` to each request and keeps its body open; `rest` follows `after` seconds."""

    async def script(talk: Talk) -> None:
        while (request := await talk.wait_request()).startswith(b"GET "):
            await talk.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        if request:
            await talk.send(start)
            if rest:
                await asyncio.sleep(after)
                await talk.send(rest)
            await talk.wait_left()

    async with peer(script) as here:
        yield here


async def gap(here: Site, **fields: Any) -> float:
    """Seconds from the finish reason to `[DONE]`, as a client sees them."""
    visitor = await Visitor.to(here, chat(stream=True, **fields))
    clock = asyncio.get_running_loop().time
    came, finished = b"", 0.0
    async with asyncio.timeout(10):
        while b"[DONE]" not in came:
            piece = await visitor.reader.read(65536)
            assert piece, came
            came += piece
            if not finished and b'"finish_reason":"' in came:
                finished = clock()
    seconds = clock() - finished
    await visitor.leave()
    return seconds


@UNTIL
@EVERY_STREAM
async def test_clients_of_a_server_that_keeps_its_body_open_are_answered_in_turn(
    server: Server, until: str
) -> None:
    start = beginning(await tape(server, stream=True), until)
    async with holding(start) as here, over(server, here.url, slots=1) as gateway:
        for answer in await asyncio.gather(*(ask(gateway, stream=True) for _ in range(3))):
            check_good(answer, REPLY)
        assert tries(gateway, "ok") == 3


@EVERY_STREAM
async def test_done_follows_the_finish_at_once_while_a_second_request_waits(server: Server) -> None:
    start = beginning(await tape(server, stream=True), "finish")
    best = 10.0
    async with holding(start) as here, over(server, here.url, slots=1) as gateway:
        for _ in range(10):
            best = min([best, *await asyncio.gather(gap(gateway), gap(gateway))])
            if best < SOON:
                return
    pytest.fail(f"[DONE] came {best * 1000:.0f} ms after the finish")


@pytest.mark.parametrize("name", ["m", "alias"])
async def test_the_usage_that_a_client_asked_for_is_waited_for_a_moment(name: str) -> None:
    good = await tape(OPENAI, stream=True)
    start = beginning(good, "finish")
    usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    late = b"data: " + json.dumps({"id": "x", "choices": [], "usage": usage}).encode() + b"\n\n"
    alias = '[[models]]\nname = "m"\naliases = ["alias"]\n'
    async with holding(start, chunks(late), 0.08) as here, over(OPENAI, here.url, extra=alias) as gateway:
        answer = await ask(gateway, stream=True, model=name, stream_options={"include_usage": True})
    check_good(answer, REPLY)
    told = answer.events[-2]["usage"]
    assert (told["prompt_tokens"], told["completion_tokens"]) == (11, 7)


@pytest.mark.parametrize("name", ["m", "alias"])
async def test_usage_that_does_not_come_is_estimated(name: str) -> None:
    start = beginning(await tape(OPENAI, stream=True), "finish")
    alias = '[[models]]\nname = "m"\naliases = ["alias"]\n'
    async with holding(start) as here, over(OPENAI, here.url, extra=alias) as gateway:
        answer = await ask(gateway, stream=True, model=name, stream_options={"include_usage": True})
    check_good(answer, REPLY)
    assert answer.events[-2]["usage"]["completion_tokens"] > 0


async def test_text_that_follows_a_finish_reason_beside_text_still_goes_out() -> None:
    texts = ["one ", "two ", "three"]

    def chunk(text: str, first: bool) -> bytes:
        delta = {"role": "assistant", "content": text} if first else {"content": text}
        choice = {"index": 0, "delta": delta, "finish_reason": "stop"}
        body = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        return b"data: " + json.dumps(body).encode() + b"\n\n"

    async def script(talk: Talk) -> None:
        while (await talk.wait_request()).startswith(b"GET "):
            await talk.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        await talk.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        for place, text in enumerate(texts):
            await talk.send(chunks(chunk(text, place == 0)))
            await asyncio.sleep(0.1)
        await talk.send(chunks(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await talk.wait_left()

    async with peer(script) as here, over(OPENAI, here.url) as gateway:
        answer = await ask(gateway, stream=True)
    assert answer.text == "one two three"
    assert answer.done


@EVERY_STREAM
async def test_the_slot_comes_back_soon_and_the_connection_is_closed(server: Server) -> None:
    start = beginning(await tape(server, stream=True), "finish")
    async with holding(start) as here, over(server, here.url, slots=1) as gateway:
        check_good(await ask(gateway, stream=True), REPLY)
        await wait_until(lambda: gateway.in_flight == 0 and here.open == 0)


@EVERY_STREAM
async def test_a_connection_whose_body_ends_a_little_late_serves_again(server: Server) -> None:
    good = await tape(server, stream=True)
    start, rest = beginning(good, "finish"), beginning(good, "done")

    async def script(talk: Talk) -> None:
        while request := await talk.wait_request():
            if request.startswith(b"GET "):
                await talk.send(b"HTTP/1.1 204 No Content\r\n\r\n")
            else:
                await talk.send(start)
                await asyncio.sleep(0.06)
                await talk.send(rest[len(start) :] + b"0\r\n\r\n")

    async with peer(script) as here, over(server, here.url, slots=1) as gateway:
        for _ in range(3):
            check_good(await ask(gateway, stream=True), REPLY)
            await wait_until(lambda: gateway.in_flight == 0)
            await wait_until(lambda: not len(gateway.gateway.background) or _only_probes(gateway))
        assert here.seen == 1


def _only_probes(site: Site) -> bool:
    return "stream" not in repr(site.gateway.background)
