"""The pool over a dialer that opens nothing: who gets which connection, and what is counted."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

import pytest

from gateway.upstream.connection import BackendConnection
from gateway.upstream.dialer import Dialer, Origin
from gateway.upstream.pool import ConnectionPool, PoolFull, PoolStatistics
from tests.support.outboxes import AtOnce
from tests.unit.upstream.test_connection import SIZED, Notes, receive


class Imagined(Dialer):
    """Makes connections out of nothing; `gate` holds them back, `fails` makes it fail."""

    def __init__(self) -> None:
        super().__init__(Origin("http", "h", 80), ssl.create_default_context)
        self.made: list[BackendConnection] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.fails: Exception | None = None

    async def wait_connection(
        self, lost: Callable[[BackendConnection], None], seconds: float | None
    ) -> BackendConnection:
        async with asyncio.timeout(seconds):
            await self.gate.wait()
        if self.fails is not None:
            raise self.fails
        connection = BackendConnection(lost, write_batcher=AtOnce())
        connection.connection_made(Notes())
        self.made.append(connection)
        return connection


def pool_of(most: int = 2, keepalive: float = 60.0) -> tuple[ConnectionPool, Imagined]:
    dialer = Imagined()
    return ConnectionPool(dialer, most=most, keepalive=keepalive), dialer


async def get(pool: ConnectionPool, *, place: float | None = 0.01, fresh: bool = False) -> BackendConnection:
    taken = None if fresh else pool.take()
    return taken or await pool.wait_connection(place=place, connect=1, fresh=fresh)


def serve(connection: BackendConnection) -> None:
    """One good exchange, after which the connection may be used again."""
    connection.start(b"head")
    receive(connection, SIZED)
    connection.take()


async def used(pool: ConnectionPool, count: int) -> list[BackendConnection]:
    connections = [await get(pool) for _ in range(count)]
    for connection in connections:
        serve(connection)
        pool.give_back(connection)
    return connections


async def test_the_connection_used_last_is_used_first() -> None:
    pool, _ = pool_of()
    _, last = await used(pool, 2)
    assert pool.statistics() == PoolStatistics(open=2, idle=2, waiting=0)
    assert pool.take() is last
    assert repr(pool) == "<Pool 2 open of 2, 1 idle, 0 waiting>"


async def test_a_server_that_closes_an_idle_connection_is_told_of_and_none_that_we_close() -> None:
    told: list[str] = []
    dialer = Imagined()
    pool = ConnectionPool(dialer, most=3, keepalive=60.0, deserted=lambda: told.append("deserted"))
    idle, dropped, busy = [await get(pool) for _ in range(3)]
    for connection in (idle, dropped):
        serve(connection)
        pool.give_back(connection)
    busy.connection_lost(None)
    pool.discard(dropped)
    assert told == []
    idle.connection_lost(None)
    assert told == ["deserted"]
    assert pool.statistics().open == 0


async def test_one_that_was_lost_while_idle_is_passed_over() -> None:
    pool, _ = pool_of()
    first, last = await used(pool, 2)
    last.connection_lost(None)
    assert pool.statistics() == PoolStatistics(open=1, idle=1, waiting=0)
    assert pool.take() is first
    assert pool.take() is None


async def test_one_that_cannot_serve_again_is_closed() -> None:
    pool, _ = pool_of()
    connection = await get(pool)
    connection.start(b"head")
    pool.give_back(connection)
    assert connection.closed
    assert pool.statistics() == PoolStatistics(open=0, idle=0, waiting=0)


async def test_discarding_twice_gives_one_place_back() -> None:
    pool, _ = pool_of()
    connection = await get(pool)
    await get(pool)
    pool.discard(connection)
    pool.discard(connection)
    connection.connection_lost(None)
    assert pool.statistics().open == 1


async def test_whoever_waits_gets_the_next_free_connection_in_turn() -> None:
    pool, dialer = pool_of(most=1)
    held = await get(pool)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(get(pool, place=5))
        second = group.create_task(get(pool, place=5))
        await asyncio.sleep(0)
        assert pool.statistics() == PoolStatistics(open=1, idle=0, waiting=2)
        serve(held)
        pool.give_back(held)
        assert await first is held
        assert not second.done()
        serve(held)
        pool.give_back(held)
    assert second.result() is held
    assert dialer.made == [held]


async def test_whoever_waits_gets_the_place_of_a_connection_that_is_closed() -> None:
    pool, dialer = pool_of(most=1)
    held = await get(pool)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(get(pool, place=5))
        await asyncio.sleep(0)
        pool.discard(held)
    assert waiting.result() is dialer.made[1]
    assert pool.statistics() == PoolStatistics(open=1, idle=0, waiting=0)


async def test_waiting_for_a_place_ends_in_time() -> None:
    pool, _ = pool_of(most=1)
    await get(pool)
    with pytest.raises(PoolFull):
        await get(pool, place=0.01)
    assert pool.statistics() == PoolStatistics(open=1, idle=0, waiting=0)


async def test_a_failed_dial_gives_its_place_to_whoever_waits() -> None:
    pool, dialer = pool_of(most=1)
    dialer.gate.clear()
    dialer.fails = ConnectionRefusedError()
    async with asyncio.TaskGroup() as group:
        failing = group.create_task(refused(pool))
        await asyncio.sleep(0)
        waiting = group.create_task(refused(pool))
        await asyncio.sleep(0)
        dialer.gate.set()
    assert failing.result()
    assert waiting.result()
    assert pool.statistics() == PoolStatistics(open=0, idle=0, waiting=0)


async def refused(pool: ConnectionPool) -> bool:
    with pytest.raises(ConnectionRefusedError):
        await get(pool, place=5)
    return True


@pytest.mark.parametrize("turn", ["connection", "place"])
async def test_a_turn_given_to_somebody_who_was_cancelled_is_not_lost(turn: str) -> None:
    pool, _ = pool_of(most=1)
    held = await get(pool)
    waiting = asyncio.get_running_loop().create_task(get(pool, place=5))
    await asyncio.sleep(0)
    if turn == "connection":
        serve(held)
        pool.give_back(held)
    else:
        pool.discard(held)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    kept = int(turn == "connection")
    assert pool.statistics() == PoolStatistics(open=kept, idle=kept, waiting=0)


async def test_whoever_is_cancelled_while_waiting_is_forgotten() -> None:
    pool, _ = pool_of(most=1)
    held = await get(pool)
    waiting = asyncio.get_running_loop().create_task(get(pool, place=5))
    await asyncio.sleep(0)
    waiting.cancel()
    serve(held)
    pool.give_back(held)  # before the cancelled task has run
    await asyncio.gather(waiting, return_exceptions=True)
    assert pool.statistics() == PoolStatistics(open=1, idle=1, waiting=0)


async def test_a_fresh_connection_takes_the_place_of_an_idle_one() -> None:
    pool, dialer = pool_of(most=1)
    (old,) = await used(pool, 1)
    fresh = await get(pool, fresh=True)
    assert fresh is dialer.made[1]
    assert old.closed
    assert pool.statistics() == PoolStatistics(open=1, idle=0, waiting=0)


async def test_whoever_waits_for_a_fresh_connection_takes_the_place_of_the_one_handed_over() -> None:
    pool, dialer = pool_of(most=1)
    held = await get(pool)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(get(pool, place=5, fresh=True))
        await asyncio.sleep(0)
        serve(held)
        pool.give_back(held)
    assert waiting.result() is dialer.made[1]
    assert held.closed
    assert pool.statistics() == PoolStatistics(open=1, idle=0, waiting=0)


async def test_a_connection_lost_on_its_way_to_whoever_waits_is_replaced() -> None:
    pool, dialer = pool_of(most=1)
    held = await get(pool)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(get(pool, place=5))
        await asyncio.sleep(0)
        serve(held)
        pool.give_back(held)
        held.connection_lost(None)
    assert waiting.result() is dialer.made[1]
    assert pool.statistics() == PoolStatistics(open=1, idle=0, waiting=0)


async def test_idle_connections_are_closed_when_they_are_old() -> None:
    pool, _ = pool_of(keepalive=0.02)
    connections = await used(pool, 2)
    async with asyncio.timeout(30):
        while pool.statistics().idle:  # noqa: ASYNC110 - nothing tells of it, as nobody else wants to know
            await asyncio.sleep(0.005)
    assert all(connection.closed for connection in connections)
    assert pool.statistics() == PoolStatistics(open=0, idle=0, waiting=0)


async def test_an_old_connection_is_not_used_though_the_sweep_has_not_come_by() -> None:
    pool, _ = pool_of(keepalive=60)
    (connection,) = await used(pool, 1)
    connection.idle_since -= 61
    assert pool.take() is None
    assert connection.closed


async def test_a_connection_that_was_opened_long_ago_serves_no_more() -> None:
    pool, _ = pool_of(keepalive=60)
    (connection,) = await used(pool, 1)
    connection.opened -= 61
    assert pool.take() is None
    assert connection.closed


async def test_a_closed_pool_keeps_nothing() -> None:
    pool, _ = pool_of()
    busy = await get(pool)
    idle = await get(pool)
    serve(idle)
    pool.give_back(idle)
    pool.close()
    assert idle.closed
    serve(busy)
    pool.give_back(busy)
    assert busy.closed
    assert pool.statistics() == PoolStatistics(open=0, idle=0, waiting=0)


# --- connections that are opened before they are wanted ----------------------------------------------


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_connection_is_prepared_once_and_taken_by_the_next() -> None:
    pool, dialer = pool_of()
    pool.prepare()
    pool.prepare()
    await settle()
    pool.prepare()  # there is one already
    await settle()
    (made,) = dialer.made
    assert pool.statistics() == PoolStatistics(open=1, idle=1, waiting=0)
    assert pool.take() is made
    made.start(b"head")
    pool.discard(made)
    assert pool.statistics() == PoolStatistics(open=0, idle=0, waiting=0)


async def test_nothing_is_prepared_beyond_the_most_there_may_be() -> None:
    pool, dialer = pool_of(most=1)
    await get(pool)
    pool.prepare()
    await settle()
    assert len(dialer.made) == 1


async def test_whoever_waits_meanwhile_gets_what_was_prepared() -> None:
    pool, dialer = pool_of(most=1)
    dialer.gate.clear()
    pool.prepare()
    await settle()
    waiting = asyncio.get_running_loop().create_task(get(pool, place=5))
    await settle()
    dialer.gate.set()
    assert await waiting is dialer.made[0]
    assert pool.statistics() == PoolStatistics(open=1, idle=0, waiting=0)


@pytest.mark.parametrize("error", [ConnectionRefusedError(), TimeoutError(), ssl.SSLError()], ids=repr)
async def test_what_cannot_be_prepared_gives_its_place_back_and_is_no_news(error: Exception) -> None:
    pool, dialer = pool_of(most=1)
    dialer.fails = error
    pool.prepare()
    await settle()
    assert pool.statistics() == PoolStatistics(open=0, idle=0, waiting=0)
    dialer.fails = None
    pool.prepare()
    await settle()
    assert pool.statistics() == PoolStatistics(open=1, idle=1, waiting=0)


async def test_what_was_prepared_for_nobody_is_closed_like_others() -> None:
    pool, dialer = pool_of(keepalive=0.02)
    pool.prepare()
    async with asyncio.timeout(30):
        while not (dialer.made and dialer.made[0].closed):  # noqa: ASYNC110 - nobody is told when an idle one is closed
            await asyncio.sleep(0.005)
    assert pool.statistics() == PoolStatistics(open=0, idle=0, waiting=0)


@pytest.mark.parametrize("turns", [0, 1, 3])
async def test_a_pool_that_closes_prepares_nothing(turns: int) -> None:
    pool, dialer = pool_of()
    dialer.gate.clear()
    pool.prepare()
    for _ in range(turns):
        await asyncio.sleep(0)
    pool.close()
    pool.prepare()
    dialer.gate.set()
    await settle()
    assert dialer.made == []
    assert pool.statistics() == PoolStatistics(open=0, idle=0, waiting=0)
