"""What the gateway puts on the wire to a backend, and what it makes of the bytes that come back."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

import pytest

from gateway.config.call_urls import CallUrls
from gateway.dialects.base import Outgoing
from gateway.errors import (
    GatewayError,
    StallTimeout,
    UpstreamError,
    UpstreamGarbled,
    UpstreamMisconfigured,
    UpstreamReset,
    UpstreamTruncated,
)
from gateway.scheduling.deadlines import DeadlineLimits, Deadlines
from gateway.upstream.client import Client
from gateway.upstream.transport import make_transport
from tests.support.wires import End, wire

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
BODY = '{"prompt":"你好"}'.encode()


def client(url: str, api_key: str | None = None) -> Client:
    transport = make_transport(slots=2, ca_file=None, cert_file=None, key_file=None)
    return Client(CallUrls.bare(url), transport, api_key=api_key, clock=time.monotonic)


def deadlines(between: float = 5) -> Deadlines:
    return Deadlines(DeadlineLimits(5, 5, between, 10), time.monotonic(), streams=True)


async def whole(url: str, path: str = "/v1/chat/completions", api_key: str | None = None) -> bytes:
    one = client(url, api_key)
    try:
        async with asyncio.timeout(20):
            return await one.whole(Outgoing(path, BODY, False, 1), deadlines())
    finally:
        await one.aclose()


async def stream(url: str, between: float = 5) -> bytes:
    one = client(url)
    try:
        asked = Outgoing("/stream", BODY, True, 1)
        async with asyncio.timeout(20), aclosing(one.exchange(asked, deadlines(between))) as exchange:
            await exchange.begin()
            got = b""
            while chunk := await exchange.read(begun=True):
                got += chunk
            return got
    finally:
        await one.aclose()


# --- what we send ----------------------------------------------------------------------------------


async def test_a_request_is_exactly_these_bytes() -> None:
    async with wire(OK) as server:
        await whole(server.url, "/")
    head = (
        "POST / HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{server.port}\r\n"
        "Accept: */*\r\n"  # httpx's own, as the next
        "Connection: keep-alive\r\n"
        "accept-encoding: identity\r\n"
        "user-agent: chatglm-gateway\r\n"
        "content-type: application/json\r\n"
        f"content-length: {len(BODY)}\r\n\r\n"
    )
    assert server.received == [head.encode() + BODY]


async def test_a_configured_key_is_sent_as_a_bearer() -> None:
    async with wire(OK) as server:
        await whole(server.url, api_key="sk-backend")
    lines = server.received[0].split(b"\r\n")
    assert lines.count(b"authorization: Bearer sk-backend") == 1


async def test_a_path_in_the_backends_url_stands_before_ours() -> None:
    async with wire(OK) as server:
        await whole(f"{server.url}/glm/api")
    assert server.received[0].startswith(b"POST /glm/api/v1/chat/completions HTTP/1.1\r\n")


async def test_a_probe_is_a_plain_get() -> None:
    async with wire(OK) as server:
        one = client(server.url)
        assert await one.probe("/health") == (200, 0.0, "")
        await one.aclose()
    (request,) = server.received
    assert request.startswith(b"GET /health HTTP/1.1\r\n")
    assert b"content-length" not in request.lower()


async def test_cookies_are_not_kept() -> None:
    async with wire(OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: a=b\r\n\r\n")) as server:
        one = client(server.url)
        for _ in range(2):
            await one.whole(Outgoing("/", BODY, False, 1), deadlines(), again=lambda: True)
        await one.aclose()
    assert all(b"cookie" not in request.lower() for request in server.received)


# --- what we read ----------------------------------------------------------------------------------


def head(*lines: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode()


GOOD = [
    pytest.param(OK, b"hi", id="length"),
    pytest.param(
        head("Transfer-Encoding: chunked") + b"1\r\nh\r\n1;x=y\r\ni\r\n0\r\n\r\n", b"hi", id="chunks"
    ),
    pytest.param(head() + b"hi", b"hi", id="until-close"),
    pytest.param(head("Content-Length: 0"), b"", id="empty"),
    pytest.param(head("Content-Length: 2") + b"hi and more", b"hi", id="more-than-the-length"),
    pytest.param(head(status="100 Continue") * 3 + OK, b"hi", id="three-continues"),
    pytest.param(head("Content-Length: 2", "X: " + "x" * 30_000) + b"hi", b"hi", id="long-header"),
    pytest.param(head("Content-Length: 2", "Content-Encoding: identity") + b"hi", b"hi", id="identity"),
]


@pytest.mark.parametrize(("reply", "body"), GOOD)
async def test_a_good_answer_is_read_in_any_framing(reply: bytes, body: bytes) -> None:
    async with wire(reply) as server:
        assert await whole(server.url) == body
        assert await stream(server.url) == body


@pytest.mark.parametrize(("reply", "body"), GOOD)
async def test_a_good_answer_is_read_however_it_is_sliced(reply: bytes, body: bytes) -> None:
    if len(reply) > 1000:
        reply = reply.replace(b"x" * 30_000, b"x")
    async with wire(*[bytes([byte]) for byte in reply]) as server:
        assert await whole(server.url) == body


@pytest.mark.parametrize(
    ("reply", "end", "error"),
    [
        pytest.param(b"", "close", UpstreamReset, id="close-without-a-byte"),
        pytest.param(b"", "reset", UpstreamReset, id="reset-without-a-byte"),
        pytest.param(b"HTTP/1.1 200 OK\r\nConte", "close", UpstreamReset, id="close-in-the-head"),
        pytest.param(b"HTTP/1.1 200 OK\r\nConte", "reset", UpstreamReset, id="reset-in-the-head"),
        pytest.param(b"hello there\r\n\r\n", "close", UpstreamGarbled, id="no-http"),
        pytest.param(head(status="abc OK"), "close", UpstreamGarbled, id="bad-status"),
        pytest.param(
            head("Content-Length: 2", "X: a\rb") + b"hi", "close", UpstreamGarbled, id="cr-in-a-header"
        ),
        pytest.param(head("X: " + "x" * 200_000), "close", UpstreamGarbled, id="huge-header"),
        pytest.param(
            head("Content-Length: 2", "Content-Length: 3") + b"hi", "close", UpstreamGarbled, id="cl-cl"
        ),
        pytest.param(head("Content-Length: -2") + b"hi", "close", UpstreamGarbled, id="negative-length"),
        pytest.param(
            head("Content-Length: 2", "Transfer-Encoding: chunked") + b"2\r\nhi\r\n0\r\n\r\n",
            "close",
            UpstreamGarbled,
            id="cl-te",
        ),
        pytest.param(head("Content-Length: 5") + b"hi", "close", UpstreamTruncated, id="short-of-its-length"),
        pytest.param(head("Content-Length: 5") + b"hi", "reset", UpstreamTruncated, id="reset-in-the-body"),
        pytest.param(head("Content-Length: 5"), "reset", UpstreamTruncated, id="reset-after-the-head"),
        pytest.param(head() + b"hi", "reset", UpstreamTruncated, id="reset-before-the-close"),
        pytest.param(
            head("Transfer-Encoding: chunked") + b"2\r\nhi\r\n",
            "close",
            UpstreamTruncated,
            id="no-last-chunk",
        ),
        pytest.param(
            head("Transfer-Encoding: chunked") + b"5\r\nhi", "close", UpstreamTruncated, id="inside-a-chunk"
        ),
        pytest.param(
            head("Transfer-Encoding: chunked") + b"zz\r\nhi\r\n", "close", UpstreamGarbled, id="bad-chunk"
        ),
        pytest.param(
            head("Content-Length: 2", "Content-Encoding: gzip") + b"hi", "close", UpstreamGarbled, id="gzip"
        ),
        pytest.param(
            head("Content-Length: 0", "Location: http://127.0.0.1:1/", status="307 Elsewhere"),
            "close",
            UpstreamMisconfigured,
            id="redirect",
        ),
        pytest.param(head(status="204 No Content"), "close", UpstreamError, id="no-content"),
        pytest.param(head("Content-Length: 9", status="500 No") + b"x", "reset", UpstreamError, id="cut-500"),
    ],
)
async def test_a_bad_answer_is_an_error_of_ours_and_never_a_piece_of_text(
    reply: bytes, end: End, error: type[GatewayError]
) -> None:
    async with wire(reply, end=end) as server:
        for read in (whole, stream):
            with pytest.raises(error) as caught:
                await read(server.url)
            assert type(caught.value) is error


async def test_a_stalled_stream_is_closed_on_our_side() -> None:
    async with wire(head("Transfer-Encoding: chunked") + b"2\r\nhi\r\n", end="hang") as server:
        with pytest.raises(StallTimeout):
            await stream(server.url, between=0.05)
        async with asyncio.timeout(10):
            await server.closed.wait()


async def test_a_stream_left_early_is_closed_on_our_side() -> None:
    async with wire(head("Transfer-Encoding: chunked") + b"2\r\nhi\r\n", end="hang") as server:
        one = client(server.url)
        async with aclosing(one.exchange(Outgoing("/", BODY, True, 1), deadlines())) as exchange:
            await exchange.begin()
            assert await exchange.read(begun=True) == b"hi"
        async with asyncio.timeout(10):
            await server.closed.wait()
        await one.aclose()
