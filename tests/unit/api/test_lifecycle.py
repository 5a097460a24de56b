"""What a shutdown says to those who come and to those who are here."""

from __future__ import annotations

import asyncio

import pytest

from gateway.api.client_guard import ClientGuard
from gateway.api.lifecycle import Lifecycle
from gateway.errors import ClientGone, Draining, GatewayError
from tests.support.asgi import Client


class Visit:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[GatewayError] = []

    def end(self, reason: GatewayError) -> None:
        self.told.append(reason)


def test_the_end_is_told_to_everybody_who_is_here_and_to_nobody_else() -> None:
    lifecycle, here, gone = Lifecycle(), Visit(), Visit()
    lifecycle.visitors |= {here, gone}
    lifecycle.visitors.discard(gone)
    lifecycle.end()
    assert [type(reason) for reason in here.told] == [Draining]
    assert gone.told == []


def test_it_is_not_ready_before_it_refuses_anybody() -> None:
    lifecycle = Lifecycle()
    assert (lifecycle.leaving, lifecycle.draining) == (False, False)
    lifecycle.take_leave()
    assert (lifecycle.leaving, lifecycle.draining) == (True, False)
    lifecycle.drain()
    assert (lifecycle.leaving, lifecycle.draining) == (True, True)


async def test_a_request_in_flight_ends_with_draining() -> None:
    lifecycle = Lifecycle()

    async def context() -> None:
        with ClientGuard(Client(), lifecycle):
            asyncio.get_running_loop().call_soon(lifecycle.end)
            await asyncio.Event().wait()

    with pytest.raises(Draining):
        await context()
    assert len(lifecycle) == 0


async def test_the_first_reason_counts() -> None:
    lifecycle, client = Lifecycle(), Client()

    async def context() -> None:
        with ClientGuard(client, lifecycle):
            asyncio.get_running_loop().call_soon(client.leave)
            asyncio.get_running_loop().call_soon(lifecycle.end)
            await asyncio.Event().wait()

    with pytest.raises(ClientGone):
        await context()
