"""The event loop of a server that generates inside it, as a lock that nobody waits for in real life."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class LoopLock:
    """A stand-in for a blocked event loop: who generates holds it, everything else passes through it.

    First come, first served, as requests in a socket's backlog are. One per simulated server. An open gate
    (`blocking=False`) is the loop of a server that generates elsewhere, such as vLLM's.
    """

    def __init__(self, *, blocking: bool) -> None:
        self._lock = asyncio.Lock() if blocking else None

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Keep the loop busy for the length of the block."""
        if self._lock is None:
            yield
            return
        async with self._lock:
            yield

    async def wait_through(self) -> None:
        """Wait until the loop could turn to us: at once if nobody holds it."""
        if self._lock is not None:
            async with self._lock:
                pass

    @property
    def busy(self) -> bool:
        """Whether someone holds the loop just now."""
        return self._lock is not None and self._lock.locked()
