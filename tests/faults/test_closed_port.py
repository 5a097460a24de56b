"""Nobody listens at a backend's port."""

from __future__ import annotations

from tests.faults.checks import (
    BOTH,
    EVERY,
    PROMPT,
    check_good,
    check_refused,
    ended,
    limits,
    over,
    playing,
    tries,
)
from tests.support.faulty import closed_port
from tests.support.fleet import Server
from tests.support.peer import peer
from tests.support.tapes import REPLY, tape
from tests.support.visitor import ask


@EVERY
@BOTH
async def test_another_backend_answers_and_the_client_sees_nothing_of_it(
    server: Server, stream: bool
) -> None:
    requests: list[bytes] = []
    good = await tape(server, stream=stream)
    with closed_port() as nowhere:
        async with peer(playing(good.chunked, good.chunked, requests=requests)) as here:
            async with over(server, nowhere, here.url) as gateway:
                first = await ask(gateway, stream=stream)
                second = await ask(gateway, stream=stream)
                assert tries(gateway, "connect") == 1
                assert gateway.metric("gateway_retries_total", reason="connect") == 1
                assert gateway.metric("gateway_backend_up", backend="gpu-0") == 0
                assert ended(gateway, "ok", 200) == 2
    check_good(first, REPLY)
    check_good(second, REPLY)
    assert first.headers["x-gateway-attempts"] == "2"
    assert second.headers["x-gateway-attempts"] == "1", "the dead backend rests"
    assert len(requests) == 2


@EVERY
@BOTH
async def test_with_none_left_it_is_a_503_at_once(server: Server, stream: bool) -> None:
    with closed_port() as nowhere:
        async with over(server, nowhere, extra=limits()) as gateway:
            answer = await ask(gateway, stream=stream)
            again = await ask(gateway, stream=stream)
            assert tries(gateway, "connect") == 1
            assert ended(gateway, "connect", 503) == 1
            assert ended(gateway, "no_backend", 503) == 1
    check_refused(answer, 503, "no_backend")
    check_refused(again, 503, "no_backend")
    assert int(answer.headers["retry-after"]) >= 1
    assert int(again.headers["retry-after"]) >= 1
    assert max(answer.seconds, again.seconds) < PROMPT
