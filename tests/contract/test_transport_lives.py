"""The life of connections on real sockets: opening, reuse, the server's leaving, ours, what is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import ssl
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.upstream.connection import BackendConnection
from gateway.upstream.dialer import Dialer, Origin
from gateway.upstream.pool import PEEK_AFTER, PoolStatistics
from gateway.upstream.transport import (
    Certificates,
    Disconnected,
    GatewayTransport,
    make_transport,
)
from tests.support.certificates import certificates
from tests.support.peer import Peer, Talk, answering, peer

OK = b"HTTP/1.1 200 OK\r\n"
SIZED = OK + b"Content-Length: 5\r\n\r\nhello"
NOTHING = PoolStatistics(open=0, idle=0, waiting=0)
CALLS = int(os.environ.get("GATEWAY_TEST_CALLS", "2000"))
"""How many calls the long run makes; 20000 in the soak."""


def transport_to(here: Peer | None = None, **options: Any) -> GatewayTransport:
    ca = certificates().ca if here is not None and here.secure else None
    return GatewayTransport(**{"most": 4, "context": Certificates(ca, None, None), **options})


async def ask(
    transport: GatewayTransport, url: str, body: bytes = b"{}", **timeout: float | None
) -> tuple[int, bytes]:
    request = httpx.Request("POST", url, content=body, extensions={"timeout": timeout})
    async with asyncio.timeout(20):
        response = await transport.handle_async_request(request)
        try:
            return response.status_code, await response.aread()
        finally:
            await response.aclose()


def descriptors() -> int:
    """How many files this process has open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted, not walked


async def settled() -> None:
    """Let what was aborted be closed."""
    for _ in range(10):
        await asyncio.sleep(0.001)


# --- opening ------------------------------------------------------------------------------------------


async def test_a_closed_port_is_a_connect_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    transport = transport_to()
    with pytest.raises(httpx.ConnectError):
        await ask(transport, f"http://127.0.0.1:{port}", connect=1)
    assert transport.statistics() == NOTHING


