"""What a shutdown says to those who come and to those who are here."""

from __future__ import annotations

import asyncio

import pytest

from gateway.api.leaving import Leaving
from gateway.api.life import Life
from gateway.errors import ClientGone, Draining, GatewayError
from tests.support.asgi import Client


class Visit:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[GatewayError] = []

    def end(self, reason: GatewayError) -> None:
        self.told.append(reason)


def test_the_end_is_told_to_everybody_who_is_here_and_to_nobody_else() -> None:
    life, here, gone = Life(), Visit(), Visit()
    life.visitors |= {here, gone}
    life.visitors.discard(gone)
    life.end()
    assert [type(reason) for reason in here.told] == [Draining]
    assert gone.told == []


def test_it_is_not_ready_before_it_refuses_anybody() -> None:
    life = Life()
    assert (life.leaving, life.draining) == (False, False)
    life.take_leave()
    assert (life.leaving, life.draining) == (True, False)
    life.drain()
    assert (life.leaving, life.draining) == (True, True)


async def test_a_request_in_flight_ends_with_draining() -> None:
    life = Life()

    async def visit() -> None:
        with Leaving(Client(), life):
            asyncio.get_running_loop().call_soon(life.end)
            await asyncio.Event().wait()

    with pytest.raises(Draining):
        await visit()
    assert len(life) == 0


async def test_the_first_reason_counts() -> None:
    life, client = Life(), Client()

    async def visit() -> None:
        with Leaving(client, life):
            asyncio.get_running_loop().call_soon(client.leave)
            asyncio.get_running_loop().call_soon(life.end)
            await asyncio.Event().wait()

    with pytest.raises(ClientGone):
        await visit()
