"""Cut at every byte: an answer that broke off never looks whole, and one that was complete is never lost.

Three steps, each of them total. The parser of answers tells, at every cut of every framing, what of the body
had come and whether it ended well. The gateway's own application then gets every such beginning of a body,
ended well or broken. And the official SDK reads a sample of them over real sockets.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai
import pytest

from gateway.compose import Gateway
from gateway.upstream.connection import BackendConnection, ConnectionFault
from tests.faults.checks import EVERY, EVERY_STREAM, over
from tests.faults.test_no_end import events, says_the_end
from tests.support.asgi import Call, Rig, chat, rig
from tests.support.fleet import Server
from tests.support.outboxes import AtOnce
from tests.support.peer import Talk, peer
from tests.support.servers import Reply, Servers
from tests.support.site import Site
from tests.support.tapes import Tape, tape

STEP = int(os.environ.get("GATEWAY_TEST_CUTS", "97"))
"""Every which cut the SDK reads over real sockets; 1 for all of them."""
REPLY = "北京é𠮷 “f”"
"""Short, as there is a request for every byte; long enough for ChatGLM3 to stream it."""
FRAMINGS = ("sized", "chunked", "delimited")


# --- the framing ------------------------------------------------------------------------------------


class Nowhere(asyncio.Transport):
    """A transport whose other end is the test."""

    def write(self, data: Any) -> None:
        """Nobody reads it."""

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        """Nothing to close."""

    def get_write_buffer_size(self) -> int:
        return 0


def received(raw: bytes) -> tuple[bytes, bool]:
    """What the parser of answers makes of these bytes and an end: the body, and whether it ended well."""
    loop = asyncio.get_running_loop()
    connection = BackendConnection(lambda _: None, None, loop, write_batcher=AtOnce())
    connection.connection_made(Nowhere())
    connection.start(b"POST / HTTP/1.1\r\n\r\n")
    while raw:
        buffer = connection.get_buffer(-1)
        count = min(len(raw), len(buffer))
        buffer[:count] = raw[:count]
        raw = raw[count:]
        connection.buffer_updated(count)
    connection.eof_received()
    return (connection.take() if connection.status else b""), connection.complete


@EVERY
@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_what_of_a_body_has_come_is_known_at_every_cut(
    server: Server, framing: str, stream: bool
) -> None:
    good = await tape(server, stream=stream, reply=REPLY)
    raw: bytes = getattr(good, framing)
    head = raw.index(b"\r\n\r\n") + 4
    before = b""
    for cut in range(1, len(raw)):
        body, well = received(raw[:cut])
        assert good.body.startswith(body)
        assert body.startswith(before), "what has come stays"
        assert well == (framing == "delimited" and cut >= head), f"at byte {cut}"
        before = body
    assert received(raw) == (good.body, True)


async def test_an_end_without_a_byte_is_no_answer() -> None:
    connection = BackendConnection(lambda _: None, None, asyncio.get_running_loop(), write_batcher=AtOnce())
    connection.connection_made(Nowhere())
    connection.start(b"POST / HTTP/1.1\r\n\r\n")
    connection.eof_received()
    with pytest.raises(ConnectionFault):
        await connection.wait_head()


# --- the answer -------------------------------------------------------------------------------------


def served(good: Tape, body: bytes, *, well: bool) -> Reply:
    """A reply whose body is this, event by event, and ends so."""

    async def pieces() -> AsyncIterator[bytes]:
        whole = events(body)
        for piece in [*whole, body[sum(map(len, whole)) :]]:
            if piece:
                yield piece
        if not well:
            raise httpx.ReadError("broken off")

    async def reply(request: httpx.Request) -> httpx.Response:
        return httpx.Response(
            200, content=pieces(), headers={"content-type": good.content_type}, request=request
        )

    return reply


def complete_from(good: Tape, server: Server, *, well: bool) -> int:
    """From which byte on an answer that ends there is provably complete.

    A stream is complete with the event that says so. GLM-4V's says so only together with a good end. Of an
    OpenAI-like server the JSON of that event is enough, without the empty line behind it.
    """
    if "event-stream" not in good.content_type:
        return len(good.body)
    place = 0
    for event in events(good.body):
        place += len(event)
        if says_the_end(event):
            if not well and server.dialect == "glm4v":
                return len(good.body) + 1
            return place - (len(event) - len(event.rstrip()) if server.dialect == "openai" else 0)
    raise AssertionError("this stream has no end")


def asked_whole_at(server: Server, good: Tape, cut: int, *, well: bool) -> bool:
    """Whether the gateway asks again, whole, for a stream that held no event."""
    if server.dialect == "chatglm3":
        return well and cut == 0
    return server.dialect == "chatglm2-openai" and cut < len(events(good.body)[0])


def bears_grudge(gateway: Gateway) -> bool:
    """Whether the next request would be served otherwise than the first."""
    (backend,) = gateway.fleet.values()
    return backend.no_streams or not all(gateway.dispatcher.usable().values())


@dataclass
class Stage:
    """One gateway over one server whose answer is set for each request; made anew when it bears a grudge."""

    server: Server
    whole: Reply
    reply: Reply | None = None
    _exits: AsyncExitStack = field(default_factory=AsyncExitStack)
    _rig: Rig | None = None

    async def wait_answer(self, reply: Reply, *, stream: bool) -> tuple[Call, int]:
        """The gateway's answer, and how often the server was asked for it."""
        self.reply = reply
        here = self._rig or await self._raised()
        before = len(here.servers.order)
        call = await here.chat(stream=stream)
        asked = len(here.servers.order) - before
        if bears_grudge(here.gateway):
            await self.strike()
        return call, asked

    async def _raised(self) -> Rig:
        made = rig(Servers(a=self._play), self.server.dialect, **self.server.backend)
        self._rig = await self._exits.enter_async_context(made)
        return self._rig

    async def _play(self, request: httpx.Request) -> httpx.Response:
        reply, self.reply = self.reply, None
        return await (reply or self.whole)(request)

    async def strike(self) -> None:
        """End the gateway."""
        self._rig = None
        await self._exits.aclose()