async def test_a_full_backlog_is_a_connect_timeout_and_leaves_no_socket() -> None:
    with contextlib.ExitStack() as sockets:
        server = sockets.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(3):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        transport = transport_to()
        before = descriptors()
        with pytest.raises(httpx.ConnectTimeout):
            await ask(transport, f"http://127.0.0.1:{server.getsockname()[1]}", connect=0.1)
        await settled()
        assert transport.statistics() == NOTHING
        assert descriptors() == before


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replace the looking up of names in the dialer."""
    found: list[Exception | list[tuple[int, Any]]] = []

    async def addresses(self: Dialer, seconds: float | None) -> list[tuple[int, Any]]:
        result = found[0]
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(Dialer, "_wait_addresses", addresses)
    return found


async def test_a_name_that_is_unknown_is_a_connect_error(names: Any) -> None:
    names.append(socket.gaierror(socket.EAI_NONAME, "unknown"))
    transport = transport_to()
    with pytest.raises(httpx.ConnectError):
        await ask(transport, "http://nowhere.test", connect=1)
    assert transport.statistics() == NOTHING


async def test_the_next_address_is_tried_when_one_is_dead(names: Any) -> None:
    async with peer(answering(SIZED)) as here:
        names.append([(socket.AF_INET, ("127.0.0.1", 1)), (socket.AF_INET, ("127.0.0.1", here.port))])
        transport = transport_to()
        assert await ask(transport, f"http://gpu.test:{here.port}", connect=1) == (200, b"hello")
        await transport.aclose()


async def test_a_transport_that_was_closed_still_asks_but_keeps_no_connection() -> None:
    async with peer(answering(SIZED)) as here:
        transport = transport_to()
        for _ in range(2):  # as a backend does that is named no more: what is in flight there goes on
            assert await ask(transport, f"http://127.0.0.1:{here.port}") == (200, b"hello")
            await transport.aclose()
            assert transport.statistics() == NOTHING


async def test_sockets_do_not_delay_and_notice_a_vanished_peer() -> None:
    async with peer(answering(SIZED)) as here:
        dialer = Dialer(Origin("http", "127.0.0.1", here.port), ssl.create_default_context)
        connection = await dialer.wait_connection(lambda _: None, 1)
        sock = connection._socket
        assert sock is not None
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert [
            sock.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        ] == [10, 5, 4]
        connection.abort()
        await settled()


async def test_a_unix_socket_is_spoken_to(tmp_path: Path) -> None:
    path = str(tmp_path / "s")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(SIZED)
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(serve, path):
        transport = transport_to(uds=path)
        assert await ask(transport, "http://gpu") == (200, b"hello")
        await transport.aclose()
        await settled()


async def test_ipv6_is_spoken() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(SIZED)
        await reader.read()
        writer.close()

    try:
        server = await asyncio.start_server(serve, "::1", 0)
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with server:
        transport = transport_to()
        url = f"http://[::1]:{server.sockets[0].getsockname()[1]}"
        assert await ask(transport, url) == (200, b"hello")
        await transport.aclose()
        await settled()


# --- TLS ----------------------------------------------------------------------------------------------


async def refused(transport: GatewayTransport, here: Peer) -> list[type]:
    """Ask and give the kinds of the failure and its causes."""
    with pytest.raises(httpx.TransportError) as raised:
        await ask(transport, here.url, connect=1)
    await settled()
    assert transport.statistics() == NOTHING
    causes: list[BaseException] = [raised.value]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    return [type(cause) for cause in causes]


@pytest.mark.parametrize("certificate", ["expired", "elsewhere"])
async def test_a_wrong_certificate_is_refused(certificate: str) -> None:
    async with peer(answering(SIZED), certificates().server_context(certificate)) as here:
        assert ssl.SSLCertVerificationError in await refused(transport_to(here), here)


async def test_a_certificate_of_an_unknown_authority_is_refused() -> None:
    async with peer(answering(SIZED), certificates().server_context()) as here:
        assert ssl.SSLCertVerificationError in await refused(transport_to(), here)


async def test_an_old_protocol_is_refused() -> None:
    context = certificates().server_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = ssl.TLSVersion.TLSv1_1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with peer(answering(SIZED), context) as here:
        assert ssl.SSLError in await refused(transport_to(here), here)


async def test_a_client_certificate_is_shown_when_it_is_demanded() -> None:
    made = certificates()
    cert, key = made.pair("client")
    async with peer(answering(SIZED), made.server_context(demand_client=True)) as here:
        transport = make_transport(slots=1, ca_file=made.ca, cert_file=cert, key_file=key)
        assert await ask(transport, here.url) == (200, b"hello")
        await transport.aclose()
        await refused(transport_to(here), here)  # the server may end without telling why


async def test_only_http_1_1_is_offered() -> None:
    offered: list[str | None] = []
    context = certificates().server_context()
    context.set_alpn_protocols(["h2", "http/1.1"])

    async def script(talk: Talk) -> None:
        offered.append(talk.writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await answering(SIZED)(talk)

    async with peer(script, context) as here:
        transport = transport_to(here)
        assert await ask(transport, here.url) == (200, b"hello")
        await transport.aclose()
    assert offered == ["http/1.1"]


@pytest.mark.parametrize("ends", [True, False], ids=["plain-text", "silent"])
async def test_a_server_without_a_handshake_is_a_tls_failure(ends: bool) -> None:
    async def script(talk: Talk) -> None:
        if ends:
            await talk.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await talk.wait_left()

    async with peer(script) as here:
        transport = GatewayTransport(most=1, context=Certificates(None, None, None))
        before = descriptors()
        with pytest.raises((httpx.ConnectError, httpx.ConnectTimeout)) as raised:
            await ask(transport, here.url.replace("http:", "https:"), connect=0.2)
        assert isinstance(raised.value.__cause__, ssl.SSLError)
        await settled()
        assert transport.statistics() == NOTHING
        assert descriptors() <= before


def test_a_file_that_is_missing_is_known_at_once() -> None:
    with pytest.raises(OSError):  # noqa: PT011 - what ssl raises has no text of its own
        make_transport(slots=1, ca_file="/nowhere/ca.pem", cert_file=None, key_file=None)


# --- reuse --------------------------------------------------------------------------------------------


async def test_a_connection_is_used_again() -> None:
    async with peer(answering(SIZED, SIZED, SIZED)) as here:
        transport = transport_to()
        for _ in range(3):
            assert await ask(transport, here.url) == (200, b"hello")
        assert here.seen == 1
        assert transport.statistics() == PoolStatistics(open=1, idle=1, waiting=0)
        await transport.aclose()


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_connection_seen_closed_is_replaced_without_a_word(how: str) -> None:
    async with peer(answering(SIZED, end=how)) as here:
        transport = transport_to()
        for number in range(5):
            assert await ask(transport, here.url) == (200, b"hello")
            await settled()
            assert here.seen == number + 1
        assert transport.statistics() == NOTHING


async def test_a_connection_the_socket_knows_to_be_closed_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A busy loop has not read the end yet, but the kernel has it."""
    async with peer(answering(SIZED, end="close")) as here:
        transport = transport_to()
        assert await ask(transport, here.url) == (200, b"hello")
        monkeypatch.setattr(BackendConnection, "eof_received", lambda _: True)
        monkeypatch.setattr(BackendConnection, "connection_lost", lambda _, __: None)
        await settled()
        await asyncio.sleep(PEEK_AFTER)
        assert await ask(transport, here.url) == (200, b"hello")
        assert here.seen == 2
        monkeypatch.undo()
        await transport.aclose()


