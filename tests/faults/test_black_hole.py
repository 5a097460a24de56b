"""A backend's backlog is full, or a firewall drops what is sent there: connecting takes for ever."""

from __future__ import annotations

from tests.faults.checks import BOTH, EVERY, PROMPT, check_good, check_refused, limits, over, playing, tries
from tests.support.faulty import black_hole
from tests.support.fleet import Server
from tests.support.peer import peer
from tests.support.tapes import REPLY, tape
from tests.support.visitor import ask

CONNECT = 0.1


@EVERY
@BOTH
async def test_another_backend_answers_after_the_connect_time_out(server: Server, stream: bool) -> None:
    requests: list[bytes] = []
    good = await tape(server, stream=stream)
    with black_hole() as nowhere:
        async with peer(playing(good.chunked, requests=requests)) as here:
            async with over(server, nowhere, here.url, extra=limits(connect=CONNECT)) as gateway:
                answer = await ask(gateway, stream=stream)
                assert tries(gateway, "connect") == 1
                assert tries(gateway, "ok", "gpu-1") == 1
    check_good(answer, REPLY)
    assert len(requests) == 1
    assert CONNECT <= answer.seconds < CONNECT + PROMPT


@BOTH
async def test_with_none_left_it_is_a_503_after_the_connect_time_out(stream: bool) -> None:
    with black_hole() as nowhere:
        async with over(Server("chatglm3", "chatglm3"), nowhere, extra=limits(connect=CONNECT)) as gateway:
            answer = await ask(gateway, stream=stream)
            assert tries(gateway, "connect") == 1
    check_refused(answer, 503, "no_backend")
    assert "retry-after" in answer.headers
    assert CONNECT <= answer.seconds < CONNECT + PROMPT
