"""A backend that redirects: nobody follows."""

from __future__ import annotations

import pytest

from tests.faults.checks import BOTH, EVERY, check_refused, over, playing, stay_silent, tries
from tests.support.fleet import Server
from tests.support.peer import peer
from tests.support.visitor import ask


@EVERY
@BOTH
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_it_is_never_followed(server: Server, stream: bool, status: int) -> None:
    async with peer(stay_silent) as canary:
        raw = f"HTTP/1.1 {status} Elsewhere\r\nlocation: {canary.url}/steal\r\ncontent-length: 0\r\n\r\n"
        async with peer(playing(raw.encode())) as here, over(server, here.url) as gateway:
            answer = await ask(gateway, stream=stream)
            assert tries(gateway, "upstream_5xx") == 1
            (note,) = [line for line in gateway.lines if "a redirect" in line.get("message", "")]
            assert note["message"].endswith(
                f" answered {status}, a redirect, which is never followed: is the url right?"
            )
            assert gateway.gateway.dispatcher.usable() == {"gpu-0": True}
        assert canary.seen == 0
        assert here.seen == 1
    check_refused(answer, 502, "upstream_error")
    assert "location" not in answer.headers
    assert canary.url.encode() not in answer.body
