"""A backend answers 429, with a word on when to come again."""

from __future__ import annotations

import pytest

from tests.faults.checks import BOTH, EVERY, check_good, check_refused, over, playing, tries
from tests.faults.test_server_error import failing
from tests.support.fleet import Server
from tests.support.peer import peer
from tests.support.tapes import REPLY, tape
from tests.support.visitor import ask

LONGEST = 60
"""Most seconds a backend may keep everybody away."""
WAITS = {
    "none": None,
    "seconds": "2",
    "fraction": "1.5",
    "negative": "-5",
    "huge": "1000000000",
    "overflow": "9" * 400,
    "garbage": "soon",
    "empty": "",
    "date": "Wed, 21 Oct 2065 07:28:00 GMT",
    "past": "Wed, 21 Oct 2015 07:28:00 GMT",
}


@EVERY
@BOTH
async def test_another_backend_is_asked(server: Server, stream: bool) -> None:
    good = await tape(server, stream=stream)
    requests: list[bytes] = []
    async with (
        peer(playing(failing(429, "retry-after: 2"), requests=requests)) as here,
        peer(playing(good.chunked, requests=requests)) as other,
    ):
        async with over(server, here.url, other.url) as gateway:
            answer = await ask(gateway, stream=stream)
            assert gateway.metric("gateway_backend_up", backend="gpu-0") == 1, "busy is not dead"
    check_good(answer, REPLY)
    assert len(requests) == 2


@BOTH
@pytest.mark.parametrize("wait", WAITS)
async def test_with_none_left_the_client_is_told_when(stream: bool, wait: str) -> None:
    said = WAITS[wait]
    fields = [] if said is None else [f"retry-after: {said}"]
    async with peer(playing(failing(429, *fields))) as here:
        async with over(Server("openai", "openai"), here.url) as gateway:
            answer = await ask(gateway, stream=stream)
            assert tries(gateway, "upstream_5xx") == 1
    check_refused(answer, 503, "overloaded")
    assert 1 <= int(answer.headers.get("retry-after", 1)) <= LONGEST
    if wait in ("seconds", "fraction"):
        assert answer.headers["retry-after"] == "2"
    assert here.seen == 1
