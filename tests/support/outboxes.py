"""An outbox for tests that play the event loop's part themselves."""

from __future__ import annotations

import asyncio

from gateway.write_batcher import WriteBatcher


class AtOnce(WriteBatcher):
    """Writes without waiting for the end of a turn."""

    def write(self, transport: asyncio.Transport, data: bytes, loop: asyncio.AbstractEventLoop) -> None:
        super().write(transport, data, loop)
        self.flush()
