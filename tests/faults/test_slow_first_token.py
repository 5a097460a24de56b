"""A backend is slow to begin, but within its limit: the client is kept company and nobody is blamed."""

from __future__ import annotations

from tests.faults.checks import EVERY, check_good, check_refused, limits, over, playing, tries
from tests.support.faulty import Fault, faulty
from tests.support.fleet import Server
from tests.support.peer import peer
from tests.support.stack import wait_until
from tests.support.tapes import REPLY, STREAMING, tape
from tests.support.visitor import Visitor, ask, chat

DELAY = 0.3


def eager() -> str:
    """Comments every 50 ms once the head has gone, which waits as told."""
    return "[queue]\nkeepalive = 0.05\n"


@EVERY
async def test_a_stream_gets_comments_until_it_begins(server: Server) -> None:
    good = await tape(server, stream=True)
    async with peer(playing(good.chunked)) as here, faulty(here.url, Fault(delay=DELAY)) as slow:
        async with over(server, slow.url, extra=eager(), head_wait=0.05) as gateway:
            answer = await ask(gateway, stream=True)
            assert gateway.metric("gateway_backend_up") == 1
            assert tries(gateway, "ok") == 1
    check_good(answer, REPLY)
    assert len(answer.comments) >= 2
    assert set(answer.comments) == {": generating"}
    assert answer.frames.index(answer.comments[-1]) < len(answer.comments), "no comment after content"


@EVERY
async def test_a_failure_after_comments_is_an_error_event(server: Server) -> None:
    times = limits(first_token=DELAY, total=DELAY + 0.05)
    good = await tape(server, stream=True)
    async with peer(playing(good.chunked)) as here, faulty(here.url, Fault(delay=5)) as slow:
        async with over(server, slow.url, extra=eager() + times, head_wait=0.05, settle=False) as gateway:
            answer = await ask(gateway, stream=True)
    assert answer.status == 200
    assert answer.comments
    assert answer.error["code"] == "upstream_timeout"
    assert len(answer.events) == 1
    assert not answer.done


async def test_a_client_that_leaves_meanwhile_closes_the_backends_connection() -> None:
    server = next(one for one in STREAMING if one.dialect == "chatglm3")
    good = await tape(server, stream=True)
    async with peer(playing(good.chunked)) as here, faulty(here.url, Fault(delay=5)) as slow:
        async with over(Server("chatglm3", "chatglm3"), slow.url) as gateway:
            visitor = await Visitor.to(gateway, chat(stream=True))
            await wait_until(lambda: here.open)
            await visitor.leave()
            await slow.left.wait()
            await wait_until(lambda: gateway.in_flight == 0)
            assert gateway.metric("gateway_client_disconnects_total", phase="before_first") == 1
            assert gateway.metric("gateway_backend_up") == 1
            assert gateway.zombies == 0


async def test_without_the_patience_of_the_head_an_error_keeps_its_status() -> None:
    server = next(one for one in STREAMING if one.dialect == "chatglm3")
    good = await tape(server, stream=True)
    async with peer(playing(good.chunked)) as here, faulty(here.url, Fault(delay=5)) as slow:
        async with over(Server("chatglm3", "chatglm3"), slow.url, extra=limits(first_token=DELAY)) as gateway:
            check_refused(await ask(gateway, stream=True), 504, "upstream_timeout")
