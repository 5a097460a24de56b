"""A backend answers 500, 502 or 503 before a byte of an answer."""

from __future__ import annotations

import pytest

from tests.faults.checks import (
    BOTH,
    EVERY,
    SECRET,
    check_good,
    check_refused,
    ended,
    over,
    playing,
    tries,
)
from tests.support.fleet import Server
from tests.support.peer import peer
from tests.support.tapes import REPLY, tape
from tests.support.visitor import ask

STATUS = pytest.mark.parametrize("status", [500, 502, 503])


def failing(status: int, *fields: str) -> bytes:
    """A refusal with words of its own."""
    head = [f"HTTP/1.1 {status} No", "content-type: text/plain", f"content-length: {len(SECRET)}", *fields]
    return "\r\n".join([*head, "", SECRET]).encode()


@EVERY
@BOTH
@STATUS
async def test_another_backend_is_asked_once(server: Server, stream: bool, status: int) -> None:
    good = await tape(server, stream=stream)
    requests: list[bytes] = []
    async with (
        peer(playing(failing(status), requests=requests)) as here,
        peer(playing(good.chunked, requests=requests)) as other,
    ):
        async with over(server, here.url, other.url) as gateway:
            answer = await ask(gateway, stream=stream)
            assert tries(gateway, "upstream_5xx") == 1
            assert gateway.metric("gateway_retries_total", reason="upstream_5xx") == 1
    check_good(answer, REPLY)
    assert answer.headers["x-gateway-attempts"] == "2"
    assert len(requests) == 2
    assert requests[0].partition(b"\r\n\r\n")[2] == requests[1].partition(b"\r\n\r\n")[2], "the same bytes"


@EVERY
@BOTH
@STATUS
async def test_with_none_left_the_words_are_ours(server: Server, stream: bool, status: int) -> None:
    requests: list[bytes] = []
    async with peer(playing(failing(status), requests=requests)) as here, over(server, here.url) as gateway:
        answer = await ask(gateway, stream=stream)
        assert tries(gateway, "upstream_5xx") == 1
        assert ended(gateway, "upstream_5xx", 503 if status == 503 else 502) == 1
    if status == 503:
        check_refused(answer, 503, "overloaded")
    else:
        check_refused(answer, 502, "upstream_error")
        assert answer.headers["x-should-retry"] == "false"
    assert len(requests) == 1


@EVERY
@BOTH
async def test_tries_are_bounded_when_all_fail(server: Server, stream: bool) -> None:
    requests: list[bytes] = []
    async with (
        peer(playing(failing(500), requests=requests)) as one,
        peer(playing(failing(500), requests=requests)) as two,
        peer(playing(failing(500), requests=requests)) as three,
    ):
        async with over(server, one.url, two.url, three.url) as gateway:
            answer = await ask(gateway, stream=stream)
    check_refused(answer, 502, "upstream_error")
    assert len(requests) == 2, "one more try by default"
