"""A backend that does not speak HTTP as it should: never a hang, nor a reused connection, nor its bytes."""

from __future__ import annotations

import pytest

from tests.faults.checks import BOTH, SECRET, check_good, check_refused, over, playing, tries
from tests.support.fleet import SERVERS, Server
from tests.support.peer import Talk, peer
from tests.support.tapes import REPLY, Tape, tape
from tests.support.visitor import ask

SOME = pytest.mark.parametrize(
    "server",
    [one for one in SERVERS if one.id in {"chatglm2", "chatglm3-2024-05", "openai"}],
    ids=lambda server: server.id,
)
"""The three ways an answer is read: whole, event by event, and passed on as bytes."""
OK = b"HTTP/1.1 200 OK\r\n"


def bad(good: Tape) -> dict[str, bytes]:
    """Answers with a fault in their HTTP, by its name; all hold a good body."""
    body, size = good.body, len(good.body)
    kind = f"content-type: {good.content_type}\r\n".encode()
    sized = b"content-length: %d\r\n\r\n" % size + body
    chunk = b"%x\r\n%b\r\n" % (size, body)
    coded = b"transfer-encoding: chunked\r\n"
    return {
        "header-200k": OK + kind + b"x-long: " + SECRET.encode() + b"x" * 200_000 + b"\r\n" + sized,
        "headers-5000": OK + kind + b"x: y\r\n" * 5000 + sized,
        "cr-in-header": OK + kind + b"x-odd: a\rb\r\n" + sized,
        "nul-in-header": OK + kind + b"x-odd: a\x00b\r\n" + sized,
        "status-line": b"HTTP/1.1 OK\r\n" + kind + sized,
        "status-999": b"HTTP/1.1 999 Odd\r\n" + kind + sized,
        "version": b"HTTP/3.7 200 OK\r\n" + kind + sized,
        "another-protocol": b"SSH-2.0-OpenSSH_9.6 " + SECRET.encode() + b"\r\n",
        "body-alone": body,
        "chunk-size": OK + kind + coded + b"\r\n" + b"zz\r\n" + body + b"\r\n0\r\n\r\n",
        "chunk-size-negative": OK + kind + coded + b"\r\n-5\r\n" + body + b"\r\n0\r\n\r\n",
        "chunk-size-huge": OK + kind + coded + b"\r\n" + b"f" * 20 + b"\r\n" + body,
        "length-and-coding": OK + kind + coded + b"content-length: %d\r\n\r\n" % size + chunk + b"0\r\n\r\n",
        "two-lengths": OK + kind + b"content-length: 5\r\n" + sized,
        "length-negative": OK + kind + b"content-length: -1\r\n\r\n" + body,
        "length-words": OK + kind + b"content-length: many\r\n\r\n" + body,
        "coding-unknown": OK + kind + b"transfer-encoding: gzip, chunked\r\n\r\n" + chunk + b"0\r\n\r\n",
    }


@SOME
@BOTH
@pytest.mark.parametrize("fault", bad(Tape("text/plain", b"")))
async def test_it_is_a_502_and_the_connection_is_given_up(server: Server, stream: bool, fault: str) -> None:
    good = await tape(server, stream=stream)
    requests: list[bytes] = []
    left: list[int] = []

    async def script(talk: Talk) -> None:
        requests.append(await talk.wait_request())
        await talk.send(bad(good)[fault] if talk.number == 0 else good.sized)
        await talk.wait_left()
        left.append(talk.number)

    async with peer(script) as here, over(server, here.url) as gateway:
        answer = await ask(gateway, stream=stream)
        again = await ask(gateway, stream=stream)
        assert tries(gateway, "bad_payload") == 1
        assert gateway.metric("gateway_backend_up") == 1
    check_refused(answer, 502, "upstream_invalid_response")
    check_good(again, REPLY)
    assert (here.seen, len(requests)) == (2, 2), "the spoiled connection is not used again"


@SOME
@BOTH
async def test_bytes_behind_an_answer_spoil_the_connection_not_the_answer(
    server: Server, stream: bool
) -> None:
    good = await tape(server, stream=stream)
    junk = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n" + SECRET.encode()

    async def script(talk: Talk) -> None:
        await talk.wait_request()
        await talk.send(good.sized + junk)
        await talk.wait_left()

    async with peer(script) as here, over(server, here.url) as gateway:
        answers = [await ask(gateway, stream=stream) for _ in range(2)]
    for answer in answers:
        check_good(answer, REPLY)
        assert SECRET.encode() not in answer.body
    assert here.seen == 2


@SOME
@BOTH
async def test_interim_answers_pass_by(server: Server, stream: bool) -> None:
    good = await tape(server, stream=stream)
    interim = b"HTTP/1.1 100 Continue\r\n\r\n" * 3
    async with peer(playing(interim + good.sized)) as here, over(server, here.url) as gateway:
        check_good(await ask(gateway, stream=stream), REPLY)


@SOME
@BOTH
async def test_interim_answers_without_end_do_not(server: Server, stream: bool) -> None:
    async def script(talk: Talk) -> None:
        await talk.wait_request()
        while True:
            await talk.send(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)

    async with peer(script) as here, over(server, here.url) as gateway:
        check_refused(await ask(gateway, stream=stream), 502, "upstream_invalid_response")
