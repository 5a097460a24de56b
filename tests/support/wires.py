"""Servers of literal bytes: what they were sent, and exactly what they answer."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

End = Literal["close", "reset", "hang"]


@dataclass
class Wire:
    """A server on a real port. `closed` is set when a client that was kept waiting has gone."""

    port: int = 0
    received: list[bytes] = field(default_factory=list)
    connections: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"


async def _request(reader: asyncio.StreamReader) -> bytes:
    """One whole request, by its Content-Length."""
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return head + (await reader.readexactly(int(lengths[0].partition(b":")[2])) if lengths else b"")


@asynccontextmanager
async def wire(*pieces: bytes, end: End = "close", tls: ssl.SSLContext | None = None) -> AsyncIterator[Wire]:
    """A server that reads one request a connection, writes these pieces, and ends the connection so."""
    told = Wire()
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told.connections += 1
        try:
            told.received.append(await _request(reader))
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            if end == "hang":
                await reader.read()
                told.closed.set()
        except (asyncio.IncompleteReadError, ConnectionError):
            told.closed.set()
        finally:
            if end == "reset":
                sock: socket.socket = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = loop.create_task(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    told.port = server.sockets[0].getsockname()[1]
    try:
        yield told
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
