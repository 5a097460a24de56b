"""The client's one seam: every failure below becomes one of our errors, and waits have their limits."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import httpx
import pytest

from gateway.config.call_urls import CallUrls
from gateway.dialects.base import Outgoing
from gateway.errors import (
    ConnectFailed,
    FirstTokenTimeout,
    GatewayError,
    StallTimeout,
    TotalTimeout,
    UpstreamBusy,
    UpstreamGarbled,
    UpstreamRejected,
    UpstreamReset,
    UpstreamTLS,
    UpstreamTruncated,
)
from gateway.scheduling.deadlines import DeadlineLimits, Deadlines
from gateway.upstream.client import Client
from gateway.upstream.exchange import MAX_ANSWER, mapped
from gateway.upstream.transport import BrokenOff, Disconnected, Malformed, make_transport
from tests.support.memory import MemoryTransport
from tests.support.peer import Talk, peer

ASKING = Outgoing("/v1/chat/completions", b"{}", streams=False, prompt=1)
STREAMING = Outgoing("/v1/chat/completions", b"{}", streams=True, prompt=1)
OK = b"HTTP/1.1 200 OK\r\n"

Handler = Callable[[httpx.Request], httpx.Response | Awaitable[httpx.Response]]


def client_of(handler: Any, url: str = "http://gpu-0") -> Client:
    return Client(CallUrls.bare(url), MemoryTransport(handler), api_key="k", clock=time.monotonic)


def deadlines(*, streams: bool = False, **limits: float) -> Deadlines:
    values = {"connect": 1.0, "first_token": 10.0, "between_tokens": 10.0, "total": 10.0} | limits
    return Deadlines(DeadlineLimits(**values), time.monotonic(), streams=streams)


async def body(*pieces: bytes, error: Exception | None = None) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
    if error is not None:
        raise error


async def streamed(client: Client, wanted: Deadlines, into: list[bytes] | None = None) -> list[bytes]:
    """Read a stream; its first piece counts as content."""
    pieces = [] if into is None else into
    async with aclosing(client.exchange(STREAMING, wanted)) as exchange:
        await exchange.begin()
        while piece := await exchange.read(begun=bool(pieces)):
            pieces.append(piece)
    return pieces


@pytest.mark.parametrize("mocked", ["bytes", "stream"])
async def test_a_whole_answer_is_read_from_either_kind_of_mock(mocked: str) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.headers["accept-encoding"] == "identity"
        assert request.headers["authorization"] == "Bearer k"
        return httpx.Response(200, content=b"hello" if mocked == "bytes" else body(b"he", b"llo"))

    client = client_of(handler)
    assert await client.whole(ASKING, deadlines()) == b"hello"
    assert b"".join(await streamed(client, deadlines(streams=True))) == b"hello"
    await client.aclose()


@pytest.mark.parametrize(
    ("error", "before", "within"),
    [
        pytest.param(httpx.ConnectError("x"), ConnectFailed, ConnectFailed, id="connect"),
        pytest.param(httpx.ConnectTimeout("x"), ConnectFailed, ConnectFailed, id="connect-timeout"),
        pytest.param(httpx.PoolTimeout("x"), ConnectFailed, ConnectFailed, id="pool-timeout"),
        pytest.param(Disconnected("x"), UpstreamReset, UpstreamTruncated, id="disconnected"),
        pytest.param(BrokenOff("x"), UpstreamReset, UpstreamTruncated, id="broken-off"),
        pytest.param(httpx.ReadError("x"), UpstreamReset, UpstreamTruncated, id="read"),
        pytest.param(httpx.WriteError("x"), UpstreamReset, UpstreamTruncated, id="write"),
        pytest.param(Malformed("x"), UpstreamGarbled, UpstreamGarbled, id="malformed"),
        pytest.param(httpx.DecodingError("x"), UpstreamGarbled, UpstreamGarbled, id="decoding"),
        pytest.param(httpx.StreamConsumed(), UpstreamGarbled, UpstreamGarbled, id="stream"),
    ],
)
def test_each_of_httpx_errors_is_one_of_ours(
    error: httpx.HTTPError | httpx.StreamError, before: type[GatewayError], within: type[GatewayError]
) -> None:
    assert type(mapped(error, UpstreamReset)) is before
    assert type(mapped(error, UpstreamTruncated)) is within


def test_a_failed_handshake_is_named_as_such() -> None:
    error = httpx.ConnectError("x")
    error.__cause__ = ssl.SSLError("expired")
    assert type(mapped(error, UpstreamReset)) is UpstreamTLS


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        pytest.param(400, {}, UpstreamRejected, id="400"),
        pytest.param(503, {"retry-after": "7"}, UpstreamBusy, id="503"),
    ],
)
async def test_another_status_is_a_refusal(
    status: int, headers: dict[str, str], kind: type[GatewayError]
) -> None:
    client = client_of(lambda _: httpx.Response(status, headers=headers, content=body(b"{}")))
    with pytest.raises(kind) as raised:
        await client.whole(ASKING, deadlines())
    assert raised.value.retry_after == (7 if headers else None)


async def test_an_encoding_that_was_not_asked_for_is_refused() -> None:
    client = client_of(lambda _: httpx.Response(200, headers={"content-encoding": "br"}, content=body(b"x")))
    with pytest.raises(UpstreamGarbled):
        await client.whole(ASKING, deadlines())


async def test_an_endless_answer_is_cut_off() -> None:
    piece = b"x" * (1024 * 1024)
    client = client_of(lambda _: httpx.Response(200, content=body(*[piece] * (MAX_ANSWER // len(piece) + 1))))
    with pytest.raises(UpstreamGarbled, match="too large"):
        await client.whole(ASKING, deadlines())


# --- limits, against a real server ------------------------------------------------------------------


async def silent_after(data: bytes) -> Any:
    async def script(talk: Talk) -> None:
        await talk.wait_request()
        await talk.send(data)
        await talk.wait_left()

    return script


@pytest.mark.parametrize(
    ("data", "limits", "kind"),
    [
        pytest.param(b"", {"first_token": 0.05}, FirstTokenTimeout, id="no-head"),
        pytest.param(
            OK + b"Content-Length: 9\r\n\r\n", {"first_token": 0.05}, FirstTokenTimeout, id="no-first-token"
        ),
        pytest.param(
            OK + b"Content-Length: 9\r\n\r\nhello", {"between_tokens": 0.05}, StallTimeout, id="a-pause"
        ),
        pytest.param(OK + b"Content-Length: 9\r\n\r\nhello", {"total": 0.05}, TotalTimeout, id="total"),
    ],
)
async def test_silence_ends_at_its_limit_and_closes_the_connection(
    data: bytes, limits: dict[str, float], kind: type[GatewayError]
) -> None:
    async with peer(await silent_after(data)) as here:
        transport = make_transport(slots=1, ca_file=None, cert_file=None, key_file=None)
        client = Client(CallUrls.bare(here.url), transport, api_key=None, clock=time.monotonic)
        async with asyncio.timeout(30):
            with pytest.raises(kind):
                await streamed(client, deadlines(streams=True, **limits))
        assert transport.statistics().open == 0
        await client.aclose()


async def test_a_server_that_trickles_is_held_to_the_total() -> None:
    async def script(talk: Talk) -> None:
        await talk.wait_request()
        await talk.send(OK + b"Content-Length: 1000\r\n\r\n")
        while not talk.writer.transport.is_closing():
            await talk.send(b"x")
            await asyncio.sleep(0.01)

    async with peer(script) as here:
        transport = make_transport(slots=1, ca_file=None, cert_file=None, key_file=None)
        client = Client(CallUrls.bare(here.url), transport, api_key=None, clock=time.monotonic)
        with pytest.raises(TotalTimeout):
            await streamed(client, deadlines(streams=True, total=0.1, between_tokens=0.09))
        assert transport.statistics().open == 0


async def test_a_cut_stream_gives_its_pieces_and_then_says_so() -> None:
    async def script(talk: Talk) -> None:
        await talk.wait_request()
        await talk.send(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")

    async with peer(script) as here:
        transport = make_transport(slots=1, ca_file=None, cert_file=None, key_file=None)
        client = Client(CallUrls.bare(here.url), transport, api_key=None, clock=time.monotonic)
        pieces: list[bytes] = []
        with pytest.raises(UpstreamTruncated):
            await streamed(client, deadlines(streams=True), pieces)
        assert pieces == [b"hello"]


async def test_a_stream_that_is_left_closes_its_connection() -> None:
    async with peer(await silent_after(OK + b"Content-Length: 9\r\n\r\nhello")) as here:
        transport = make_transport(slots=1, ca_file=None, cert_file=None, key_file=None)
        client = Client(CallUrls.bare(here.url), transport, api_key=None, clock=time.monotonic)
        async with aclosing(client.exchange(STREAMING, deadlines(streams=True))) as exchange:
            await exchange.begin()
            assert await exchange.read(begun=True) == b"hello"
            assert transport.statistics().open == 1
        assert transport.statistics().open == 0


async def test_answers_follow_one_another_on_one_connection() -> None:
    async def script(talk: Talk) -> None:
        while await talk.wait_request():
            await talk.send(OK + b"Content-Length: 5\r\n\r\nhello")

    async with peer(script) as here:
        transport = make_transport(slots=1, ca_file=None, cert_file=None, key_file=None)
        client = Client(CallUrls.bare(here.url), transport, api_key=None, clock=time.monotonic)
        for _ in range(3):
            assert await client.whole(ASKING, deadlines()) == b"hello"
        assert here.seen == 1
        await client.aclose()