async def test_a_request_is_not_repeated_once_it_was_written() -> None:
    """The server takes the second request and closes without an answer."""
    async with peer(vanishing()) as here:
        transport = transport_to()
        assert await ask(transport, here.url) == (200, b"hello")
        with pytest.raises(Disconnected):
            await ask(transport, here.url)
        assert here.seen == 1
        assert transport.statistics() == NOTHING


def vanishing() -> Any:
    async def script(talk: Talk) -> None:
        await talk.wait_request()
        await talk.send(SIZED)
        await talk.wait_request()

    return script


async def test_a_request_is_repeated_once_on_a_fresh_connection_where_that_is_wanted() -> None:
    async with peer(vanishing()) as here:
        transport = transport_to(retry_reused=True)
        assert await ask(transport, here.url) == (200, b"hello")
        assert await ask(transport, here.url) == (200, b"hello")
        assert here.seen == 2
        await transport.aclose()


@pytest.mark.parametrize("data", [b"", b"HTTP"], ids=["no-byte", "a-few-bytes"])
async def test_a_fresh_connection_or_a_begun_answer_is_never_repeated(data: bytes) -> None:
    async def script(talk: Talk) -> None:
        if talk.number == 0 and data:
            await talk.wait_request()
            await talk.send(SIZED)
        await talk.wait_request()
        await talk.send(data)

    async with peer(script) as here:
        transport = transport_to(retry_reused=True)
        if data:
            assert await ask(transport, here.url) == (200, b"hello")
        with pytest.raises(httpx.TransportError):
            await ask(transport, here.url)
        assert here.seen == 1


async def test_a_server_that_closes_at_once_is_not_asked_for_ever() -> None:
    async def script(talk: Talk) -> None:
        talk.reset()

    async with peer(script) as here:
        transport = transport_to(retry_reused=True)
        with pytest.raises(httpx.TransportError):
            await ask(transport, here.url)
        assert here.seen == 1
        assert transport.statistics() == NOTHING


async def test_requests_beyond_the_connections_wait_for_one_and_then_no_longer() -> None:
    free = asyncio.Event()

    async def script(talk: Talk) -> None:
        while await talk.wait_request():
            await free.wait()
            await talk.send(SIZED)

    async with peer(script) as here:
        transport = transport_to(most=2)
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(ask(transport, here.url, pool=10)) for _ in range(6)]
            await settled()
            assert transport.statistics() == PoolStatistics(open=2, idle=0, waiting=4)
            assert "4 waiting" in repr(transport)
            with pytest.raises(httpx.PoolTimeout):
                await ask(transport, here.url, pool=0.01)
            free.set()
        assert [task.result() for task in asked] == [(200, b"hello")] * 6
        assert here.seen == 2
        await transport.aclose()


async def test_silence_ends_at_the_read_limit_before_the_head_and_in_the_body() -> None:
    for data in (b"", OK + b"Content-Length: 9\r\n\r\nhello"):
        async with peer(answering(data)) as here:
            transport = transport_to()
            with pytest.raises(httpx.ReadTimeout):
                await ask(transport, here.url, read=0.05)
            assert transport.statistics() == NOTHING


