"""Asking over connections made of nothing: which one is used, when another is, and what is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.upstream.connection import BackendConnection, Cut, Overdue, Stale, Unanswered
from gateway.upstream.pool import ConnectionPool, PoolFull, PoolStatistics
from gateway.upstream.sending import REPEAT_WITHIN, wait_answer
from tests.unit.upstream.test_connection import SIZED, Notes, receive
from tests.unit.upstream.test_pool import Imagined, pool_of, used

NOTHING = PoolStatistics(open=0, idle=0, waiting=0)


def call(pool: ConnectionPool, **routing: Any) -> asyncio.Task[BackendConnection]:
    wanted = {"connect": 1.0, "place": 1.0, "again": None} | routing
    return asyncio.get_running_loop().create_task(wait_answer(pool, b"head", b"body", **wanted))


async def asked(
    pool: ConnectionPool, dialer: Imagined, **routing: Any
) -> tuple[asyncio.Task[BackendConnection], BackendConnection]:
    """Ask, and give the connection over which the request has left."""
    task = call(pool, **routing)
    for _ in range(3):
        await asyncio.sleep(0)
    return task, dialer.made[-1]


def written(connection: BackendConnection) -> list[bytes]:
    notes = connection._transport
    assert isinstance(notes, Notes)
    return notes.written


async def test_the_connection_is_given_with_the_head_of_its_answer() -> None:
    pool, dialer = pool_of()
    task, connection = await asked(pool, dialer)
    assert written(connection) == [b"headbody"]
    receive(connection, SIZED)
    assert await task is connection
    assert connection.status == 200
    assert pool.statistics() == PoolStatistics(open=1, idle=0, waiting=0)


async def test_a_connection_closed_while_it_was_idle_is_replaced() -> None:
    pool, dialer = pool_of()
    (old,) = await used(pool, 1)
    old._transport.closing = True  # type: ignore[union-attr]  # it is a Notes
    task, connection = await asked(pool, dialer)
    receive(connection, SIZED)
    assert await task is not old
    assert pool.statistics().open == 1


async def test_a_fresh_connection_that_is_closed_already_is_an_error() -> None:
    pool, dialer = pool_of()

    async def closed(lost: Callable[[BackendConnection], None], seconds: float | None) -> BackendConnection:
        connection = BackendConnection(lost)
        connection.closed = True
        return connection

    dialer.wait_connection = closed  # type: ignore[method-assign]
    with pytest.raises(Stale):
        await call(pool)
    assert pool.statistics() == NOTHING


class Asked:
    """Is asked whether a request may be sent once more: by the answer `says`, as often as `times` tells."""

    def __init__(self, says: bool = True) -> None:
        self.says = says
        self.times = 0

    def __call__(self) -> bool:
        self.times += 1
        return self.says


@pytest.mark.parametrize("again", [None, Asked(False), Asked(True)], ids=["never", "refused", "allowed"])
async def test_a_used_connection_that_ends_without_a_byte_is_replaced_where_that_is_allowed(
    again: Asked | None,
) -> None:
    pool, dialer = pool_of()
    (old,) = await used(pool, 1)
    task, connection = await asked(pool, dialer, again=again)
    assert connection is old
    old.connection_lost(None)
    for _ in range(3):
        await asyncio.sleep(0)
    assert again is None or again.times == 1
    if again is not None and again.says:
        receive(dialer.made[1], SIZED)
        assert await task is dialer.made[1]
    else:
        with pytest.raises(Unanswered):
            await task
        assert pool.statistics() == NOTHING


@pytest.mark.parametrize(
    ("late", "sent"), [(0.0, 2), (REPEAT_WITHIN, 2), (REPEAT_WITHIN + 0.001, 1), (3.0, 1)]
)
async def test_a_request_is_repeated_only_if_the_connection_ends_soon_after_the_send(
    late: float, sent: int
) -> None:
    pool, dialer = pool_of()
    (old,) = await used(pool, 1)
    now, again = [0.0], Asked()
    pool.time = lambda: now[0]
    task, _ = await asked(pool, dialer, again=again)
    now[0] += late
    old.connection_lost(None)
    for _ in range(3):
        await asyncio.sleep(0)
    assert (len(dialer.made), again.times) == (sent, sent - 1)
    if sent == 2:
        receive(dialer.made[1], SIZED)
        await task
    else:
        with pytest.raises(Unanswered):
            await task
        assert pool.statistics() == NOTHING


async def test_a_request_is_not_repeated_after_a_byte_of_an_answer_or_an_interim_answer() -> None:
    for come in (b"H", b"HTTP/1.1 100 Continue\r\n\r\n"):
        pool, dialer = pool_of()
        (old,) = await used(pool, 1)
        again = Asked()
        task, _ = await asked(pool, dialer, again=again)
        receive(old, come)
        old.connection_lost(None)
        with pytest.raises(Cut):
            await task
        assert (again.times, len(dialer.made)) == (0, 1)


async def test_a_request_is_repeated_no_more_than_once() -> None:
    pool, dialer = pool_of()
    await used(pool, 1)
    task, first = await asked(pool, dialer, again=Asked())
    first.connection_lost(None)
    for _ in range(3):
        await asyncio.sleep(0)
    dialer.made[1].connection_lost(None)
    with pytest.raises(Unanswered):
        await task
    assert len(dialer.made) == 2
    assert pool.statistics() == NOTHING


async def test_the_limit_ends_the_waiting_for_a_connection_for_a_place_and_for_the_answer() -> None:
    pool, dialer = pool_of(most=1)
    loop = asyncio.get_running_loop()
    dialer.gate.clear()
    with pytest.raises(TimeoutError):
        await call(pool, until=loop.time() + 0.01)
    dialer.gate.set()
    task, _ = await asked(pool, dialer, until=loop.time() + 0.05)
    with pytest.raises(TimeoutError):
        await call(pool, until=loop.time() + 0.01)
    with pytest.raises(PoolFull):
        await call(pool, place=0.01)
    with pytest.raises(Overdue):
        await task
    assert pool.statistics() == NOTHING


async def test_a_large_body_waits_while_the_server_does_not_read_and_no_longer_than_the_limit() -> None:
    pool, dialer = pool_of()
    loop = asyncio.get_running_loop()
    body = b"x" * 1_000_000
    waiting = wait_answer(pool, b"head", body, connect=1, place=1, again=None, until=loop.time() + 0.03)
    task = loop.create_task(waiting)
    await asyncio.sleep(0)
    dialer.made[0].pause_writing()
    with pytest.raises(Overdue):
        await task
    assert pool.statistics() == NOTHING


@pytest.mark.parametrize("steps", range(6))
async def test_whoever_is_cancelled_leaves_nothing(steps: int) -> None:
    pool, dialer = pool_of(most=1)
    task = call(pool, until=asyncio.get_running_loop().time() + 60)
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pool.statistics() == NOTHING
    assert all(connection.closed and connection._timer is None for connection in dialer.made)
