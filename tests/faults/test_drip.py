"""A server that sends bytes for ever and never any content: the time-outs between tokens are about tokens."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.faults.checks import EVERY_STREAM, check_broken, check_refused, limits, over, tries
from tests.support.fleet import Server
from tests.support.peer import Script, Talk, peer
from tests.support.tapes import REPLY, Tape, chunks, tape
from tests.support.visitor import ask

SHORT = 0.15
PAUSE = 0.02
"""Seconds between two drops: far below the limit."""
OPENAI = Server("openai", "openai")
COMMENT = b": ping\n\n"
BYTE = b"d"
DELTAS: list[dict[str, Any]] = [
    {},
    {"role": "assistant", "content": ""},
    {"role": "assistant"},
    {"content": ""},
    {"content": None},
    {"content": "", "reasoning_content": ""},
]


def dripping(good: Tape, drop: bytes, *, events: int) -> Script:
    """A server's script: the first events of a stream, and then this drop until the client leaves."""
    first = (
        good.body.split(b"\n\n")[:events]
        if b"\r\n\r\n" not in good.body
        else good.body.split(b"\r\n\r\n")[:events]
    )
    end = b"\r\n\r\n" if b"\r\n\r\n" in good.body else b"\n\n"

    async def script(talk: Talk) -> None:
        if (await talk.wait_request()).startswith(b"GET "):
            return await talk.wait_left()
        await talk.send(good.head("transfer-encoding: chunked"))
        if first:
            await talk.send(chunks(b"".join(event + end for event in first)))
        while True:
            await talk.send(b"%x\r\n%b\r\n" % (len(drop), drop))
            await asyncio.sleep(PAUSE)

    async def until_left(talk: Talk) -> None:
        try:
            await script(talk)
        except ConnectionError:
            return

    return until_left


@EVERY_STREAM
@pytest.mark.parametrize("drop", [COMMENT, BYTE], ids=["comments", "bytes"])
async def test_before_the_first_token_only_content_counts(server: Server, drop: bytes) -> None:
    good = await tape(server, stream=True)
    async with peer(dripping(good, drop, events=0)) as here:
        async with over(server, here.url, extra=limits(first_token=SHORT), settle=False) as gateway:
            answer = await ask(gateway, stream=True)
            assert tries(gateway, "first_token_timeout") == 1
    check_refused(answer, 504, "upstream_timeout")


@EVERY_STREAM
@pytest.mark.parametrize("drop", [COMMENT, BYTE], ids=["comments", "bytes"])
async def test_between_tokens_only_content_counts(server: Server, drop: bytes) -> None:
    good = await tape(server, stream=True)
    async with peer(dripping(good, drop, events=3)) as here:
        async with over(server, here.url, extra=limits(between_tokens=SHORT), settle=False) as gateway:
            answer = await ask(gateway, stream=True)
            assert tries(gateway, "stall") == 1
    check_broken(answer, "upstream_timeout", REPLY)


@pytest.mark.parametrize("spaced", [False, True], ids=["dense", "spaced"])
@pytest.mark.parametrize("alias", [False, True], ids=["passed", "read"])
@pytest.mark.parametrize("delta", DELTAS, ids=str)
async def test_empty_deltas_are_no_content(delta: dict[str, Any], alias: bool, spaced: bool) -> None:
    good = await tape(OPENAI, stream=True)
    first = json.loads(good.body.split(b"\n\n")[0][6:])
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    separators = (", ", ": ") if spaced else (",", ":")
    drop = f"data: {json.dumps({**first, 'choices': [choice]}, separators=separators)}\n\n".encode()
    served = {"served_name": "other"} if alias else {}
    for events, limit, outcome in ((1, "first_token", "first_token_timeout"), (3, "between_tokens", "stall")):
        async with peer(dripping(good, drop, events=events)) as here:
            extra = limits(**{limit: SHORT})
            async with over(OPENAI, here.url, extra=extra, settle=False, **served) as gateway:
                answer = await ask(gateway, stream=True)
                assert answer.error["code"] == "upstream_timeout"
                assert tries(gateway, outcome) == 1


async def test_drops_between_tokens_that_come_in_time_are_no_stall() -> None:
    good = await tape(OPENAI, stream=True)

    async def script(talk: Talk) -> None:
        await talk.wait_request()
        await talk.send(good.head("transfer-encoding: chunked"))
        for event in good.body.split(b"\n\n")[:-1]:
            for piece in (COMMENT, event + b"\n\n", COMMENT):
                await talk.send(b"%x\r\n%b\r\n" % (len(piece), piece))
                await asyncio.sleep(PAUSE)
        await talk.send(b"0\r\n\r\n")

    async with peer(script) as here, over(OPENAI, here.url, extra=limits(between_tokens=1)) as gateway:
        answer = await ask(gateway, stream=True)
        assert tries(gateway, "ok") == 1
    assert answer.text == REPLY
