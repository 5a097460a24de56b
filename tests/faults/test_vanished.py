"""A cable is pulled: nothing more comes, not even the end of the connection."""

from __future__ import annotations

from tests.faults.checks import EVERY, EVERY_STREAM, check_broken, check_refused, limits, over, playing
from tests.support.faulty import Fault, faulty
from tests.support.fleet import Server
from tests.support.peer import peer
from tests.support.tapes import REPLY, tape
from tests.support.visitor import ask

SHORT = 0.15


@EVERY_STREAM
async def test_in_the_middle_of_a_stream_it_is_a_stall(server: Server) -> None:
    good = await tape(server, stream=True)
    pulled = Fault(limit=len(good.head()) + len(good.body) * 6 // 10, fate="stall")
    async with peer(playing(good.sized)) as here, faulty(here.url, pulled) as cable:
        times = limits(between_tokens=SHORT, total=4 * SHORT)
        async with over(server, cable.url, extra=times, settle=False) as gateway:
            answer = await ask(gateway, stream=True)
    check_broken(answer, "upstream_timeout", REPLY)


@EVERY
async def test_before_a_whole_answer_it_is_a_504(server: Server) -> None:
    good = await tape(server, stream=False)
    async with peer(playing(good.sized)) as here, faulty(here.url, Fault(limit=0, fate="stall")) as cable:
        async with over(server, cable.url, extra=limits(total=SHORT), settle=False) as gateway:
            answer = await ask(gateway)
    check_refused(answer, 504, "upstream_timeout")
