"""The transport against literal bytes, in the clear and over TLS, on both event loops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from gateway.upstream.connection import HIGH_WATER, READ
from gateway.upstream.transport import (
    CLOSE_DELIMITED,
    BrokenOff,
    Certificates,
    Disconnected,
    GatewayTransport,
    Malformed,
)
from tests.support.certificates import certificates
from tests.support.peer import Peer, Script, Talk, answering, peer

OK = b"HTTP/1.1 200 OK\r\n"
FIVE = b"Content-Length: 5\r\n\r\nhello"
TWO = b"Content-Length: 2\r\n\r\nok"
SIZED = OK + FIVE
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

EVENTS = (
    'data: {"model":"chatglm3-6b","choices":[{"index":0,"delta":{"role":"assistant"}}]}\r\n\r\n',
    'data: {"model":"chatglm3-6b","choices":[{"index":0,"delta":{"content":"你好👋"}}]}\r\n\r\n',
    'data: {"model":"chatglm3-6b","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\r\n\r\n',
    "data: [DONE]\r\n\r\n",
)
"""A stream in the form of ChatGLM3's openai_api.py, each event a chunk, as sse-starlette sends it."""
EVENT_BYTES = [event.encode() for event in EVENTS]
STREAM_HEAD = OK + b"content-type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
STREAM = STREAM_HEAD + b"".join(b"%x\r\n%b\r\n" % (len(e), e) for e in EVENT_BYTES) + b"0\r\n\r\n"


