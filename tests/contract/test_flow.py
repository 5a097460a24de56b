"""A stream of an OpenAI-like server flows: every piece at once, nobody woken, and everything else as ever."""

from __future__ import annotations

import asyncio

import pytest

from gateway.formats.events import Event
from gateway.path.generation import Generation
from tests.faults.checks import check_broken, check_good, limits, over, tries
from tests.support.fleet import SERVERS
from tests.support.peer import Script, Talk, peer
from tests.support.stack import wait_until
from tests.support.tapes import chunks, tape
from tests.support.visitor import Visitor, ask, chat

SERVER = next(server for server in SERVERS if server.id == "openai")
LONG = "".join(f"词{number} " for number in range(100))
END = b"0\r\n\r\n"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pieces each reading of an answer has given."""
    counted: list[int] = []
    read = Generation.read

    async def counting(generation: Generation) -> list[Event]:
        events = await read(generation)
        counted.append(len(events))
        return events

    monkeypatch.setattr(Generation, "read", counting)
    return counted


async def events() -> list[bytes]:
    """A long answer, event by event, framed."""
    good = await tape(SERVER, stream=True, reply=LONG)
    return [chunks(event + b"\n\n") for event in good.body.split(b"\n\n")[:-1]]


def bare(piece: bytes) -> bytes:
    """An event without the size of its chunk."""
    return piece.partition(b"\r\n")[2]


def playing(pieces: list[bytes], go: asyncio.Semaphore, *, end: bytes | None = END) -> Script:
    """A script that sends an event for each release of `go`, and then `end`; None: it hangs up."""

    async def script(talk: Talk) -> None:
        while (await talk.wait_request()).startswith(b"POST "):
            good = await tape(SERVER, stream=True, reply=LONG)
            await talk.send(good.head("transfer-encoding: chunked"))
            for piece in pieces:
                await go.acquire()
                await talk.send(piece)
            if end is None:
                return
            await talk.send(end)

    return script


async def test_each_event_goes_on_alone_and_hardly_one_is_read(reads: list[int]) -> None:
    pieces, go = await events(), asyncio.Semaphore(2)
    async with peer(playing(pieces, go)) as here, over(SERVER, here.url) as gateway:
        visitor = await Visitor.to(gateway, chat(stream=True))
        came = await visitor.reader.readuntil(bare(pieces[1]))  # it may come in one chunk with the role
        for piece in pieces[2:-3]:
            go.release()
            got = await visitor.reader.readuntil(b"\n\n\r\n")
            assert got == piece
            came += got
        for _ in range(3):
            go.release()
        check_good(await visitor.wait_answer(came), LONG)
        assert len(reads) < 8 < len(pieces)
        assert gateway.metric("gateway_time_to_first_token_seconds_count") == 1


async def test_a_reader_who_stops_loses_nothing_and_holds_the_backend_back(reads: list[int]) -> None:
    role, word, *_, stop, usage, done = await events()
    many = [word] * 40_000  # more than all buffers between the two hold
    go = asyncio.Semaphore(len(many) + 10)
    async with peer(playing([role, *many, stop, usage, done], go)) as here, over(SERVER, here.url) as gateway:
        visitor = await Visitor.to(gateway, chat(stream=True))
        visitor.reader._transport.pause_reading()  # type: ignore[attr-defined]  # a stream has no way to wait
        await wait_until(lambda: len(reads) > 2)
        assert go._value > 10, "the backend has not sent everything"
        visitor.reader._transport.resume_reading()  # type: ignore[attr-defined]
        answer = await visitor.wait_answer()
        assert answer.whole
        assert answer.done
        assert answer.body.count("词0".encode()) == len(many)


@pytest.mark.parametrize("how", ["cut", "stall", "garbled"])
async def test_what_breaks_while_it_flows_is_one_error(how: str) -> None:
    pieces, go = await events(), asyncio.Semaphore(30)
    end = {"cut": None, "stall": b"", "garbled": b"zz\r\n"}[how]
    extra = limits(between_tokens=0.15) if how == "stall" else ""
    code = {"cut": "upstream_error", "stall": "upstream_timeout", "garbled": "upstream_invalid_response"}[how]
    sent = pieces if how == "stall" else pieces[:30]
    async with peer(playing(sent, go, end=end)) as here, over(SERVER, here.url, extra=extra) as gateway:
        answer = await ask(gateway, stream=True)
        check_broken(answer, code, LONG)
        assert len(answer.events) == 31
        assert gateway.in_flight == 0
        assert tries(gateway, {"cut": "truncated", "stall": "stall", "garbled": "bad_payload"}[how]) == 1


async def test_a_client_that_leaves_while_it_flows_is_noticed() -> None:
    pieces, go = await events(), asyncio.Semaphore(20)
    async with peer(playing(pieces, go)) as here, over(SERVER, here.url) as gateway:
        visitor = await Visitor.to(gateway, chat(stream=True))
        await visitor.reader.readuntil(bare(pieces[19]))
        await visitor.leave("rst")
        await wait_until(lambda: tries(gateway, "client_gone") == 1)
        await wait_until(lambda: gateway.in_flight == 0)
