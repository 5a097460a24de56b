"""A server closes idle connections at the worst moment: no client ever notices."""

from __future__ import annotations

import asyncio
import os
import random

import pytest

from tests.faults.checks import check_good, over
from tests.support.fleet import Server
from tests.support.peer import Talk, peer
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
