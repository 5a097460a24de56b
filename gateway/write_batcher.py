"""Joins the socket writes of one event-loop iteration.

A write to a socket wakes the process that reads it. On a virtual machine the wake-up costs more than the
write itself, so several writes in a row are cheaper than the same writes with other work between them.
The delay is bounded: pending writes are flushed in the next iteration of the event loop, or as soon as
`MOST` are pending. If writes are rare, each one is flushed at once.
"""

from __future__ import annotations

import asyncio
import math

MOST = 16
"""The number of pending writes that triggers a flush."""
CALM = 0.002
"""Seconds without a write after which the next write is flushed at once."""


class WriteBatcher:
    """Pending writes of the connections of one event loop. Call `flush` before closing a transport."""

    __slots__ = ("_calm", "_held", "_last", "turn")

    def __init__(self, calm: float = CALM) -> None:
        self._calm = calm
        self._last = -math.inf
        self._held: list[tuple[asyncio.Transport, bytes]] = []
        self.turn = 0
        """The number of flushes so far. A write is pending while this equals its value before the write."""

    def write(self, transport: asyncio.Transport, data: bytes, loop: asyncio.AbstractEventLoop) -> None:
        """Schedule a write. The data is dropped if the transport closes before the flush."""
        held, now = self._held, loop.time()
        held.append((transport, data))
        calm = now - self._last > self._calm
        self._last = now
        if calm or len(held) >= MOST:
            self.flush()
        elif len(held) == 1:
            loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write all pending data now."""
        held = self._held
        if not held:
            return
        self._held = []
        self.turn += 1
        for transport, data in held:
            if transport.is_closing():
                continue
            try:
                transport.write(data)
            except (RuntimeError, OSError):  # uvloop raises RuntimeError for a closed transport
                transport.abort()  # makes the event loop call connection_lost

    def __repr__(self) -> str:
        return f"<WriteBatcher {len(self._held)} held>"
