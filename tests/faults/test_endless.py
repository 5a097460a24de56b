"""Answers without end: a body, an event, a line that never stops."""

from __future__ import annotations

import resource

import pytest

from gateway.formats import sse
from tests.faults.checks import EVERY, check_refused, over, tries
from tests.faults.test_no_end import events
from tests.support.fleet import Server
from tests.support.peer import Talk, peer
from tests.support.tapes import REPLY, STREAMING, tape
from tests.support.visitor import ask

PIECE = b"x" * 65536
LIMIT = 16 * 1024 * 1024
"""The largest whole answer that is read, in bytes."""


def peak() -> int:
    """The most memory this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@EVERY
async def test_a_body_is_cut_at_the_limit(server: Server) -> None:
    sent = [0]

    async def script(talk: Talk) -> None:
        await talk.wait_request()
        await talk.send(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{"response": "')
        while True:
            await talk.send(PIECE)
            sent[0] += len(PIECE)

    async with peer(script) as here, over(server, here.url) as gateway:
        before = peak()
        answer = await ask(gateway)
        grown = peak() - before
        assert tries(gateway, "bad_payload") == 1
    check_refused(answer, 502, "upstream_invalid_response")
    assert sent[0] < 2 * LIMIT
    assert grown < 4 * LIMIT


LINES = [b"data: ", b'data: {"choices": "', b": ", b"", b"data: x\ndata: y\n"]
CASES = [(server, line) for server in STREAMING for line in LINES if line == LINES[0] or server.tools]


@pytest.mark.parametrize("when", ["first", "later"])
@pytest.mark.parametrize(("server", "line"), CASES[::2], ids=lambda case: getattr(case, "id", None))
async def test_an_event_is_cut_at_its_limit(server: Server, line: bytes, when: str) -> None:
    good = await tape(server, stream=True)
    sent = [0]

    async def script(talk: Talk) -> None:
        if (await talk.wait_request()).startswith(b"GET "):
            return await talk.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        begun = b"".join(events(good.body)[:3]) if when == "later" else b""
        await talk.send(good.head("connection: close") + begun + line)
        while True:
            await talk.send(PIECE if not line.endswith(b"\n") else line * 4096)
            sent[0] += len(PIECE)

    async with peer(script) as here, over(server, here.url, head_wait=30) as gateway:
        answer = await ask(gateway, stream=True)
        assert tries(gateway, "bad_payload") == 1
    assert sent[0] < 16 * sse.MAX_EVENT
    assert not answer.done
    assert answer.error["code"] == "upstream_invalid_response"
    assert answer.status == (200 if when == "later" else 502)
    assert not answer.streamed or REPLY.startswith(answer.text)