def check_honest(call: Call, *, whole: bool, why: str) -> None:
    if whole:
        assert call.status == 200, why
        assert b"[DONE]" in call.body, why
        assert "".join(texts(call)) == REPLY, why
        return
    assert b"[DONE]" not in call.body, why
    assert call.complete, why
    if call.status == 200:
        assert call.events[-1]["error"]["code"] in {"upstream_error", "upstream_invalid_response"}, why
        assert REPLY.startswith("".join(texts(call))), why
        assert not any(choice["finish_reason"] for choice in choices(call)), why
    else:
        assert call.status == 502, why
        assert call.error["code"] in {"upstream_error", "upstream_invalid_response", "empty_response"}, why


def choices(call: Call) -> Iterator[Any]:
    return (choice for event in call.events if "choices" in event for choice in event["choices"])


def texts(call: Call) -> Iterator[str]:
    return (choice["delta"].get("content") or "" for choice in choices(call))


@EVERY
@pytest.mark.parametrize("well", [True, False], ids=["ended", "broken"])
async def test_a_stream_cut_anywhere_is_honest(server: Server, well: bool) -> None:
    good = await tape(server, stream=True, reply=REPLY)
    repeat = await tape(server, stream=False, reply=REPLY)
    complete = complete_from(good, server, well=well)
    stage = Stage(server, served(repeat, repeat.body, well=True))
    for cut in range(len(good.body) + well):
        why = f"cut at byte {cut} of {len(good.body)}"
        again = asked_whole_at(server, good, cut, well=well)
        call, asked = await stage.wait_answer(served(good, good.body[:cut], well=well), stream=True)
        check_honest(call, whole=again or cut >= complete, why=why)
        assert asked == 1 + again, why
    await stage.strike()


@EVERY
@pytest.mark.parametrize("well", [True, False], ids=["ended", "broken"])
async def test_a_whole_answer_cut_anywhere_is_a_502(server: Server, well: bool) -> None:
    good = await tape(server, stream=False, reply=REPLY)
    stage = Stage(server, served(good, good.body, well=True))
    for cut in range(len(good.body)):
        call, asked = await stage.wait_answer(served(good, good.body[:cut], well=well), stream=False)
        assert (call.status, asked) == (502, 1), f"cut at byte {cut}"
        assert call.error["code"] == ("upstream_invalid_response" if well else "upstream_error")
        assert b"choices" not in call.body
    await stage.strike()


# --- the SDK ----------------------------------------------------------------------------------------


def heard(client: openai.OpenAI) -> str:
    """What the SDK gives its user; raises what it raises."""
    request = chat(stream=True)
    with client.chat.completions.create(**request) as stream:
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


@EVERY_STREAM
@pytest.mark.parametrize("framing", FRAMINGS)
async def test_the_official_sdk_raises_on_every_cut(server: Server, framing: str) -> None:
    good = await tape(server, stream=True, reply=REPLY)
    whole = await tape(server, stream=False, reply=REPLY)
    raw: bytes = getattr(good, framing)
    now = [0]
    raised = 0

    async def script(talk: Talk) -> None:
        while request := await talk.wait_request():
            if request.startswith(b"GET "):
                await talk.send(b"HTTP/1.1 204 No Content\r\n\r\n")
            elif b'"stream":true' in request or b"/stream " in request:
                await talk.send(raw[: now[0]])
                return
            else:
                await talk.send(whole.sized)

    client = openai.OpenAI(api_key="none", max_retries=0, timeout=10)
    async with peer(script) as here, AsyncExitStack() as exits:
        gateway: Site | None = None
        for cut in range(1, len(raw) + 1, STEP):
            now[0] = cut
            body, well = received(raw[:cut])
            again = cut > raw.index(b"\r\n\r\n") + 3 and asked_whole_at(server, good, len(body), well=well)
            complete = again or len(body) >= complete_from(good, server, well=well)
            if gateway is None:
                gateway = await exits.enter_async_context(over(server, here.url))
            told = client.with_options(base_url=f"{gateway.url}/v1")
            try:
                text = await asyncio.to_thread(heard, told)
            except openai.APIError:
                assert not complete, f"cut at byte {cut} of {len(raw)}"
                raised += 1
            else:
                assert (text, complete) == (REPLY, True), f"cut at byte {cut} of {len(raw)}"
            if bears_grudge(gateway.gateway):
                await exits.aclose()
                gateway = None
    client.close()
    assert raised > 0
