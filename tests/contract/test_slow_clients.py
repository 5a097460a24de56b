"""Clients that are slow, silent or many: each is ended in time, and the others never notice."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import re
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.server import RunningPlanes, running
from gateway.telemetry.logs.events import configure
from tests.support.asgi import with_server
from tests.support.servers import Servers, chunk, streaming, whole
from tests.support.stack import configured, wait_until

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
POST = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY)
GET = b"GET /livez HTTP/1.1\r\nHost: gateway\r\n\r\n"
STREAM = BODY[:-1] + b',"stream":true}'
SOON = 5.0
"""Seconds in which what should take 0.2 must have happened, on the busiest machine."""


@asynccontextmanager
async def gateway(*, servers: Servers | None = None, **limits: Any) -> AsyncIterator[RunningPlanes]:
    """A gateway with these values of `[server]`."""
    servers = servers or Servers(a=whole())
    settings = with_server(configured(servers.urls("openai"), slots=300), **limits)
    logs = configure("json", "info", io.StringIO())
    async with running(settings, logs=logs, transport=servers.transport) as run:
        yield run


class Client:
    """One raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def rest(self, seconds: float = SOON) -> bytes:
        """All that comes until the gateway closes."""
        async with asyncio.timeout(seconds):
            return await self.reader.read()

    async def some(self) -> bytes:
        """What comes next."""
        async with asyncio.timeout(SOON):
            return await self.reader.read(65_536)

    async def trickle(self, data: bytes, pause: float) -> bytes:
        """Send byte by byte, with pauses; what comes back first."""
        for at in range(len(data)):
            try:
                async with asyncio.timeout(pause):
                    return await self.reader.read(65_536)
            except TimeoutError:
                self.send(data[at : at + 1])
        return await self.some()


@asynccontextmanager
async def connected(run: RunningPlanes, local: str = "127.0.0.1", buffer: int = 0) -> AsyncIterator[Client]:
    """A raw connection; `buffer` are the bytes that its system takes unread."""
    sock = socket.socket()
    if buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    sock.bind((local, 0))
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", int(run.url.rpartition(":")[2])))
    reader, writer = await asyncio.open_connection(sock=sock, limit=2**12)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


def status(answer: bytes) -> int:
    """The status of the only answer, checked to be the last in its connection."""
    assert answer.count(b"HTTP/1.1 ") == 1, answer
    assert b"\r\nconnection: close\r\n" in answer.lower()
    return int(answer.split(b" ")[1])


def refusals(run: RunningPlanes, reason: str) -> int:
    text = run.gateway.metrics.render()[0].decode()
    found = re.search(rf'gateway_client_refusals_total\{{reason="{reason}"\}} (\S+)', text)
    assert found, text
    return int(float(found[1]))


# --- too slow --------------------------------------------------------------------------------------


async def test_a_silent_socket_is_closed_without_a_word() -> None:
    async with gateway(header_timeout=0.2) as run, connected(run) as client:
        assert await client.rest() == b""


async def test_half_a_head_is_a_408() -> None:
    async with gateway(header_timeout=0.2) as run, connected(run) as client:
        client.send(HEAD)
        assert status(await client.rest()) == 408
        assert refusals(run, "request_timeout") == 1


async def test_a_head_that_trickles_is_not_waited_for_for_ever() -> None:
    async with gateway(header_timeout=0.3) as run, connected(run) as client:
        began = time.monotonic()
        answer = b""
        with contextlib.suppress(
            ConnectionResetError
        ):  # a byte sent after the close makes the system drop the answer
            answer = await client.trickle(HEAD, pause=0.05)
        assert not answer or status(answer) == 408
        assert time.monotonic() - began < len(HEAD) * 0.05 / 2
        assert refusals(run, "request_timeout") == 1


async def test_a_second_head_has_a_time_of_its_own() -> None:
    async with gateway(header_timeout=0.2) as run, connected(run) as client:
        client.send(GET)
        assert b" 200 OK" in await client.some()
        client.send(GET[:-2])
        assert status(await client.rest()) == 408


async def test_a_body_that_pauses_is_a_408_and_no_request_is_left_behind() -> None:
    async with gateway(body_timeout=0.2) as run, connected(run) as client:
        client.send(POST + BODY[:-1])
        answer = await client.rest()
        assert status(answer) == 408
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "request_timeout"
        await wait_until(lambda: b'status="408"' in run.gateway.metrics.render()[0])


async def test_a_body_that_trickles_without_a_pause_is_taken() -> None:
    async with gateway(body_timeout=1.0, body_rate=1) as run, connected(run) as client:
        client.send(POST)
        assert b" 200 OK" in await client.trickle(BODY, pause=0.03)


@pytest.mark.parametrize(
    "limits", [{"body_rate": 1_000_000}, {"body_rate": 0, "body_total": 0.4}], ids=["rate", "total"]
)
async def test_a_body_that_trickles_for_too_long_is_a_408(limits: dict[str, Any]) -> None:
    async with gateway(body_timeout=0.3, **limits) as run, connected(run) as client:
        client.send(POST)
        assert status(await client.trickle(BODY, pause=0.03)) == 408
        await wait_until(lambda: refusals(run, "request_timeout") == 1)