# --- many calls ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("retry", [False, True], ids=["plain", "retry-reused"])
async def test_no_request_is_executed_twice_whenever_the_server_closes_idle_connections(retry: bool) -> None:
    """With the flag a request may be repeated, but only one whose connection ended without a byte."""
    dice = random.Random(20_000)  # a fixed seed, so that a failure can be seen again
    executed: Counter[bytes] = Counter()
    unanswered: set[bytes] = set()

    async def script(talk: Talk) -> None:
        while True:
            try:
                async with asyncio.timeout(dice.choice((0.0005, 0.002, 0.01, 5))):
                    request = await talk.wait_request()
            except TimeoutError:
                return  # idle for too long: closed, perhaps just as a request comes in
            if not request:
                return
            name = request.rpartition(b"\r\n")[2]
            executed[name] += 1
            if dice.random() < 0.01:
                unanswered.add(name)
                return
            await talk.send(SIZED)

    outcomes: Counter[type] = Counter()
    answered: set[bytes] = set()

    async def call(numbers: range, transport: GatewayTransport, url: str) -> None:
        for number in numbers:
            name = b"%06d" % number
            try:
                assert await ask(transport, url, name, connect=5, pool=20) == (200, b"hello")
                answered.add(name)
            except httpx.TransportError as error:
                outcomes[type(error)] += 1
                assert name not in executed or name in unanswered
            if dice.random() < 0.1:
                await asyncio.sleep(dice.choice((0, 0.0005, 0.001, 0.002)))

    async with peer(script) as here:
        transport = transport_to(most=8, retry_reused=retry)
        async with asyncio.TaskGroup() as group:
            for worker in range(10):
                group.create_task(call(range(worker, CALLS, 10), transport, here.url))
        await settled()  # one may have been told of the end that is still to be closed
        assert transport.statistics().open == transport.statistics().idle
        await transport.aclose()
        await settled()
        assert here.open == 0
    assert set(outcomes) <= {Disconnected}
    assert answered <= set(executed)
    repeated = {name for name, count in executed.items() if count > 1}
    assert repeated <= (unanswered if retry else set())
    assert len(answered) + sum(outcomes.values()) == CALLS


async def test_whoever_is_cancelled_leaves_no_socket_task_or_counter() -> None:
    dice = random.Random(200)  # a fixed seed, so that a failure can be seen again

    async def script(talk: Talk) -> None:
        while await talk.wait_request():
            await asyncio.sleep(dice.random() * 0.002)
            await talk.send(OK + b"Transfer-Encoding: chunked\r\n\r\n")
            for _ in range(4):
                await asyncio.sleep(dice.random() * 0.002)
                await talk.send(b"5\r\nhello\r\n")
            await talk.send(b"0\r\n\r\n")

    async with peer(script) as here:
        transport = transport_to(most=3)
        before = descriptors()
        tasks_before = len(asyncio.all_tasks())
        cancelled = 0
        for _ in range(40):
            asked = [asyncio.get_running_loop().create_task(ask(transport, here.url)) for _ in range(5)]
            for task in asked:
                await asyncio.sleep(dice.random() * 0.004)
                task.cancel()
            results = await asyncio.gather(*asked, return_exceptions=True)
            cancelled += sum(isinstance(result, asyncio.CancelledError) for result in results)
        assert cancelled > 100
        state = transport.statistics()
        assert (state.open, state.waiting) == (state.idle, 0)
        assert await ask(transport, here.url) == (200, b"hello" * 4)
        await transport.aclose()
        await settled()
        assert transport.statistics() == NOTHING
        assert here.open == 0
        assert len(asyncio.all_tasks()) == tasks_before
        assert descriptors() <= before


@pytest.mark.parametrize("steps", range(12))
async def test_a_handshake_that_is_cancelled_leaves_nothing(steps: int) -> None:
    async with peer(answering(SIZED), certificates().server_context()) as here:
        transport = transport_to(here)
        before = descriptors()
        task = asyncio.get_running_loop().create_task(ask(transport, here.url))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await transport.aclose()
        await settled()
        assert transport.statistics() == NOTHING
        assert descriptors() <= before + 1  # the server may still be closing its end


async def test_a_body_that_is_left_closes_its_connection() -> None:
    async with peer(answering(OK + b"Content-Length: 9\r\n\r\nhello")) as here:
        transport = transport_to()
        response = await transport.handle_async_request(httpx.Request("GET", here.url))
        await response.aclose()
        with pytest.raises(httpx.StreamClosed):
            await anext(response.aiter_raw())
        assert transport.statistics() == NOTHING
        await settled()
        assert here.open == 0


async def test_a_transport_can_be_used_through_httpx_as_it_comes() -> None:
    requests: list[bytes] = []
    async with peer(answering(SIZED, requests=requests)) as here:
        transport = transport_to()
        async with httpx.AsyncClient(transport=transport, trust_env=False) as client:
            assert (await client.post(here.url + "/v1?x=1", json={"a": 1})).text == "hello"
        assert requests[0].startswith(b"POST /v1?x=1 HTTP/1.1\r\n")
        assert transport.statistics() == NOTHING


async def test_another_scheme_is_refused() -> None:
    with pytest.raises(httpx.UnsupportedProtocol):
        await ask(transport_to(), "ftp://h/")


async def test_an_unused_transport_says_so() -> None:
    assert repr(transport_to()) == "<GatewayTransport unused>"
    assert transport_to().statistics() == NOTHING
