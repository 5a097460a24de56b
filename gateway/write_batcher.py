"""Joins the socket writes of one event-loop iteration.

A write to a socket wakes whoever reads it, and on a virtual machine that costs more than the write itself. A
reader that is awake costs nothing: a few writes in a row are cheaper than the same with work between them.
Nothing waits for more to come: what is held goes out in the next turn of the loop, and as soon as `MOST`
writes are held, so that the first of many need not wait for the work of the last. Where writes are rare,
none is held at all.
"""

from __future__ import annotations

import asyncio
import math

MOST = 16
"""The most writes that are held."""
CALM = 0.002
"""A write goes out at once when none came for so many seconds: there is nothing to be saved then."""


class WriteBatcher:
    """The writes of some connections of one event loop. Whoever closes a transport flushes first."""

    __slots__ = ("_calm", "_held", "_last", "turn")

    def __init__(self, calm: float = CALM) -> None:
        self._calm = calm
        self._last = -math.inf
        self._held: list[tuple[asyncio.Transport, bytes]] = []
        self.turn = 0
        """How often it was emptied. Whoever notes it before a write knows later whether that has gone out."""

    def write(self, transport: asyncio.Transport, data: bytes, loop: asyncio.AbstractEventLoop) -> None:
        """Write soon. What was to go to a transport that closes meanwhile is dropped."""
        held, now = self._held, loop.time()
        held.append((transport, data))
        calm = now - self._last > self._calm
        self._last = now
        if calm or len(held) >= MOST:
            self.flush()
        elif len(held) == 1:
            loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write all that is held now."""
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
            except (RuntimeError, OSError):  # uvloop says RuntimeError for a closed transport
                transport.abort()  # then its protocol is told of the loss, now if not before

    def __repr__(self) -> str:
        return f"<WriteBatcher {len(self._held)} held>"
