"""Answers arrive in any slices: every character and every line comes through whole."""

from __future__ import annotations

import pytest

from tests.faults.checks import BOTH, EVERY, check_good, over, playing, tries
from tests.support.faulty import Fault, faulty
from tests.support.fleet import ANSWER, SERVERS, Server
from tests.support.peer import peer
from tests.support.tapes import REPLY, tape
from tests.support.visitor import ask


@EVERY
@BOTH
@pytest.mark.parametrize("framing", ["sized", "chunked", "delimited"])
async def test_byte_by_byte(server: Server, stream: bool, framing: str) -> None:
    good = await tape(server, stream=stream)
    raw: bytes = getattr(good, framing)
    end = "close" if framing == "delimited" else "keep"
    async with peer(playing(raw, size=1, end=end)) as here, over(server, here.url) as gateway:
        answer = await ask(gateway, stream=stream)
        assert tries(gateway, "ok") == 1
    check_good(answer, REPLY)


@pytest.mark.parametrize("slices", [2, 3, 5, 7, 1000])
@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.id)
async def test_in_other_slices_over_a_relay(server: Server, slices: int) -> None:
    good = await tape(server, stream=True, reply=ANSWER)
    async with peer(playing(good.chunked)) as here, faulty(here.url, Fault(slices=slices)) as slicer:
        async with over(server, slicer.url) as gateway:
            answer = await ask(gateway, stream=True)
    check_good(answer, ANSWER)
