"""The client over mocked connections: what each answer and each of httpx's errors becomes."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

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
    UpstreamError,
    UpstreamGarbled,
    UpstreamMisconfigured,
    UpstreamNotFound,
    UpstreamRejected,
    UpstreamReset,
    UpstreamTLS,
    UpstreamTooLarge,
    UpstreamTruncated,
)
from gateway.scheduling.deadlines import DeadlineLimits, Deadlines
from gateway.upstream import exchange as exchanges
from gateway.upstream import exchange as module
from gateway.upstream.client import Client
from tests.support.memory import MemoryTransport
from tests.support.servers import Reply, answering, failing, held, refusing, streaming

ASKED = Outgoing("/v1/chat/completions", b'{"a":1}', False, 1)


def client(reply: Reply, api_key: str | None = None) -> Client:
    async def refused(_host: str, _probe: bool) -> Exception | None:
        refusal: Exception | None = getattr(reply, "refusal", None)
        return refusal

    calls = CallUrls.bare("http://a:80")
    return Client(calls, MemoryTransport(reply, refused), api_key=api_key, clock=time.monotonic)


def deadlines(
    *, first_token: float = 10, between: float = 10, total: float = 10, streams: bool = True
) -> Deadlines:
    return Deadlines(DeadlineLimits(1, first_token, between, total), time.monotonic(), streams=streams)


async def whole(reply: Reply, limits: Deadlines | None = None) -> bytes:
    one = client(reply)
    try:
        async with asyncio.timeout(10):
            return await one.whole(ASKED, limits or deadlines())
    finally:
        await one.aclose()


async def stream(reply: Reply, limits: Deadlines | None = None, *, begun: bool = False) -> list[bytes]:
    one = client(reply)
    try:
        async with asyncio.timeout(10), aclosing(one.exchange(ASKED, limits or deadlines())) as exchange:
            await exchange.begin()
            chunks: list[bytes] = []
            while chunk := await exchange.read(begun=begun):
                chunks.append(chunk)
            return chunks
    finally:
        await one.aclose()


# --- answers ---------------------------------------------------------------------------------------


async def test_a_whole_answer_is_its_bytes() -> None:
    assert await whole(refusing(200, b"\x00\xffhello")) == b"\x00\xffhello"


async def test_a_stream_is_its_chunks_as_they_come() -> None:
    assert await stream(streaming(b"one", b"two", b"three")) == [b"one", b"two", b"three"]


async def test_an_answer_is_read_up_to_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ANSWER", 100_000)
    assert len(await whole(streaming(b"x" * 60_000, b"x" * 40_000))) == 100_000
    with pytest.raises(UpstreamGarbled, match="too large"):
        await whole(streaming(b"x" * 60_000, b"x" * 40_001))


async def test_an_endless_answer_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ANSWER", 100_000)
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1_000
            yield b"x" * 1_000

    async def reply(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=endless())

    with pytest.raises(UpstreamGarbled):
        await whole(reply)
    assert read < 2_000_000  # and what the sockets hold


# --- statuses --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (201, UpstreamError),
        (204, UpstreamError),
        (301, UpstreamMisconfigured),
        (307, UpstreamMisconfigured),
        (400, UpstreamRejected),
        (401, UpstreamMisconfigured),
        (403, UpstreamMisconfigured),
        (404, UpstreamNotFound),
        (413, UpstreamTooLarge),
        (422, UpstreamRejected),
        (429, UpstreamBusy),
        (500, UpstreamError),
        (503, UpstreamBusy),
        (599, UpstreamError),
    ],
)
async def test_every_other_status_is_an_error_of_ours(status: int, error: type[GatewayError]) -> None:
    for read in (whole, stream):
        with pytest.raises(error) as caught:
            await read(refusing(status, location="http://elsewhere/"))
        assert type(caught.value) is error
        assert "secret" not in caught.value.message


async def test_a_refusal_names_the_field() -> None:
    problem = {"loc": ["body", "messages", 0, "role"], "msg": "bad role", "type": "x"}
    with pytest.raises(UpstreamRejected) as caught:
        await whole(answering({"detail": [problem]}, 422))
    assert caught.value.param == "messages[0].role"


@pytest.mark.parametrize(("header", "seconds"), [("7", 7), ("-5", 0), ("1e9", None), ("soon", None)])
async def test_a_busy_backend_says_for_how_long(header: str, seconds: float | None) -> None:
    with pytest.raises(UpstreamBusy) as caught:
        await whole(refusing(503, b"", retry_after=header))
    assert caught.value.retry_after == seconds


async def test_a_redirect_is_never_followed() -> None:
    asked: list[str] = []

    async def reply(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(302, headers={"location": "http://elsewhere/"})

    with pytest.raises(UpstreamError, match="redirect"):
        await whole(reply)
    assert asked == ["http://a/v1/chat/completions"]


async def test_of_a_long_refusal_only_the_beginning_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchanges, "MAX_REFUSAL", 1000)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 100

    async def reply(request: httpx.Request) -> httpx.Response:
        return httpx.Response(500, content=endless())

    with pytest.raises(UpstreamError):
        await whole(reply)


async def test_a_refusal_whose_body_breaks_off_is_still_one() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b'{"detail'
        raise httpx.ReadError("cut")

    async def reply(request: httpx.Request) -> httpx.Response:
        return httpx.Response(422, content=broken())

    with pytest.raises(UpstreamRejected):
        await whole(reply)


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "deflate", "identity, gzip"])
async def test_an_encoding_nobody_asked_for_is_refused_unread(encoding: str) -> None:
    for read in (whole, stream):
        with pytest.raises(UpstreamGarbled, match="encoding"):
            await read(streaming_with("content-encoding", encoding))


async def test_identity_is_no_encoding() -> None:
    assert await whole(streaming_with("content-encoding", "Identity")) == b"body"


async def _body() -> AsyncIterator[bytes]:
    yield b"body"


def streaming_with(name: str, value: str) -> Reply:
    async def reply(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={name: value}, content=_body())

    return reply


# --- broken connections ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (httpx.ConnectError, ConnectFailed),
        (httpx.ConnectTimeout, ConnectFailed),
        (httpx.ReadError, UpstreamReset),
    ],
)
async def test_what_breaks_before_the_head(
    raised: type[httpx.TransportError], error: type[GatewayError]
) -> None:
    for read in (whole, stream):
        with pytest.raises(error) as caught:
            await read(failing(raised))
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (httpx.PoolTimeout, ConnectFailed),
        (httpx.WriteError, UpstreamReset),
        (httpx.CloseError, UpstreamReset),
        (httpx.RemoteProtocolError, UpstreamReset),
        (httpx.LocalProtocolError, UpstreamGarbled),
        (httpx.UnsupportedProtocol, UpstreamGarbled),
        (httpx.ProxyError, UpstreamGarbled),
    ],
)
def test_every_fault_of_a_probe_is_one_of_our_errors(
    raised: type[httpx.TransportError], error: type[GatewayError]
) -> None:
    assert type(exchanges.mapped(raised("x"), UpstreamReset)) is error


@pytest.mark.parametrize("raised", [httpx.ReadError, httpx.RemoteProtocolError, httpx.CloseError])
async def test_what_breaks_after_the_head(raised: type[httpx.TransportError]) -> None:
    for read in (whole, stream):
        with pytest.raises(UpstreamTruncated):
            await read(streaming(b"half", error=raised("cut")))


def test_a_failed_handshake_is_told_apart_from_a_refused_connection() -> None:
    error = httpx.ConnectError("handshake")
    error.__cause__ = ssl.SSLCertVerificationError(1, "self-signed certificate")
    assert type(exchanges.mapped(error, UpstreamReset)) is UpstreamTLS


async def test_a_refused_connection_says_when_to_come_back() -> None:
    with pytest.raises(ConnectFailed) as caught:
        await whole(failing(httpx.ConnectError))
    assert caught.value.retry_after == 1


# --- time ------------------------------------------------------------------------------------------


async def test_a_silent_server_is_given_up_at_the_first_token_limit() -> None:
    with pytest.raises(FirstTokenTimeout):
        await stream(held(asyncio.Event(), answering({})), deadlines(first_token=0.05))


async def test_a_server_that_sends_only_its_head_is_given_up_too() -> None:
    with pytest.raises(FirstTokenTimeout):
        await stream(streaming(until=asyncio.Event()), deadlines(first_token=0.05))


async def test_a_stream_that_pauses_is_given_up_once_it_has_begun() -> None:
    with pytest.raises(StallTimeout):
        await stream(streaming(b"one", until=asyncio.Event(), at=1), deadlines(between=0.05), begun=True)


async def test_a_stream_that_pauses_before_content_waits_for_the_first_token() -> None:
    with pytest.raises(FirstTokenTimeout):
        await stream(
            streaming(b": ping\n\n", until=asyncio.Event(), at=1), deadlines(first_token=0.05, between=0.01)
        )


async def test_a_whole_answer_may_be_silent_until_the_total_limit() -> None:
    with pytest.raises(TotalTimeout):
        await whole(
            held(asyncio.Event(), answering({})), deadlines(first_token=0.001, total=0.05, streams=False)
        )


async def test_a_drop_at_a_time_does_not_outlast_the_total_limit() -> None:
    async def drops() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0.01)
            yield b"x"

    async def reply(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=drops())

    with pytest.raises(TotalTimeout):
        await stream(reply, deadlines(between=5, total=0.1), begun=True)


# --- closing ---------------------------------------------------------------------------------------


async def test_leaving_a_stream_closes_it() -> None:
    closed = asyncio.Event()

    class Body(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"one"
            await asyncio.Event().wait()

        async def aclose(self) -> None:
            closed.set()

    async def reply(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Body())

    one = client(reply)
    async with aclosing(one.exchange(ASKED, deadlines())) as exchange:
        await exchange.begin()
        assert await exchange.read(begun=True) == b"one"
        assert not closed.is_set()
    async with asyncio.timeout(5):  # the server has to see it
        await closed.wait()
    await one.aclose()


async def test_a_probe_gives_the_status_whatever_it_is() -> None:
    for status in (200, 404, 500):
        one = client(refusing(status))
        async with aclosing(one):
            assert (await one.probe("/health")).status == status


@pytest.mark.parametrize(
    ("raised", "error"), [(httpx.ConnectError, ConnectFailed), (httpx.ReadError, UpstreamReset)]
)
async def test_a_probe_fails_like_a_request(
    raised: type[httpx.TransportError], error: type[GatewayError]
) -> None:
    async with aclosing(client(failing(raised))) as one:
        with pytest.raises(error):
            await one.probe("/health")
