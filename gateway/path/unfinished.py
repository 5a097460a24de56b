"""What a backend still does for a request when its client has what it wanted, or has left.

Some servers keep a stream open after its last event, and some cannot be stopped. Until they are done, the
slot of the request stays taken, and the connection can serve no other. The functions here wait for that.
They run as background tasks, hold nothing of the request (its memory has been given back), raise nothing
that anybody would have to handle, and are bounded in time.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from gateway.background import Background
from gateway.errors import GatewayError
from gateway.formats import sse
from gateway.upstream.backend import Backend
from gateway.upstream.exchange import Exchange

END_GRACE = 0.25
"""Seconds that a stream may take to end after its last event, while no client waits for it."""


async def wait_end_mark(exchange: Exchange, background: Background, name: str) -> None:
    """Wait, for at most `END_GRACE`, until a server that has sent its finish reason sends its end mark.

    What comes behind that is read by another task (`wait_end`), so that the slot is not held for it.
    """
    try:
        with suppress(GatewayError, TimeoutError):
            async with asyncio.timeout(END_GRACE):
                while (chunk := await exchange.read(begun=True)) and not sse.says_done(chunk):
                    pass
    except BaseException:
        await exchange.aclose()
        raise
    background.start(wait_end(exchange), f"end of {name}'s stream")


async def wait_end(exchange: Exchange) -> None:
    """Read the rest of a stream that is over, so that its connection can be used again; else close it."""
    await wait_drained(exchange, END_GRACE)


async def wait_drained(exchange: Exchange, seconds: float) -> None:
    """Read a stream that no client wants to its end, for at most `seconds`; then leave the exchange."""
    try:
        with suppress(GatewayError, TimeoutError):
            async with asyncio.timeout(seconds):
                while await exchange.read(begun=True):
                    pass
    finally:
        await exchange.aclose()


async def wait_probe_answered(backend: Backend, seconds: float) -> None:
    """Wait, for at most `seconds`, until a server that answers nothing while it generates answers a probe."""
    with suppress(GatewayError, TimeoutError):
        async with asyncio.timeout(seconds):
            await backend.client.probe(backend.probe)