async def test_a_client_that_reads_nothing_is_cut_off_and_its_backend_let_go() -> None:
    servers = Servers(a=streaming(*[chunk("x" * 8000) for _ in range(2000)]))
    async with gateway(servers=servers, write_timeout=0.3) as run, connected(run, buffer=4096) as client:
        client.send(HEAD + b"Content-Length: %d\r\n\r\n" % len(STREAM) + STREAM)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a stream's is for both ways
        await wait_until(lambda: refusals(run, "write_timeout") == 1)
        await wait_until(lambda: run.gateway.dispatcher.in_flight("a") == 0)
        await wait_until(lambda: b'outcome="client_gone"' in run.gateway.metrics.render()[0])


# --- too many --------------------------------------------------------------------------------------


async def test_a_connection_above_the_cap_is_a_503_until_one_ends() -> None:
    async with gateway(max_connections=2) as run, connected(run), AsyncExitStack() as second:
        held = await second.enter_async_context(connected(run))
        held.send(GET)
        assert b" 200 OK" in await held.some()
        async with connected(run) as third:
            third.send(GET)
            answer = await third.rest()
            assert status(answer) == 503
            assert b"\r\nretry-after: 1\r\n" in answer
            assert b'"too_many_connections"' in answer
        await second.aclose()
        assert await taken(run)


async def taken(run: RunningPlanes, local: str = "127.0.0.1") -> bool:
    """Whether a new connection comes to be served before long."""
    async with asyncio.timeout(SOON):
        while True:
            async with connected(run, local) as client:
                client.send(GET)
                if b" 200 OK" in await client.some():
                    return True


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8 by itself")
async def test_one_address_above_its_cap_leaves_room_for_others() -> None:
    async with gateway(max_connections_per_peer=1) as run, connected(run):
        async with connected(run) as second:
            second.send(GET)
            assert status(await second.rest()) == 503
        assert await taken(run, "127.0.0.2")


async def test_the_admin_plane_has_its_own_count() -> None:
    async with gateway(max_connections=1) as run, connected(run), httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(f"{run.admin_url}/livez")).status_code == 200


async def test_others_are_served_while_hundreds_are_slow() -> None:
    # Long enough for all of them to have sent their piece on a busy machine, before the first is refused.
    async with gateway(header_timeout=2) as run, AsyncExitStack() as crowd:
        slow = [await crowd.enter_async_context(connected(run)) for _ in range(300)]
        for client in slow:
            client.send(HEAD)
        async with httpx.AsyncClient(base_url=run.url, trust_env=False, timeout=SOON) as http:
            for _ in range(20):
                reply = await http.post("/v1/chat/completions", content=BODY)
                assert reply.status_code == 200
        assert {status(answer) for answer in await asyncio.gather(*(client.rest() for client in slow))} == {
            408
        }


# --- what a slow reader costs ----------------------------------------------------------------------

READERS = 200


class Flood:
    """A backend whose streams never end; it goes from one to the next, with an event for each."""

    def __init__(self) -> None:
        self.sent = 0
        self._event = chunk("x" * 4000)
        self._streams: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        self._streams.append(writer)

    async def pump(self) -> None:
        """Send, as long as it is taken."""
        while True:
            for stream in self._streams:
                if stream.transport.get_write_buffer_size() < 65_536:
                    stream.write(self._event)
                    self.sent += len(self._event)
                await asyncio.sleep(0)
            await asyncio.sleep(0.001)  # all are stuck, or there are none

    async def wait_until_it_is_stuck(self) -> None:
        """Until nothing has been taken for a second."""
        seen, since = -1, time.monotonic()

        def stuck() -> bool:
            nonlocal seen, since
            if self.sent != seen:
                seen, since = self.sent, time.monotonic()
            return time.monotonic() - since > 1

        await wait_until(stuck, 40)


@asynccontextmanager
async def process(folder: Path, backend: int) -> AsyncIterator[tuple[int, int]]:
    """A gateway in a process of its own: its id, and the port of its data plane."""
    config = folder / "config.toml"
    config.write_text(
        '[server]\nlisten = "127.0.0.1:0"\n[admin]\nlisten = "127.0.0.1:0"\n'
        f'[health]\nprobes = false\n[[backends]]\nname = "a"\nurl = "http://127.0.0.1:{backend}"\n'
        f'dialect = "openai"\nmodels = ["m"]\nslots = {READERS}\n',
        encoding="utf-8",
    )
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "serve", "--config", str(config), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert started.stdout is not None
        line = json.loads(await started.stdout.readline())
        yield started.pid, int(line["data"].rpartition(":")[2])
    finally:
        started.kill()
        await started.wait()


def memory(pid: int) -> int:
    """Bytes of a process that are its own."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return 1024 * sum(int(kib) for kib in re.findall(r"^Private_\w+: +(\d+) kB$", lines, re.MULTILINE))


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
async def test_a_slow_reader_costs_little_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flood = Flood()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(await asyncio.start_server(flood.serve, "127.0.0.1", 0))
        pid, port = await stack.enter_async_context(process(tmp_path, server.sockets[0].getsockname()[1]))
        pump = asyncio.get_running_loop().create_task(flood.pump())
        stack.callback(pump.cancel)
        before = memory(pid)
        for _ in range(READERS):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
            sock.send(HEAD + b"Content-Length: %d\r\n\r\n" % len(STREAM) + STREAM)
        await flood.wait_until_it_is_stuck()
        each = (memory(pid) - before) / READERS / 1024
        with capsys.disabled():
            print(f"\n{READERS} readers that do not read: {each:.0f} KiB each")  # noqa: T201 - a figure
        assert each < 256
