"""A server that does to a connection exactly what a test's script says."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias


class Talk:
    """One connection, seen from the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.reader = reader
        self.writer = writer
        self.number = number
        """Which connection this is, from 0."""

    async def wait_request(self) -> bytes:
        """Read one request that has a Content-Length or no body; b"" when the client has left."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""
        _, _, length = head.lower().partition(b"content-length: ")
        return head + await self.reader.readexactly(int(length.partition(b"\r\n")[0] or 0))

    async def wait_left(self) -> None:
        """Wait until the client has closed the connection."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    async def send(self, data: bytes, size: int | None = None) -> None:
        """Send, in pieces of `size` bytes when told, each a write of its own."""
        step = size or len(data) or 1
        for start in range(0, len(data), step):
            if self.writer.transport.is_closing():
                raise ConnectionResetError("the client has left")
            self.writer.write(data[start : start + step])
            await self.writer.drain()
            if size is not None:
                await asyncio.sleep(0)

    def reset(self) -> None:
        """End the connection with RST."""
        sock: Any = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script: TypeAlias = Callable[[Talk], Awaitable[None]]


@dataclass
class Peer:
    """A running server: where it is, and the connections it has seen and those that are open."""

    port: int = 0
    secure: bool = False
    seen: int = 0
    open: int = 0

    @property
    def url(self) -> str:
        """Its address."""
        return f"{'https' if self.secure else 'http'}://127.0.0.1:{self.port}"


@contextlib.asynccontextmanager
async def peer(script: Script, context: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    """Start a server; each connection is closed when its script has ended."""
    here = Peer(secure=context is not None)
    failed: list[BaseException] = []
    talks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.add(task)
        talk = Talk(reader, writer, here.seen)
        here.seen += 1
        here.open += 1
        try:
            await script(talk)
        except (ConnectionError, asyncio.CancelledError):
            pass
        except Exception as error:  # noqa: BLE001 - raised below, in the test
            failed.append(error)
        finally:
            here.open -= 1
            talks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError, asyncio.CancelledError):
                await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    here.port = server.sockets[0].getsockname()[1]
    try:
        yield here
    finally:
        server.close()
        for task in list(talks):
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)
    for error in failed:
        raise error


def answering(
    *answers: bytes,
    size: int | None = None,
    end: str = "keep",
    requests: list[bytes] | None = None,
    probed: bool = False,
) -> Script:
    """A script that gives the answers in turn to what is asked, each connection from the first on.

    `end`: what follows the last: "keep" (wait until the client leaves), "close" or "reset". `probed`: a GET
    is a probe, answered at once and not counted.
    """

    async def wait_request(talk: Talk) -> bytes:
        request = await talk.wait_request()
        while probed and request.startswith(b"GET "):
            await talk.send(b"HTTP/1.1 204 No Content\r\n\r\n")
            request = await talk.wait_request()
        return request

    async def script(talk: Talk) -> None:
        for answer in answers:
            request = await wait_request(talk)
            if not request:
                return
            if requests is not None:
                requests.append(request)
            await talk.send(answer, size)
        if end == "keep":
            await wait_request(talk)
            await talk.wait_left()
        elif end == "reset":
            talk.reset()

    return script


def free_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
