"""A backend dies in the middle of its answer: FIN, RST, a chunk too few, a length too long."""

from __future__ import annotations

import pytest

from tests.faults.checks import (
    EVERY,
    EVERY_STREAM,
    check_broken,
    check_good,
    check_refused,
    ended,
    over,
    playing,
    tries,
)
from tests.support.fleet import Server
from tests.support.peer import Script, peer
from tests.support.tapes import REPLY, Tape, chunks, tape
from tests.support.visitor import ask

HOW = [
    "fin-sized",
    "fin-chunked",
    "fin-in-a-chunk",
    "fin-delimited",
    "rst-sized",
    "rst-chunked",
    "rst-delimited",
]


def cut(good: Tape, how: str, share: float) -> Script:
    """A script that sends a share of the answer's body in one framing, and ends the connection."""
    end, _, framing = how.partition("-")
    body = good.body[: int(len(good.body) * share)]
    match framing:
        case "sized":
            raw = good.head(f"content-length: {len(good.body)}") + body
        case "chunked":
            raw = good.head("transfer-encoding: chunked") + b"%x\r\n%b\r\n" % (len(body), body)
        case "in-a-chunk":
            raw = good.head("transfer-encoding: chunked") + chunks(good.body)[: len(body)]
        case _:
            raw = good.head("connection: close") + body
    return playing(raw, end="reset" if end == "rst" else "close")


@EVERY_STREAM
@pytest.mark.parametrize("how", HOW)
async def test_a_stream_that_breaks_after_content_ends_with_an_error_event(server: Server, how: str) -> None:
    good = await tape(server, stream=True)
    requests: list[bytes] = []
    script = cut(good, how, 0.55)
    async with peer(script) as here, peer(playing(good.chunked, requests=requests)) as other:
        async with over(server, here.url, other.url) as gateway:
            answer = await ask(gateway, stream=True)
            assert tries(gateway, "truncated") == 1
            assert ended(gateway, "truncated", 200) == 1
            assert gateway.metric("gateway_retries_total") == 0
    check_broken(answer, "upstream_error", REPLY)
    assert requests == [], "nothing is begun again after content"


@EVERY
@pytest.mark.parametrize("how", HOW)
async def test_a_whole_answer_that_breaks_is_a_502(server: Server, how: str) -> None:
    good = await tape(server, stream=False)
    async with peer(cut(good, how, 0.55)) as here, over(server, here.url) as gateway:
        answer = await ask(gateway)
        outcome = "bad_payload" if how == "fin-delimited" else "truncated"
        assert tries(gateway, outcome) == 1
        assert ended(gateway, outcome, 502) == 1
    code = "upstream_invalid_response" if how == "fin-delimited" else "upstream_error"
    check_refused(answer, 502, code)


@EVERY
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_before_any_content_another_backend_answers(server: Server, stream: bool) -> None:
    good = await tape(server, stream=stream)
    requests: list[bytes] = []
    async with (
        peer(cut(good, "rst-sized", 0)) as here,
        peer(playing(good.chunked, requests=requests)) as other,
        over(server, here.url, other.url) as gateway,
    ):
        answer = await ask(gateway, stream=stream)
    check_good(answer, REPLY)
    assert (here.seen >= 1, len(requests)) == (True, 1)


@EVERY
async def test_behind_a_stream_a_whole_answer_that_breaks_is_asked_again_elsewhere(server: Server) -> None:
    good = await tape(server, stream=True)
    if "event-stream" in good.content_type:
        good = await tape(server, stream=False)
        stream = False
    else:
        stream = True
    requests: list[bytes] = []
    async with (
        peer(cut(good, "fin-sized", 0.9)) as here,
        peer(playing(good.sized, requests=requests)) as other,
        over(server, here.url, other.url) as gateway,
    ):
        answer = await ask(gateway, stream=stream)
        assert gateway.metric("gateway_retries_total", reason="truncated") == 1
    check_good(answer, REPLY)
    assert (here.seen, len(requests)) == (1, 1)
