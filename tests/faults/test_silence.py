"""A backend takes the request and says nothing, or its head and nothing more."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.checks import (
    BOTH,
    EVERY,
    EVERY_STREAM,
    PROMPT,
    check_good,
    check_refused,
    ended,
    limits,
    over,
    playing,
    tries,
)
from tests.support.fleet import Server
from tests.support.leaving import STOPPABLE, kept, streams
from tests.support.peer import Script, Talk, peer
from tests.support.stack import wait_until
from tests.support.tapes import REPLY, STREAMING, tape
from tests.support.visitor import ask

SHORT = 0.15


def muttering(head: bytes, asked: list[bytes] | None = None) -> Script:
    """A script that sends this and no more, to whatever generates."""

    async def script(talk: Talk) -> None:
        request = await talk.wait_request()
        if not request.startswith(b"GET "):
            if asked is not None:
                asked.append(request)
            await talk.send(head)
        await talk.wait_left()

    return script


@EVERY
@BOTH
async def test_with_none_left_it_is_a_504_and_the_slot_is_freed_or_booked_as_a_zombie(
    server: Server, stream: bool
) -> None:
    times = limits(first_token=SHORT, total=8 * SHORT if streams(server, stream=stream) else SHORT)
    async with (
        peer(muttering(b"")) as mute,
        over(server, mute.url, extra=times, settle=False, slots=1) as gateway,
    ):
        answer = await ask(gateway, stream=stream)
        await wait_until(lambda: gateway.in_flight == gateway.zombies == kept(server, stream=stream))
        if not kept(server, stream=stream):
            await wait_until(lambda: not mute.open)
        outcome = "first_token_timeout" if streams(server, stream=stream) else "total_timeout"
        assert tries(gateway, outcome) == 1
        assert ended(gateway, outcome, 504) == 1
    check_refused(answer, 504, "upstream_timeout")
    assert answer.headers["x-should-retry"] == "false"
    assert SHORT <= answer.seconds < SHORT + PROMPT


@EVERY_STREAM
async def test_another_backend_answers_and_the_silent_one_is_asked_once(server: Server) -> None:
    asked: list[bytes] = []
    requests: list[bytes] = []
    good = await tape(server, stream=True)
    times = limits(first_token=SHORT, total=4 * SHORT)
    async with (
        peer(muttering(b"", asked)) as mute,
        peer(playing(good.chunked, requests=requests)) as here,
    ):
        async with over(server, mute.url, here.url, extra=times, settle=False) as gateway:
            answer = await ask(gateway, stream=True)
            assert gateway.metric("gateway_retries_total", reason="first_token_timeout") == 1
            await wait_until(lambda: gateway.in_flight == gateway.zombies == kept(server, stream=True))
    check_good(answer, REPLY)
    assert (len(asked), len(requests)) == (1, 1)


@EVERY
async def test_a_whole_answer_that_does_not_come_is_not_asked_for_elsewhere(server: Server) -> None:
    """Such a server is silent while it works: at the limit of all there is no time left for another."""
    async with peer(muttering(b"")) as mute, peer(muttering(b"")) as other:
        async with over(server, mute.url, other.url, extra=limits(total=SHORT), settle=False) as gateway:
            answer = await ask(gateway)
            assert gateway.metric("gateway_retries_total") == 0
    check_refused(answer, 504, "upstream_timeout")
    assert (mute.seen, other.seen) == (1, 0)


@EVERY_STREAM
async def test_a_head_without_a_stream_is_silence_too(server: Server) -> None:
    good = await tape(server, stream=True)
    async with (
        peer(muttering(good.head("transfer-encoding: chunked"))) as mute,
        over(server, mute.url, extra=limits(first_token=SHORT), settle=False) as gateway,
    ):
        answer = await ask(gateway, stream=True)
        assert tries(gateway, "first_token_timeout") == 1
    check_refused(answer, 504, "upstream_timeout")


@pytest.mark.parametrize("dialect", sorted(STOPPABLE))
async def test_the_next_request_has_the_card_at_once(dialect: str) -> None:
    server = next(one for one in STREAMING if one.dialect == dialect)
    good = await tape(server, stream=True)
    asked = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.wait_request()
        if asked.is_set():
            await talk.send(good.chunked)
        asked.set()
        await talk.wait_left()

    async with peer(script) as here:
        stops = {"slots": 1, "abandon": "close"}
        async with over(server, here.url, extra=limits(first_token=SHORT), **stops) as gateway:
            check_refused(await ask(gateway, stream=True), 504, "upstream_timeout")
            check_good(await ask(gateway, stream=True), REPLY)
