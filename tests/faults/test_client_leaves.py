"""The client hangs up: while it waits in the queue, before the first token, in the middle of its answer.

What is measured is the time from the client's end of the connection to the server's: the backend sees it
close, or, where the card cannot be stopped, its slot is booked as a zombie.
"""

from __future__ import annotations

import asyncio
import math
import os
import statistics

import pytest

from tests.faults.checks import EVERY, EVERY_STREAM, limits, over
from tests.faults.test_silence import kept
from tests.support.fleet import Server
from tests.support.peer import Talk, peer
from tests.support.site import Site
from tests.support.stack import wait_until
from tests.support.tapes import tape
from tests.support.visitor import How, Visitor, chat

LEAVES = int(os.environ.get("GATEWAY_TEST_LEAVES", "6"))
"""How many clients leave in each window; 1000 for the whole claim."""
LIMIT = 0.2
"""Seconds to the end of the backend's connection, for 99 of 100 (P4)."""
HOW = pytest.mark.parametrize("how", ["fin", "rst"])


class Watchful:
    """Marks when its clients came, and when each left."""

    def __init__(self, beginning: bytes) -> None:
        self.beginning = beginning
        self.asked = 0
        self.answer = asyncio.Event()
        self.left: list[float] = []

    async def script(self, talk: Talk) -> None:
        """Say the beginning of an answer and wait; probes are answered when the test says so."""
        if (await talk.wait_request()).startswith(b"GET "):
            await self.answer.wait()
            await talk.send(b"HTTP/1.1 204 No Content\r\n\r\n")
            return
        self.asked += 1
        if self.beginning:
            await talk.send(self.beginning)
        gone = asyncio.ensure_future(talk.wait_left())
        ended = asyncio.ensure_future(self.answer.wait())
        await asyncio.wait({gone, ended}, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            self.left.append(asyncio.get_running_loop().time())
        gone.cancel()
        ended.cancel()


async def wait_released(gateway: Site, here: Watchful, count: int, *, zombie: bool) -> float:
    """Wait until one more client's backend is free, or booked; give the time."""
    loop = asyncio.get_running_loop()
    if zombie:
        async with asyncio.timeout(5):
            while gateway.gateway.dispatcher.zombies("gpu-0") == 0:  # noqa: ASYNC110 - a counter has no event
                await asyncio.sleep(0.001)
        return loop.time()
    async with asyncio.timeout(5):
        while len(here.left) < count:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.001)
    return here.left[-1]


def check_fast(times: list[float]) -> None:
    """The 99th percentile; of few times, the worst but one in a hundred."""
    worst = sorted(times)[math.ceil(len(times) * 0.99) - 1]
    assert worst <= LIMIT, f"p99 {worst * 1000:.0f} ms, median {statistics.median(times) * 1000:.0f} ms"


async def leave_often(server: Server, beginning: bytes, *, stream: bool, how: How, phase: str) -> None:
    """Clients that come one after the other, and leave once the backend has said what it says."""
    zombie = kept(server, stream=stream)
    times: list[float] = []
    here = Watchful(beginning)
    async with peer(here.script) as place, over(server, place.url, extra=limits(), slots=1) as gateway:
        for count in range(1, LEAVES + 1):
            visitor = await Visitor.to(gateway, chat(stream=stream))
            await wait_until(lambda count=count: here.asked == count)
            if phase == "streaming":
                await visitor.reader.readuntil(b'"content":"')
            began = asyncio.get_running_loop().time()
            await visitor.leave(how)
            times.append(await wait_released(gateway, here, count, zombie=zombie) - began)
            if zombie:
                assert gateway.in_flight == gateway.zombies == 1
                here.answer.set()
                await wait_until(lambda: gateway.in_flight == 0)
                here.answer.clear()
            await wait_until(lambda: gateway.in_flight == gateway.zombies == 0)
        assert gateway.metric("gateway_client_disconnects_total", phase=phase) == LEAVES
        assert gateway.metric("gateway_requests_total", outcome="client_gone") == LEAVES
        assert gateway.metric("gateway_backend_up") == 1
        await wait_until(lambda: place.open <= 1, 2)
    check_fast(times)


@HOW
@EVERY
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_before_the_first_token(server: Server, stream: bool, how: How) -> None:
    await leave_often(server, b"", stream=stream, how=how, phase="before_first")


@HOW
@EVERY_STREAM
async def test_in_the_middle_of_a_stream(server: Server, how: How) -> None:
    good = await tape(server, stream=True)
    raw = good.sized[: len(good.head()) + len(good.body) * 6 // 10]
    await leave_often(server, raw, stream=True, how=how, phase="streaming")


@HOW
@EVERY
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_in_the_queue(server: Server, stream: bool, how: How) -> None:
    """Nobody is asked for a client that is gone; its place is free at once."""
    here = Watchful(b"")
    times: list[float] = []
    loop = asyncio.get_running_loop()
    async with peer(here.script) as place:
        async with over(server, place.url, extra=limits(), slots=1, settle=False) as gateway:
            first = await Visitor.to(gateway, chat(stream=stream))
            await wait_until(lambda: here.asked == 1)
            for _ in range(LEAVES):
                visitor = await Visitor.to(gateway, chat(stream=stream))
                await wait_until(lambda: gateway.waiting == 1)
                began = loop.time()
                await visitor.leave(how)
                await wait_until(lambda: gateway.gateway.dispatcher.queue_depth("m") == 0)
                times.append(loop.time() - began)
            await wait_until(
                lambda: gateway.metric("gateway_client_disconnects_total", phase="queued") == LEAVES
            )
            assert here.asked == 1
            await first.leave()
            here.answer.set()
            await wait_until(lambda: gateway.in_flight == 0)
    check_fast(times)
