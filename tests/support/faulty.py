"""A TCP relay that spoils what a server says on its way: late, sliced, cut, stalled, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

Fate = Literal["pass", "fin", "rst", "stall"]


@dataclass(frozen=True)
class Fault:
    """What happens to each connection. Bytes are those of the server's side, seconds real ones.

    `delay` before the first byte, or with `each` before every piece that comes, give or take `jitter` (a
    share of it, by a fixed seed); `slices`: bytes
    a write; after `limit` bytes, `fate`. `fate` "stall": nothing more passes in either direction, not even
    the end of the connection, as if a cable had been pulled.
    """

    delay: float = 0.0
    jitter: float = 0.0
    each: bool = False
    slices: int = 0
    limit: int | None = None
    fate: Fate = "pass"


@dataclass
class Faulty:
    """A relay in front of one server. `fault` may be changed; connections that come then have the new one."""

    target: str
    fault: Fault
    url: str = ""
    seen: int = 0
    open: int = 0
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set as soon as a client has closed a connection."""
    left_at: float = 0.0
    """When that last was, by the loop's clock."""
    _random: random.Random = field(default_factory=lambda: random.Random(1729), repr=False)

    async def wait_served(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.seen += 1
        self.open += 1
        address = urlsplit(self.target)
        theirs: asyncio.StreamWriter | None = None
        try:
            upstream, theirs = await asyncio.open_connection(address.hostname, address.port)
            up = asyncio.ensure_future(self._asked(reader, theirs))
            try:
                await self._answered(upstream, writer, up)
            finally:
                up.cancel()
        except ConnectionError:
            pass
        finally:
            self.open -= 1
            for end in (writer, theirs):
                if end is not None:
                    end.close()

    async def _asked(self, reader: asyncio.StreamReader, theirs: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                theirs.write(data)
        self.left_at = asyncio.get_running_loop().time()
        self.left.set()
        theirs.close()

    async def _answered(
        self, upstream: asyncio.StreamReader, writer: asyncio.StreamWriter, up: asyncio.Future[None]
    ) -> None:
        fault, passed, late = self.fault, 0, False
        while data := await upstream.read(65536):
            if fault.delay and not late:
                await asyncio.sleep(fault.delay * (1 + fault.jitter * self._random.uniform(-1, 1)))
                late = not fault.each
            room = len(data) if fault.limit is None else fault.limit - passed
            await _write(writer, data[:room], fault.slices)
            passed += min(room, len(data))
            if fault.limit is not None and passed >= fault.limit:
                break
        if fault.fate == "rst":
            reset(writer)
        elif fault.fate == "stall":
            await up


async def _write(writer: asyncio.StreamWriter, data: bytes, slices: int) -> None:
    for start in range(0, len(data), slices or len(data) or 1):
        writer.write(data[start : start + (slices or len(data))])
        await writer.drain()
        if slices:
            await asyncio.sleep(0)


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST."""
    sock: Any = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextlib.asynccontextmanager
async def faulty(target: str, fault: Fault = Fault()) -> AsyncIterator[Faulty]:
    """Put a relay in front of the server at `target`."""
    here = Faulty(target, fault)
    serving: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = asyncio.get_running_loop().create_task(here.wait_served(reader, writer))
        serving.add(task)
        task.add_done_callback(serving.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    here.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield here
    finally:
        server.close()
        for task in tuple(serving):
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


@contextlib.contextmanager
def _bound() -> Any:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


@contextlib.contextmanager
def closed_port() -> Any:
    """An address at which nobody listens, and nobody else will."""
    with _bound() as bound:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@contextlib.contextmanager
def black_hole() -> Any:
    """An address that takes no connection: its backlog is full."""
    with contextlib.ExitStack() as sockets:
        server = sockets.enter_context(_bound())
        server.listen(0)
        for _ in range(3):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
