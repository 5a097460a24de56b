"""A stream whose body ends well but which never said that the answer is complete."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.faults.checks import EVERY_STREAM, check_broken, check_good, ended, over, playing, tries
from tests.support.fleet import Server
from tests.support.peer import Talk, peer
from tests.support.tapes import REPLY, Tape, tape
from tests.support.visitor import ask

FRAMING = pytest.mark.parametrize("framing", ["sized", "chunked", "delimited"])


def events(body: bytes) -> list[bytes]:
    """The events of a stream, each with its blank line."""
    end = b"\r\n\r\n" if b"\r\n\r\n" in body else b"\n\n"
    return [piece + end for piece in body.split(end)[:-1]]


def says_the_end(event: bytes) -> bool:
    """Whether an event is one by which servers say that the answer is complete."""
    data = event.partition(b"data:")[2].strip()
    if not data or data == b"[DONE]":
        return data == b"[DONE]"
    chunk: dict[str, Any] = json.loads(data)
    choices = chunk.get("choices") or [{}]
    closing = "delta" in choices[0] and not choices[0]["delta"]
    return bool(choices[0].get("finish_reason") or closing or chunk.get("finished"))


def answer_in(framing: str, tape: Tape, body: bytes) -> tuple[bytes, str]:
    """These bytes as a well-framed answer, and how its connection ends."""
    one = Tape(tape.content_type, body)
    raw: bytes = getattr(one, framing)
    return raw, "close" if framing == "delimited" else "keep"


@FRAMING
@EVERY_STREAM
async def test_it_is_a_broken_answer_whatever_the_framing_says(server: Server, framing: str) -> None:
    good = await tape(server, stream=True)
    raw, end = answer_in(framing, good, b"".join(one for one in events(good.body) if not says_the_end(one)))
    async with peer(playing(raw, end=end)) as here, over(server, here.url) as gateway:
        answer = await ask(gateway, stream=True)
        assert tries(gateway, "truncated") == 1
        assert ended(gateway, "truncated", 200) == 1
    check_broken(answer, "upstream_error", REPLY)


@FRAMING
@EVERY_STREAM
async def test_everything_but_done_is_whole(server: Server, framing: str) -> None:
    good = await tape(server, stream=True)
    raw, end = answer_in(framing, good, good.body.replace(b"data: [DONE]", b": "))
    async with peer(playing(raw, end=end)) as here, over(server, here.url) as gateway:
        answer = await ask(gateway, stream=True, stream_options={"include_usage": True})
        assert tries(gateway, "ok") == 1
    check_good(answer, REPLY)
    assert answer.events[-2]["usage"]["completion_tokens"] > 0


async def test_the_next_request_need_not_wait_for_the_stream_to_close() -> None:
    server = Server("openai", "openai")
    good = await tape(server, stream=True)
    open_streams: list[int] = []
    seen: list[int] = []

    async def script(talk: Talk) -> None:
        if not (await talk.wait_request()).startswith(b"POST "):
            return  # a probe
        seen.append(len(open_streams))
        open_streams.append(talk.number)
        await talk.send(good.chunked.removesuffix(b"0\r\n\r\n"))  # [DONE], but no end of the body
        await talk.wait_left()
        open_streams.remove(talk.number)

    async with peer(script) as here, over(server, here.url, slots=1) as gateway:
        for answer in await asyncio.gather(*(ask(gateway, stream=True) for _ in range(2))):
            check_good(answer, REPLY)
    assert seen == [0, 1]


async def test_whoever_waits_has_a_connection_before_the_stream_of_a_server_that_keeps_none_has_ended() -> (
    None
):
    server = Server("openai", "openai")
    good = await tape(server, stream=True)
    middle = len(good.delimited) - len(b"".join(events(good.body)[2:]))
    asked: list[int] = []
    another = asyncio.Event()

    async def script(talk: Talk) -> None:
        if asked:
            another.set()
        if not (await talk.wait_request()).startswith(b"POST "):
            return  # a probe
        asked.append(talk.number)
        await talk.send(good.delimited[:middle])
        if len(asked) == 1:
            async with asyncio.timeout(10):
                while not another.is_set():  # the other one has to wait before the card's next piece
                    await talk.send(b": still here\n\n")
                    await asyncio.sleep(0.01)
        await talk.send(good.delimited[middle:])

    async with peer(script) as here, over(server, here.url, slots=1) as gateway:
        for answer in await asyncio.gather(*(ask(gateway, stream=True) for _ in range(2))):
            check_good(answer, REPLY)
    assert asked[1] > asked[0]
