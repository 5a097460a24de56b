"""What the system holds for a client that reads slowly is bounded on both sides; the backend is held back."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from typing import Any

import pytest

from gateway.server import running
from gateway.upstream import dialer
from gateway.upstream.connection import HIGH_WATER
from tests.support.peer import Talk, peer
from tests.support.stack import configured, wait_until
from tests.support.tapes import chunks
from tests.support.visitor import chat

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="other systems count otherwise")
SMALL = 16_384
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
ASK = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
)
EVENT = (
    b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{"content":"' + b"word " * 400 + b'"},"finish_reason":null}]}\n\n'
)
ROLE = EVENT.replace(b'{"content":"' + b"word " * 400, b'{"role":"assistant","content":"')


def option(sock: Any, name: int) -> int:
    """A buffer in effect; Linux gives twice what was asked for."""
    return int(sock.getsockopt(socket.SOL_SOCKET, name)) // 2


@LINUX
async def test_a_client_that_does_not_read_costs_no_more_than_the_settings_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken, opened = [0], []
    wait_open = dialer._wait_open

    async def noting(*routing: Any) -> socket.socket:
        opened.append(await wait_open(*routing))
        return opened[-1]

    monkeypatch.setattr(dialer, "_wait_open", noting)

    async def script(talk: Talk) -> None:
        if (await talk.wait_request()).startswith(b"GET "):
            return
        sock: socket.socket = talk.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
        talk.writer.transport.set_write_buffer_limits(high=0)
        with contextlib.suppress(ConnectionError):
            await talk.send(HEAD + chunks(ROLE))
            for _ in range(5000):  # ten megabytes
                await talk.send(chunks(EVENT))
                taken[0] += len(EVENT)

    async with peer(script) as here:
        settings = configured(
            {"gpu-0": (here.url, "openai")}, "[health]\nprobes = false\n", receive_buffer=SMALL
        )
        server = settings.server.model_copy(update={"send_buffer": SMALL})
        async with running(settings.model_copy(update={"server": server})) as run:
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.setblocking(False)
                host, port = run.url.removeprefix("http://").split(":")
                loop = asyncio.get_running_loop()
                await loop.sock_connect(client, (host, int(port)))
                body = chat(stream=True)
                await loop.sock_sendall(client, ASK % len(body) + body)
                await wait_until(lambda: taken[0] > SMALL)
                before = -1
                while taken[0] != before:  # until nobody takes any more
                    before = taken[0]
                    await asyncio.sleep(0.3)
                # Twice each of three buffers of the system, ours with what is on its way, and the client's.
                assert taken[0] < 2 * 3 * SMALL + 2 * (HIGH_WATER + SMALL) + HIGH_WATER
                (arrived,) = run.planes[0].admission.connections
                assert option(arrived.transport.get_extra_info("socket"), socket.SO_SNDBUF) == SMALL
                assert option(opened[-1], socket.SO_RCVBUF) == SMALL
            run.end_now()


def test_the_defaults_are_bounded_and_small() -> None:
    settings = configured({"gpu-0": ("http://127.0.0.1:1", "openai")})
    assert (settings.server.send_buffer, settings.backends[0].receive_buffer) == (65_536, 65_536)
