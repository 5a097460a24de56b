"""A stream pauses for too long between two tokens: error event, and both sides are closed."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.checks import (
    BOTH,
    EVERY,
    EVERY_STREAM,
    PROMPT,
    check_broken,
    check_refused,
    ended,
    limits,
    over,
    tries,
)
from tests.support.fleet import Server
from tests.support.peer import Script, Talk, peer
from tests.support.stack import wait_until
from tests.support.tapes import REPLY, tape
from tests.support.visitor import ask

SHORT = 0.15


async def stalling(server: Server, left: asyncio.Event, *, stream: bool, share: float = 0.6) -> Script:
    """A script that sends a share of its answer and then nothing, until its client leaves."""
    good = await tape(server, stream=stream)

    async def script(talk: Talk) -> None:
        if b"GET " in (await talk.wait_request())[:4]:
            return await talk.wait_left()
        await talk.send(good.sized[: len(good.head()) + int(len(good.body) * share)])
        await talk.wait_left()
        left.set()
        return None

    return script


@EVERY_STREAM
async def test_the_stream_ends_with_an_error_and_the_backend_sees_the_end(server: Server) -> None:
    left = asyncio.Event()
    async with (
        peer(await stalling(server, left, stream=True)) as here,
        peer(await stalling(server, left, stream=True)) as other,
    ):
        times = limits(between_tokens=SHORT, total=4 * SHORT)
        async with over(server, here.url, other.url, extra=times) as gateway:
            answer = await ask(gateway, stream=True)
            async with asyncio.timeout(PROMPT):
                await left.wait()
            assert tries(gateway, "stall") == 1
            assert ended(gateway, "stall", 200) == 1
            assert gateway.metric("gateway_retries_total") == 0
    check_broken(answer, "upstream_timeout", REPLY)
    assert other.seen == 0, "content has gone out: nobody else is asked"
    assert SHORT <= answer.seconds < SHORT + PROMPT


@EVERY
async def test_a_whole_answer_that_stops_in_its_middle_is_a_504(server: Server) -> None:
    left = asyncio.Event()
    async with peer(await stalling(server, left, stream=False)) as here:
        async with over(server, here.url, extra=limits(total=SHORT)) as gateway:
            answer = await ask(gateway)
            assert tries(gateway, "total_timeout") == 1
            async with asyncio.timeout(PROMPT):
                await left.wait()
    check_refused(answer, 504, "upstream_timeout")


@EVERY_STREAM
async def test_the_next_request_is_served(server: Server) -> None:
    good = await tape(server, stream=True)
    left = asyncio.Event()
    stall = await stalling(server, left, stream=True)

    async def script(talk: Talk) -> None:
        if talk.number == 0:
            return await stall(talk)
        while request := await talk.wait_request():
            probe = request.startswith(b"GET ")
            await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" if probe else good.chunked)
        return None

    async with peer(script) as here:
        async with over(server, here.url, extra=limits(between_tokens=SHORT), slots=1) as gateway:
            check_broken(await ask(gateway, stream=True), "upstream_timeout", REPLY)
            assert (await ask(gateway, stream=True)).text == REPLY


@BOTH
@pytest.mark.parametrize("pause", [0.02])
async def test_pauses_below_the_limit_are_no_stall(stream: bool, pause: float) -> None:
    server = next(one for one in (Server("openai", "openai"),))
    good = await tape(server, stream=stream)

    async def script(talk: Talk) -> None:
        await talk.wait_request()
        raw = good.chunked
        for start in range(0, len(raw), 200):
            await talk.send(raw[start : start + 200])
            await asyncio.sleep(pause)
        await talk.wait_left()

    async with peer(script) as here:
        async with over(Server("openai", "openai"), here.url, extra=limits(between_tokens=SHORT)) as gateway:
            answer = await ask(gateway, stream=stream)
            await wait_until(lambda: tries(gateway, "ok") == 1)
    assert answer.text == REPLY
