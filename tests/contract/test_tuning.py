"""TCP as systems really do it: answers in several segments under Nagle's algorithm, options in effect."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from gateway.config.call_urls import CallUrls
from gateway.dialects.base import Outgoing
from gateway.scheduling.deadlines import DeadlineLimits, Deadlines
from gateway.server import running
from gateway.simulator import Options, Simulator
from gateway.upstream import socket_options
from gateway.upstream.client import Client
from gateway.upstream.transport import make_transport
from tests.support.peer import Script, Talk, peer
from tests.support.stack import configured, wait_until
from tests.support.visitor import chat

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the option is Linux's")
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
SEGMENTS = {
    "whole": (OK + b"Content-Length: 5\r\n\r\n", b"hello"),
    "three": (OK, b"Content-Length: 5\r\n\r\n", b"hello"),
    "stream": (OK + b"Transfer-Encoding: chunked\r\n\r\n", *[b"5\r\nevent\r\n"] * 4, b"0\r\n\r\n"),
}
ASK = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
)
DELAYED = 0.040
"""Seconds for which Linux, left to itself, keeps an acknowledgement back."""


def slicing(segments: tuple[bytes, ...]) -> Script:
    """A server's script: each segment a write of its own, with Nagle's algorithm in force."""

    async def script(talk: Talk) -> None:
        sock: socket.socket = talk.writer.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        while await talk.wait_request():
            for segment in segments:
                talk.writer.write(segment)

    return script


@asynccontextmanager
async def client_of(url: str) -> AsyncIterator[Client]:
    transport = make_transport(slots=1, ca_file=None, cert_file=None, key_file=None)
    client = Client(CallUrls.bare(url), transport, api_key=None, clock=time.monotonic)
    try:
        yield client
    finally:
        await client.aclose()


async def took(client: Client, *, stream: bool) -> float:
    """How long a request took, in seconds."""
    began = time.monotonic()
    outgoing = Outgoing("/", b"{}", stream, 1)
    deadlines = Deadlines(DeadlineLimits(5, 5, 5, 10), began, streams=stream)
    if stream:
        async with aclosing(client.exchange(outgoing, deadlines)) as exchange:
            await exchange.begin()
            while await exchange.read(begun=True):
                pass
    else:
        await client.whole(outgoing, deadlines)
    return time.monotonic() - began


@LINUX
@pytest.mark.parametrize("kind", SEGMENTS)
async def test_an_answer_in_several_segments_is_not_held_up_by_a_late_acknowledgement(kind: str) -> None:
    async with peer(slicing(SEGMENTS[kind])) as here, client_of(here.url) as client:
        times = [await took(client, stream=kind == "stream") for _ in range(20)]
        assert here.seen == 1, "one connection serves all"
    # A late acknowledgement would be in every one of them; a busy machine is not.
    assert min(times[10:]) < DELAYED / 2


def asked_in_two(address: str, times: int) -> list[float]:
    """Ask over one connection, head and body in a segment each, under Nagle's algorithm; give the seconds."""
    host, port = address.removeprefix("http://").split(":")
    body = chat()
    head = ASK % len(body)
    took = []
    with socket.create_connection((host, int(port)), timeout=20) as sock:
        for _ in range(times):
            began = time.monotonic()
            sock.send(head)
            sock.send(body)
            came = b""
            while not came.endswith(b"}"):
                came += sock.recv(65536)
            assert came.startswith(b"HTTP/1.1 200")
            took.append(time.monotonic() - began)
    return took


@LINUX
async def test_a_client_that_sends_head_and_body_apart_is_not_held_up_either() -> None:
    async with (
        Simulator(Options(dialect="openai", reply="hello")) as simulator,
        running(configured({"gpu-0": (simulator.url, "openai")})) as run,
    ):
        times = await asyncio.to_thread(asked_in_two, run.url, 20)
    assert min(times[10:]) < DELAYED / 2


@LINUX
async def test_the_options_that_find_a_vanished_peer_are_in_effect_on_the_socket_to_a_backend() -> None:
    async with peer(slicing(SEGMENTS["whole"])) as here, client_of(here.url) as client:
        await took(client, stream=False)
        (pool,) = client._transport._pools.values()
        (connection,) = pool._idle
        sock = connection._socket
        assert sock is not None

        def seconds(name: str) -> int:
            return int(sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)))

        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        silent = seconds("TCP_KEEPIDLE") + seconds("TCP_KEEPINTVL") * seconds("TCP_KEEPCNT")
        assert silent == socket_options.DEAD_AFTER
        assert seconds("TCP_USER_TIMEOUT") == socket_options.DEAD_AFTER * 1000


@LINUX
async def test_the_options_that_find_a_vanished_client_are_in_effect_and_go_with_the_write_timeout() -> None:
    settings = configured({"gpu-0": ("http://127.0.0.1:1", "openai")})
    async with running(settings) as run:
        for timeout, wanted in [(None, 61), (5.0, socket_options.DEAD_AFTER), (90.5, 92)]:
            if timeout is not None:
                server = settings.server.model_copy(update={"write_timeout": timeout})
                run.reconfigure(settings.model_copy(update={"server": server}))
            for url, plane in zip((run.url, run.admin_url), run.planes, strict=True):
                host, port = url.removeprefix("http://").split(":")
                _, writer = await asyncio.open_connection(host, int(port))
                await wait_until(lambda plane=plane: plane.admission.connections)
                (connection,) = plane.admission.connections
                sock = connection.transport.get_extra_info("socket")
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) < socket_options.DEAD_AFTER
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == wanted * 1000
                writer.close()
                await wait_until(lambda plane=plane: not plane.admission.connections)


@LINUX
async def test_a_large_body_may_wait_for_a_busy_server_that_does_not_read_it() -> None:
    async with peer(slicing(SEGMENTS["whole"])) as here, client_of(here.url) as client:
        for size, wanted in [(100_000, 0), (100, socket_options.DEAD_AFTER * 1000)]:
            await client.whole(
                Outgoing("/", b"x" * size, False, 1),
                Deadlines(DeadlineLimits(5, 5, 5, 10), time.monotonic(), streams=False),
            )
            (pool,) = client._transport._pools.values()
            (connection,) = pool._idle
            assert connection._socket is not None
            assert connection._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == wanted
