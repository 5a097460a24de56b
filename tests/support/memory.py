"""Connections without a network: a transport whose connections end in this process.

The gateway's side is the real one, from the pool and the connection upwards. Each connection is one end of a
socket pair; behind the other end a small HTTP/1.1 server plays prepared replies.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any

import httpx

from gateway.upstream.connection import BackendConnection, make_buffer
from gateway.upstream.dialer import Origin
from gateway.upstream.transport import GatewayTransport
from gateway.write_batcher import WriteBatcher

Reply = Callable[[httpx.Request], Any]
"""Gives the response to one request, or raises what httpx would; a coroutine function or a plain one."""
Refusal = Callable[[str, bool], Coroutine[None, None, Exception | None]]
"""Gives what opening a connection to a host raises; the second argument tells whether it is for a probe."""


async def connected(_host: str, _probe: bool) -> None:
    """Raise nothing: every connection opens."""


_probing: ContextVar[bool] = ContextVar("probing", default=False)


class MemoryTransport(GatewayTransport):
    """The gateway's own transport over connections in memory."""

    def __init__(self, reply: Reply, refusal: Refusal = connected) -> None:
        super().__init__(
            most=1_000,
            context=ssl.create_default_context,
            connector=lambda origin: MemoryDialer(origin, reply, refusal),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request of the control plane: a probe."""
        token = _probing.set(True)
        try:
            return await super().handle_async_request(request)
        finally:
            _probing.reset(token)


class MemoryDialer:
    """Opens connections to one origin."""

    def __init__(self, origin: Origin, reply: Reply, refusal: Refusal) -> None:
        self._origin = origin
        self._reply = reply
        self._refusal = refusal
        self._buffer = make_buffer()
        self._write_batcher = WriteBatcher()

    async def wait_connection(
        self, lost: Callable[[BackendConnection], None], seconds: float | None
    ) -> BackendConnection:
        """Open a connection, or raise what the prepared replies say."""
        async with asyncio.timeout(seconds):
            error = await self._refusal(self._origin.host, _probing.get())
        if error is not None:
            raise error
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        connection = BackendConnection(lost, ours, loop, self._buffer, self._write_batcher)
        server = _Server(self._reply, self._origin, connection)
        try:
            for end, protocol in ((theirs, server), (ours, connection)):
                end.setblocking(False)
                await loop.create_unix_connection(lambda one=protocol: one, sock=end)  # type: ignore[misc]
        except BaseException:
            server.abort()
            connection.abort()
            if server.transport is None:
                theirs.close()
            ours.close()
            raise
        return connection


class _Server(asyncio.Protocol):
    """Serves the requests of one connection in turn; ends a reply whose client has left.

    One task does all of it. When the event loop ends before the client has left, as it does for tests that
    close nothing, the loop cancels the task, and that closes both ends.
    """

    def __init__(self, reply: Reply, origin: Origin, client: BackendConnection) -> None:
        self._reply = reply
        self._origin = origin
        self._client = client
        self._received = bytearray()
        self._requests: asyncio.Queue[httpx.Request] = asyncio.Queue()
        self._writable = asyncio.Event()
        self._writable.set()
        self._serving: asyncio.Task[None] | None = None
        self._left = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._serving = asyncio.get_running_loop().create_task(self._serve(transport))

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, rest = bytes(self._received).partition(b"\r\n\r\n")
        if not end:
            return
        lines = head.split(b"\r\n")
        headers = dict(line.split(b": ", 1) for line in lines[1:])
        length = int(httpx.Headers(headers).get("content-length", "0"))
        if len(rest) < length:
            return
        del self._received[: len(head) + 4 + length]
        method, target, _ = lines[0].split(b" ")
        url = f"{self._origin.scheme}://{self._origin.host}:{self._origin.port}{target.decode()}"
        request = httpx.Request(method.decode(), url, headers=headers, content=rest[:length] or None)
        self._requests.put_nowait(request)

    def connection_lost(self, _: Exception | None) -> None:
        self._left = True
        if self._serving is not None:
            self._serving.cancel()

    def abort(self) -> None:
        """End the connection."""
        if self.transport is not None:
            self.transport.abort()

    async def _serve(self, transport: asyncio.Transport) -> None:
        try:
            while not transport.is_closing():
                request = await self._requests.get()
                response = self._reply(request)
                if isinstance(response, Coroutine):
                    response = await response
                await self._send(transport, response, without_body=request.method == "HEAD")
        except httpx.TransportError:
            transport.close()
        except asyncio.CancelledError:
            if not self._left:  # the event loop ends
                transport.abort()
                self._client.abort()
                for _ in range(3):  # until both ends are closed
                    await asyncio.sleep(0)
            raise
        except BaseException:
            transport.close()
            raise

    async def _send(
        self, transport: asyncio.Transport, response: httpx.Response, *, without_body: bool
    ) -> None:
        headers = response.headers
        stream = response.stream
        without_body = without_body or response.status_code in {204, 304}
        content = b"".join(stream) if isinstance(stream, httpx.ByteStream) else None  # as it is, not decoded
        if response.status_code in {204, 304}:
            headers.pop("content-length", None)
        elif content is None:
            headers["transfer-encoding"] = "chunked"
        else:
            headers["content-length"] = str(len(content))
        if without_body:
            content = b""
        fields = b"".join(b"%b: %b\r\n" % field for field in headers.raw)
        transport.write(b"HTTP/1.1 %d X\r\n%b\r\n%b" % (response.status_code, fields, content or b""))
        if content is None:
            try:
                await self._send_pieces(transport, stream)
            finally:
                await response.aclose()
        if headers.get("connection") == "close":
            transport.close()

    async def _send_pieces(self, transport: asyncio.Transport, stream: Any) -> None:
        async for piece in stream:
            if not piece:
                continue  # which would be the end of the body
            await self._writable.wait()
            transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            for _ in range(3):  # until the other end has read it, as a piece of its own
                await asyncio.sleep(0)
        transport.write(b"0\r\n\r\n")

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()