@pytest.fixture(params=[False, True], ids=["clear", "tls"])
def secure(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def serving(script: Script, *, secure: bool) -> Any:
    return peer(script, certificates().server_context() if secure else None)


def transport_to(here: Peer, **options: Any) -> GatewayTransport:
    ca = certificates().ca if here.secure else None
    return GatewayTransport(**{"most": 4, "context": Certificates(ca, None, None), **options})


async def ask(
    transport: GatewayTransport, here: Peer, method: str = "POST", body: bytes = b"{}"
) -> tuple[int, bytes]:
    """One exchange: status and body. Raises what the transport raises, after closing the response."""
    request = httpx.Request(method, here.url + "/", content=body)
    async with asyncio.timeout(10):
        response = await transport.handle_async_request(request)
        try:
            return response.status_code, b"".join([piece async for piece in response.aiter_raw()])
        finally:
            await response.aclose()


def raw(data: bytes, end: str = "keep", size: int | None = None) -> Script:
    return answering(data, end=end, size=size)


# --- answers that are taken ---------------------------------------------------------------------------


def good(
    name: str,
    data: bytes,
    *,
    body: bytes = b"hello",
    status: int = 200,
    end: str = "keep",
    kept: bool | None = True,
) -> Any:
    """A row: the bytes, what the server does then, what must come of it, and if the connection is kept."""
    return pytest.param(data, end, status, body, kept, id=name)


GOOD = [
    good("sized", SIZED),
    good("sized-then-closed", SIZED, end="close", kept=None),
    good("sized-empty", OK + b"Content-Length: 0\r\n\r\n", body=b""),
    good("no-space-after-colon", OK + b"content-length:5\r\n\r\nhello"),
    good("spaces-and-capitals", OK + b"CONTENT-LENGTH:   5  \r\n\r\nhello"),
    good("empty-reason", b"HTTP/1.1 200 \r\n" + TWO, body=b"ok"),
    good("no-reason", b"HTTP/1.1 200\r\n" + TWO, body=b"ok"),
    good("odd-reason", b"HTTP/1.1 418 \xe8\x8c\xb6\r\n" + TWO, body=b"ok", status=418),
    good("chunked", CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"),
    good("chunked-empty", CHUNKED + b"0\r\n\r\n", body=b""),
    good("two-chunks", CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
    good("zeros-before-size", CHUNKED + b"005\r\nhello\r\n000\r\n\r\n"),
    good("capital-size", CHUNKED + b"A\r\nhello12345\r\n0\r\n\r\n", body=b"hello12345"),
    good("chunk-extension", CHUNKED + b"5;a=b\r\nhello\r\n0\r\n\r\n"),
    good("trailer-dropped", CHUNKED + b"5\r\nhello\r\n0\r\nX-T: v\r\n\r\n"),
    good("until-close", OK + b"\r\nhello", end="close", kept=False),
    good("until-close-empty", OK + b"\r\n", body=b"", end="close", kept=False),
    good("until-close-1.0", b"HTTP/1.0 200 OK\r\n\r\nhello", end="close", kept=False),
    good("sized-1.0", b"HTTP/1.0 200 OK\r\n" + FIVE, kept=False),
    good("kept-1.0", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + FIVE),
    good("told-to-close", OK + b"Connection: close\r\n" + FIVE, kept=False),
    good("204", b"HTTP/1.1 204 No Content\r\n\r\n", body=b"", status=204),
    good("204-sized", b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", body=b"", status=204),
    good("304-sized", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 50\r\n\r\n", body=b"", status=304),
    good(
        "redirect-not-followed",
        b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
        body=b"",
        status=302,
    ),
    good("500", b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nno", body=b"no", status=500),
    good("100-continue", CONTINUE + SIZED),
    good("100-continue-three-times", CONTINUE * 3 + SIZED),
    good("100-continue-ten-times", CONTINUE * 10 + SIZED),
    good("103", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + SIZED),
    good(
        "not-decoded",
        OK + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\0\0",
        body=b"\x1f\x8b\0\0",
    ),
    good("cookie", OK + b"Set-Cookie: a=b\r\n" + TWO, body=b"ok"),
    good("bytes-above-ascii", OK + b"X-Name: \xe4\xbd\xa0\r\n" + TWO, body=b"ok"),
    good("empty-value", OK + b"X-Empty:\r\n" + TWO, body=b"ok"),
    good("100-headers", OK + b"X: 1\r\n" * 99 + TWO, body=b"ok"),
    good("60-kB-header", OK + b"X: " + b"v" * 60_000 + b"\r\n" + TWO, body=b"ok"),
    good("a-byte-after-the-end", SIZED + b"X", kept=False),
    good("a-second-answer", SIZED + SIZED, kept=False),
    good("a-byte-after-the-last-chunk", CHUNKED + b"5\r\nhello\r\n0\r\n\r\nX", kept=False),
    good("204-with-a-body", b"HTTP/1.1 204 No Content\r\n\r\nhello", body=b"", status=204, kept=False),
    good("event-stream", STREAM, body=b"".join(EVENT_BYTES)),
]
BAD = [
    pytest.param(
        OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        id="length-then-chunked",
    ),
    pytest.param(
        OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        id="chunked-then-length",
    ),
    pytest.param(OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", id="two-lengths"),
    pytest.param(OK + b"Content-Length: 5\r\n" + FIVE, id="the-same-length-twice"),
    pytest.param(OK + b"Content-Length: 5, 6\r\n\r\nhello", id="two-lengths-in-one"),
    pytest.param(OK + b"Content-Length: -5\r\n\r\nhello", id="negative-length"),
    pytest.param(OK + b"Content-Length: 0x5\r\n\r\nhello", id="hexadecimal-length"),
    pytest.param(OK + b"Content-Length: \r\n\r\nhello", id="empty-length"),
    pytest.param(OK + b"Content-Length: 99999999999999999999999\r\n\r\nhello", id="endless-length"),
    pytest.param(OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", id="gzip-chunked"),
    pytest.param(OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", id="chunked-gzip"),
    pytest.param(OK + b"Transfer-Encoding: identity\r\n\r\nhello", id="identity-coding"),
    pytest.param(
        OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="chunked-twice"
    ),
    pytest.param(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="chunked-1.0"),
    pytest.param(CHUNKED + b"zz\r\nhello\r\n0\r\n\r\n", id="chunk-size-not-a-number"),
    pytest.param(CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n", id="chunk-size-negative"),
    pytest.param(CHUNKED + b"fffffffffffffffff\r\nhello", id="chunk-size-endless"),
    pytest.param(CHUNKED + b"\r\nhello", id="chunk-size-missing"),
    pytest.param(CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n", id="space-after-chunk-size"),
    pytest.param(CHUNKED + b"5\nhello\n0\n\n", id="chunks-with-bare-LF"),
    pytest.param(CHUNKED + b"5\r\nhelloworld\r\n0\r\n\r\n", id="chunk-longer-than-its-size"),
    pytest.param(CHUNKED + b"5\r\nhello\r\n0\r\n" + b"X: v\r\n" * 30_000, id="endless-trailers"),
    pytest.param(CHUNKED + b"5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n", id="length-in-a-trailer"),
    pytest.param(b"<html>busy</html>\r\n\r\n", id="no-status-line"),
    pytest.param(b"\r\n\r\n" + SIZED, id="empty-lines-first"),
    pytest.param(b"HTTP/2.0 200 OK\r\n" + TWO, id="version-2.0"),
    pytest.param(b"HTTP/0.9 200 OK\r\n" + TWO, id="version-0.9"),
    pytest.param(b"HTTP/1.2 200 OK\r\n" + TWO, id="version-1.2"),
    pytest.param(b"RTSP/1.0 200 OK\r\n" + TWO, id="another-protocol"),
    pytest.param(b"http/1.1 200 OK\r\n" + TWO, id="protocol-in-lower-case"),
    pytest.param(b"HTTP/1.1 20 OK\r\n" + TWO, id="status-of-two-digits"),
    pytest.param(b"HTTP/1.1 2000 OK\r\n" + TWO, id="status-of-four-digits"),
    pytest.param(b"HTTP/1.1 099 OK\r\n" + TWO, id="status-099"),
    pytest.param(b"HTTP/1.1 999 OK\r\n" + TWO, id="status-999"),
    pytest.param(b"HTTP/1.1 abc OK\r\n" + TWO, id="status-in-letters"),
    pytest.param(b"HTTP/1.1  200 OK\r\n" + TWO, id="two-spaces-before-status"),
    pytest.param(OK + b"X: a\rb\r\n" + TWO, id="CR-in-a-value"),
    pytest.param(OK + b"X: a\0b\r\n" + TWO, id="NUL-in-a-value"),
    pytest.param(OK + b"X: a\r\n b\r\n" + TWO, id="folded-line"),
    pytest.param(OK + b"X : a\r\n" + TWO, id="space-before-colon"),
    pytest.param(OK + b": a\r\n" + TWO, id="header-without-name"),
    pytest.param(OK + b"nocolon\r\n" + TWO, id="header-without-colon"),
    pytest.param(OK + b"X: 1\n\nok", id="head-with-bare-LF"),
    pytest.param(OK + b"X: 1\r\n" * 101 + TWO, id="too-many-headers"),
    pytest.param(OK + b"X: " + b"v" * 200_000 + b"\r\n" + TWO, id="200-kB-header"),
    pytest.param(OK + b"X: " + b"v" * 1_000_000, id="endless-header-line"),
    pytest.param(OK + b"v" * 100_000, id="endless-header-name"),
    pytest.param(b"HTTP/1.1 200 " + b"v" * 100_000 + b"\r\n" + TWO, id="endless-reason"),
    pytest.param(CONTINUE * 11 + SIZED, id="100-continue-too-often"),
    pytest.param(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n", id="upgrade"
    ),
]
CUT = [
    pytest.param(b"", "close", Disconnected, id="closed-without-a-byte"),
    pytest.param(b"", "reset", Disconnected, id="reset-without-a-byte"),
    pytest.param(b"H", "close", BrokenOff, id="closed-after-a-byte"),
    pytest.param(OK + b"Content-Le", "close", BrokenOff, id="closed-in-the-head"),
    pytest.param(CONTINUE, "close", BrokenOff, id="closed-after-an-interim-answer"),
    pytest.param(OK + b"Content-Length: 6\r\n\r\nhello", "close", BrokenOff, id="closed-before-the-length"),
    pytest.param(OK + b"Content-Length: 6\r\n\r\nhello", "reset", BrokenOff, id="reset-before-the-length"),
    pytest.param(CHUNKED + b"5\r\nhel", "close", BrokenOff, id="closed-in-a-chunk"),
    pytest.param(CHUNKED + b"5\r\nhello\r\n", "close", BrokenOff, id="closed-before-the-last-chunk"),
    pytest.param(CHUNKED + b"5\r\nhello\r\n0\r\n", "close", BrokenOff, id="closed-in-the-trailers"),
]


@pytest.mark.parametrize("size", [None, 1], ids=["whole", "bytewise"])
@pytest.mark.parametrize(("data", "end", "status", "body", "kept"), GOOD)
async def test_an_answer_is_read_and_its_connection_kept_where_its_end_is_sure(
    data: bytes, end: str, status: int, body: bytes, kept: bool | None, size: int | None, secure: bool
) -> None:
    if size == 1 and len(data) > 2000:
        size = 1000
    async with serving(raw(data, end, size), secure=secure) as here:
        transport = transport_to(here)
        assert await ask(transport, here) == (status, body)
        await left_behind(transport, kept)
        await transport.aclose()


async def left_behind(transport: GatewayTransport, kept: bool | None) -> None:
    """Check the pool: one idle connection, none, or (None) whatever the race gave, but none in use."""
    for _ in range(20):  # bytes after an answer may come in a read of their own
        await asyncio.sleep(0.001)
    state = transport.statistics()
    assert state.open == state.idle
    assert kept is None or state.idle == int(kept)


@pytest.mark.parametrize("size", [None, 1], ids=["whole", "bytewise"])
@pytest.mark.parametrize("data", BAD)
async def test_an_answer_that_is_no_plain_http_is_refused(
    data: bytes, size: int | None, secure: bool
) -> None:
    if size == 1 and len(data) > 2000:
        size = 1000
    async with serving(raw(data, "keep", size), secure=secure) as here:
        transport = transport_to(here)
        with pytest.raises(Malformed):
            await ask(transport, here)
        assert transport.statistics().open == 0


@pytest.mark.parametrize(("data", "end", "error"), CUT)
async def test_an_answer_that_breaks_off_never_looks_complete(
    data: bytes, end: str, error: type[Exception], secure: bool
) -> None:
    async with serving(raw(data, end), secure=secure) as here:
        transport = transport_to(here)
        with pytest.raises(error):
            await ask(transport, here)
        assert transport.statistics().open == 0


async def test_a_stream_cut_at_any_byte_gives_what_came_and_then_an_error(secure: bool) -> None:
    cuts = iter(range(len(STREAM)))

    async def script(talk: Talk) -> None:
        await talk.wait_request()
        await talk.send(STREAM[: next(cuts)])

    whole = b"".join(EVENT_BYTES)
    step = 7 if secure else 1  # each cut costs a handshake
    cuts = iter(range(0, len(STREAM), step))
    async with serving(script, secure=secure) as here:
        transport = transport_to(here)
        for cut in range(0, len(STREAM), step):
            got = bytearray()
            with pytest.raises(BrokenOff if cut else Disconnected):
                await collect(transport, here, got)
            assert whole.startswith(got)
            assert len(got) >= sum(
                len(event) for number, event in enumerate(EVENT_BYTES) if cut >= end_of_event(number)
            )
        assert transport.statistics().open == 0


def end_of_event(number: int) -> int:
    """Where in STREAM the data of an event ends."""
    return STREAM.index(EVENT_BYTES[number]) + len(EVENT_BYTES[number])


async def collect(transport: GatewayTransport, here: Peer, into: bytearray) -> None:
    async with asyncio.timeout(10):
        response = await transport.handle_async_request(httpx.Request("POST", here.url, content=b"{}"))
        async for piece in response.aiter_raw():
            into += piece


async def test_each_event_is_handed_on_when_it_comes(secure: bool) -> None:
    seen = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.wait_request()
        await talk.send(STREAM_HEAD)
        for event in EVENT_BYTES:
            await talk.send(b"%x\r\n%b\r\n" % (len(event), event))
            await seen.wait()
            seen.clear()
        await talk.send(b"0\r\n\r\n")
        await talk.wait_left()

    async with serving(script, secure=secure) as here:
        transport = transport_to(here)
        response = await transport.handle_async_request(httpx.Request("POST", here.url, content=b"{}"))
        pieces = []
        async for piece in response.aiter_raw():
            pieces.append(piece)
            seen.set()
        assert pieces == EVENT_BYTES
        await transport.aclose()


@pytest.mark.parametrize(
    ("data", "end", "delimited"),
    [
        pytest.param(OK + b"\r\nhello", "close", True, id="until-close"),
        pytest.param(SIZED, "keep", False, id="sized"),
        pytest.param(STREAM, "keep", False, id="chunked"),
    ],
)
async def test_a_body_that_ends_with_the_connection_is_reported_as_such(
    data: bytes, end: str, delimited: bool
) -> None:
    async with peer(raw(data, end)) as here:
        transport = transport_to(here)
        response = await transport.handle_async_request(httpx.Request("GET", here.url))
        assert response.extensions[CLOSE_DELIMITED] is delimited
        await response.aclose()
        await transport.aclose()


async def test_a_reset_in_a_body_that_ends_with_the_connection_is_an_error() -> None:
    async with peer(raw(OK + b"\r\nhello", "reset")) as here:
        transport = transport_to(here)
        with pytest.raises(BrokenOff):
            await ask(transport, here)


async def test_the_answer_to_head_has_no_body_whatever_it_says(secure: bool) -> None:
    async with serving(raw(OK + b"Content-Length: 5\r\n\r\n"), secure=secure) as here:
        transport = transport_to(here)
        assert await ask(transport, here, "HEAD", b"") == (200, b"")
        await left_behind(transport, kept=False)


async def test_what_is_asked_arrives_as_it_was_asked(secure: bool) -> None:
    requests: list[bytes] = []
    async with serving(answering(SIZED, SIZED, requests=requests), secure=secure) as here:
        transport = transport_to(here)
        for body in (b'{"prompt":"x"}', b"y" * 300_000):
            assert await ask(transport, here, "POST", body) == (200, b"hello")
        await transport.aclose()
        assert here.seen == 1
    first, second = requests
    assert first == b"POST / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: 14\r\n\r\n" % here.port + (
        b'{"prompt":"x"}'
    )
    assert second.endswith(b"\r\nContent-Length: 300000\r\n\r\n" + b"y" * 300_000)


async def test_an_early_answer_is_delivered_though_the_request_is_still_being_sent(secure: bool) -> None:
    async def script(talk: Talk) -> None:
        await talk.reader.readuntil(b"\r\n\r\n")
        await talk.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        await asyncio.sleep(0.05)

    async with serving(script, secure=secure) as here:
        transport = transport_to(here)
        assert await ask(transport, here, "POST", b"x" * 5_000_000) == (413, b"no")
        assert transport.statistics().open == 0


async def streamed(count: int, until: Callable[[], bool] = lambda: False) -> AsyncIterator[bytes]:
    for _ in range(count):
        if until():
            return
        yield b"x" * 1000
        await asyncio.sleep(0)


async def test_a_body_that_is_streamed_is_sent_in_chunks() -> None:
    got = bytearray()

    async def script(talk: Talk) -> None:
        await talk.reader.readuntil(b"\r\n\r\n")
        got.extend(await talk.reader.readuntil(b"0\r\n\r\n"))
        await talk.send(SIZED)
        await talk.wait_left()

    async with peer(script) as here:
        transport = transport_to(here)
        request = httpx.Request("POST", here.url, content=streamed(3))
        response = await transport.handle_async_request(request)
        assert await response.aread() == b"hello"
        assert bytes(got) == b"3e8\r\n%b\r\n" % (b"x" * 1000) * 3 + b"0\r\n\r\n"
        assert transport.statistics().idle == 1
        await transport.aclose()


async def test_an_early_answer_ends_a_streamed_request_and_the_connection() -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            yield b"x" * 10_000
            sent += 1
            await asyncio.sleep(0)

    async def script(talk: Talk) -> None:
        await talk.reader.readuntil(b"\r\n\r\n")
        await talk.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        await talk.reader.readexactly(1)  # and reads no more
        await asyncio.sleep(0.05)

    async with peer(script) as here:
        transport = transport_to(here)
        async with asyncio.timeout(10):
            response = await transport.handle_async_request(
                httpx.Request("POST", here.url, content=endless())
            )
            assert (response.status_code, await response.aread()) == (413, b"no")
        assert transport.statistics().open == 0


async def test_a_server_that_reads_slowly_holds_the_sender_back() -> None:
    sent = 0
    reading = asyncio.Event()

    async def large() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            yield b"x" * 50_000
            sent += 1

    async def script(talk: Talk) -> None:
        await reading.wait()
        await talk.reader.readuntil(b"0\r\n\r\n")
        await talk.send(SIZED)
        await talk.wait_left()

    async with peer(script) as here:
        transport = transport_to(here)
        request = httpx.Request("POST", here.url, content=large())
        async with asyncio.TaskGroup() as group:
            call = group.create_task(transport.handle_async_request(request))
            before = -1
            while sent != before:
                before = sent
                await asyncio.sleep(0.1)
            assert 0 < sent < 500  # what sockets hold, not what the sender has
            call.cancel()
        await transport.aclose()
        assert transport.statistics().open == 0


async def test_a_reader_who_is_slow_stops_the_server_and_memory_stays_bounded(secure: bool) -> None:
    sent = 0
    piece = b"x" * 65_536
    count = 1500

    async def script(talk: Talk) -> None:
        nonlocal sent
        await talk.wait_request()
        await talk.send(OK + b"Content-Length: %d\r\n\r\n" % (len(piece) * count))
        for _ in range(count):
            await talk.send(piece)
            sent += 1
        await talk.wait_left()

    async with serving(script, secure=secure) as here:
        transport = transport_to(here)
        response = await transport.handle_async_request(httpx.Request("GET", here.url))
        pieces = response.aiter_raw()
        first = await anext(pieces)
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.1)
        assert sent < count / 2  # the rest was never sent: socket buffers are full
        total, largest = len(first), 0
        async for got in pieces:
            total += len(got)
            largest = max(largest, len(got))
        assert total == len(piece) * count
        assert largest <= HIGH_WATER + READ  # the mark, and one read that goes beyond it
        await transport.aclose()
