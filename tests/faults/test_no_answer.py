"""A backend takes the connection and the request, and closes or resets it without a byte."""

from __future__ import annotations

import pytest

from tests.faults.checks import (
    BOTH,
    EVERY,
    check_good,
    check_refused,
    ended,
    leave_at_once,
    over,
    playing,
    reset_at_once,
    tries,
)
from tests.support.fleet import SERVERS, Server
from tests.support.peer import Script, Talk, peer
from tests.support.tapes import REPLY, tape
from tests.support.visitor import ask

HOW = pytest.mark.parametrize("fault", [leave_at_once, reset_at_once], ids=["fin", "rst"])


@HOW
@EVERY
@BOTH
async def test_another_backend_answers(server: Server, stream: bool, fault: Script) -> None:
    requests: list[bytes] = []
    good = await tape(server, stream=stream)
    async with peer(fault) as bad, peer(playing(good.chunked, requests=requests)) as here:
        async with over(server, bad.url, here.url) as gateway:
            answer = await ask(gateway, stream=stream)
            assert tries(gateway, "connect") == 1
            assert gateway.metric("gateway_retries_total", reason="connect") == 1
    check_good(answer, REPLY)
    assert answer.headers["x-gateway-attempts"] == "2"
    assert (bad.seen, len(requests)) == (1, 1)


@HOW
@EVERY
@BOTH
async def test_with_none_left_it_is_a_502_after_one_try(server: Server, stream: bool, fault: Script) -> None:
    async with peer(fault) as bad, over(server, bad.url) as gateway:
        answer = await ask(gateway, stream=stream)
        assert tries(gateway, "connect") == 1
        assert ended(gateway, "connect", 502) == 1
    check_refused(answer, 502, "upstream_error")
    assert answer.headers["x-should-retry"] == "false"
    assert bad.seen == 1


@EVERY
async def test_a_connection_that_had_served_before_is_replaced_by_a_fresh_one(server: Server) -> None:
    """The server was just closing it for idleness, in the moment in which the request went out."""
    good = await tape(server, stream=False)
    requests: list[bytes] = []

    async def script(talk: Talk) -> None:
        requests.append(await talk.wait_request())
        await talk.send(good.sized)
        if await talk.wait_request() and talk.number:
            raise AssertionError("a fresh connection got a second request")

    async with peer(script) as here, over(server, here.url) as gateway:
        answers = [await ask(gateway), await ask(gateway)]
        assert tries(gateway, "ok") == 2
    for answer in answers:
        check_good(answer, REPLY)
    attempts = [answer.headers["x-gateway-attempts"] for answer in answers]
    assert attempts == ["1", "2"], "a request that is sent again is an attempt of its own"
    assert (here.seen, len(requests)) == (2, 2)


async def test_a_fresh_connection_is_never_replaced() -> None:
    async with peer(reset_at_once) as bad, over(SERVERS[0], bad.url) as gateway:
        answers = [await ask(gateway) for _ in range(2)]
    assert [answer.status for answer in answers] == [502, 502]
    assert bad.seen == 2, "a try each"
