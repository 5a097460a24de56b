"""A server closes idle connections at the worst moment: no client ever notices."""

from __future__ import annotations

import asyncio
import os
import random

import pytest

from gateway.upstream.sending import REPEAT_WITHIN
from tests.faults.checks import ONCE, check_good, check_refused, over, tries
from tests.support.fleet import Server
from tests.support.peer import Script, Talk, peer
from tests.support.tapes import REPLY, tape
from tests.support.visitor import ask

CALLS = int(os.environ.get("GATEWAY_TEST_CALLS", "150"))
"""10000 for the whole claim (D10)."""
IDLE = 0.005


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_requests_that_meet_the_close_are_sent_again(stream: bool) -> None:
    server = Server("openai", "openai")
    good = await tape(server, stream=stream)
    chance = random.Random(4711)
    requests = [0]

    async def script(talk: Talk) -> None:
        served = False
        while True:
            try:
                async with asyncio.timeout(IDLE if served else None):
                    request = await talk.wait_request()
            except TimeoutError:
                return
            if not request:
                return
            requests[0] += 1
            await talk.send(good.chunked)
            served = True

    async with peer(script) as here, over(server, here.url) as gateway:
        for _ in range(CALLS):
            answer = await ask(gateway, stream=stream)
            check_good(answer, REPLY)
            await asyncio.sleep(IDLE * chance.uniform(0.8, 1.2))
        assert here.seen > CALLS // 10, "the race was run"
    assert requests[0] == CALLS, "nothing was asked twice of a server that answered"


def closing_after(seconds: float, good: bytes, requests: list[int]) -> Script:
    """A server's script: one answer a connection; the next request is read, worked on, and not answered."""

    async def script(talk: Talk) -> None:
        if not await talk.wait_request():
            return
        requests[0] += 1
        await talk.send(good)
        if await talk.wait_request():
            requests[0] += 1
            await asyncio.sleep(seconds)

    return script


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_request_that_is_sent_again_counts_as_an_attempt_everywhere(stream: bool) -> None:
    server = Server("openai", "openai")
    good, requests = await tape(server, stream=stream), [0]
    async with peer(closing_after(0, good.chunked, requests)) as here, over(server, here.url) as gateway:
        check_good(await ask(gateway, stream=stream), REPLY)
        answer = await ask(gateway, stream=stream)
        check_good(answer, REPLY)
        assert answer.headers["x-gateway-attempts"] == "2"
        assert (tries(gateway, "ok"), tries(gateway, "connect")) == (2, 1)
        assert gateway.metric("gateway_retries_total", model="m", reason="connect") == 1
    assert requests[0] == 3


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_request_that_a_server_worked_on_is_not_sent_again_on_the_quiet(stream: bool) -> None:
    server = Server("openai", "openai")
    good, requests = await tape(server, stream=stream), [0]
    script = closing_after(2 * REPEAT_WITHIN, good.chunked, requests)
    async with peer(script) as here, over(server, here.url, extra=ONCE) as gateway:
        check_good(await ask(gateway, stream=stream), REPLY)
        answer = await ask(gateway, stream=stream)
        check_refused(answer, 502, "upstream_error")
        assert answer.headers["x-gateway-attempts"] == "1"
        assert tries(gateway, "connect") == 1
    assert requests[0] == 2


async def test_where_nothing_is_to_be_repeated_a_sending_is_not_either() -> None:
    server = Server("openai", "openai")
    good, requests = await tape(server, stream=False), [0]
    script = closing_after(0, good.chunked, requests)
    async with peer(script) as here, over(server, here.url, extra=ONCE) as gateway:
        check_good(await ask(gateway), REPLY)
        check_refused(await ask(gateway), 502, "upstream_error")
    assert requests[0] == 2
