"""The client hangs up: while it waits in the queue, before the first token, in the middle of its answer.

How it is measured: `tests/support/leaving.py`. `make leaves` does the same a thousand times each.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.checks import BOTH, EVERY, PROMPT, limits, over
from tests.support.fleet import Server
from tests.support.leaving import WINDOWS, Case, Departures, Window, depart
from tests.support.peer import Talk, peer
from tests.support.stack import wait_until
from tests.support.tapes import tape
from tests.support.visitor import How, Visitor, chat

LEAVES = 6
"""How many clients leave in each window."""
LIMIT = 0.2
"""Seconds to the end of the backend's connection on a free machine (P4; `make leaves` counts 99 of 100)."""


def check_fast(found: Departures) -> None:
    """The fastest within the limit, as a loaded machine delays some; and none waits for a time-out."""
    best, worst = min(found.times), max(found.times)
    assert best <= LIMIT, f"{best * 1000:.0f} to {worst * 1000:.0f} ms"
    assert worst <= PROMPT, f"{worst * 1000:.0f} ms"


@pytest.mark.parametrize("how", ["fin", "rst"])
@EVERY
@BOTH
@pytest.mark.parametrize("window", WINDOWS)
async def test_the_backend_is_free_or_booked_and_nothing_is_left(
    server: Server, stream: bool, window: Window, how: How
) -> None:
    found = await depart(Case(server, stream, window), LEAVES, how)
    assert found.faults == []
    assert len(found.times) == LEAVES
    check_fast(found)


class Works:
    """A server that answers every GET at once, and a POST when told; it never notices who leaves."""

    def __init__(self, answer: bytes, beginning: int) -> None:
        self.answer, self.beginning = answer, beginning
        self.asked = 0
        self.go_on = asyncio.Event()

    async def script(self, talk: Talk) -> None:
        while request := await talk.wait_request():
            if request.startswith(b"GET "):
                await talk.send(b"HTTP/1.1 200 OK\r\nserver: llama.cpp\r\ncontent-length: 0\r\n\r\n")
                continue
            await talk.send(self.answer[: self.beginning])
            self.asked += 1
            await self.go_on.wait()
            await talk.send(self.answer[self.beginning :])


async def leave_and_look(server: Server, here: Works, *, stream: bool) -> None:
    async with peer(here.script) as place, over(server, place.url, extra=limits()) as gateway:
        gateway.gateway.start()
        if server.dialect == "openai":
            await wait_until(lambda: gateway.gateway.fleet["gpu-0"].abandon_whole == "drain")
        visitor = await Visitor.to(gateway, chat(stream=stream))
        await wait_until(lambda: here.asked == 1)
        if here.beginning > len(b"HTTP/1.1 200 OK"):
            await visitor.reader.readuntil(b'"content":"')
        await visitor.leave()
        await wait_until(lambda: gateway.zombies == 1)
        await gateway.gateway.fleet["gpu-0"].client.probe("/v1/models")  # its answer says nothing of the card
        assert (gateway.in_flight, gateway.zombies) == (1, 1)
        here.go_on.set()
        await wait_until(lambda: gateway.in_flight == 0)


@pytest.mark.parametrize("begun", [False, True], ids=["before-first", "during"])
async def test_a_card_that_answers_probes_while_it_generates_stays_taken_until_it_has_ended(
    begun: bool,
) -> None:
    server = Server("glm4v", "glm4v")
    good = await tape(server, stream=True)
    here = Works(good.chunked, len(good.chunked) * 6 // 10 if begun else 0)
    await leave_and_look(server, here, stream=True)


async def test_llama_cpp_keeps_its_slot_until_a_whole_answer_has_ended() -> None:
    server = Server("openai", "openai", backend={"slots": 2})
    good = await tape(server, stream=False)
    await leave_and_look(server, Works(good.sized, 0), stream=False)
