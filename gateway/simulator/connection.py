"""The client's connection within reach: uvicorn's HTTP protocol, open enough for misbehaviour."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

SCOPE_KEY = "gateway.simulator.connection"
"""Where the ASGI scope of a request holds its `SimulatorConnection`."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class SimulatorConnection(HttpToolsProtocol):
    """One client connection: tells whether the client is there, and breaks off in two ways."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._left = asyncio.Event()

    @property
    def gone(self) -> bool:
        """Whether the connection is over, or ends as soon as its last bytes are out."""
        return self.transport.is_closing()

    async def wait_gone(self) -> None:
        """Return when the connection is over."""
        await self._left.wait()

    async def close(self) -> None:
        """End the connection: FIN after the bytes written so far."""
        self.transport.close()
        await self._left.wait()

    async def reset(self) -> None:
        """Break the connection: RST, unsent bytes are lost."""
        peer: socket.socket = self.transport.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.transport.abort()
        await self._left.wait()

    def abort(self) -> None:
        """Drop the connection without waiting for anything."""
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        super().connection_lost(exc)
        self._left.set()

    def on_message_begin(self) -> None:
        """Put this link into the scope that uvicorn has just made for the request."""
        super().on_message_begin()
        scope: dict[str, Any] = dict(self.scope)
        scope[SCOPE_KEY] = self
        self.scope.update(scope)  # type: ignore[typeddict-item]  # a key of our own beside ASGI's
