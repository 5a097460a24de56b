"""Exchanges straight over a connection: when it is given back, when it is closed, what errors become."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Callable

import httpx
import pytest

from gateway.errors import (
    ConnectFailed,
    FirstTokenTimeout,
    GatewayError,
    OutOfDescriptors,
    StallTimeout,
    TotalTimeout,
    UpstreamBusy,
    UpstreamGarbled,
    UpstreamReset,
    UpstreamTruncated,
)
from gateway.scheduling.deadlines import DeadlineLimits, Deadlines
from gateway.upstream.connection import HEARD, HIGH_WATER, REFUSED, BackendConnection, Taken
from gateway.upstream.exchange import Exchange
from gateway.upstream.pool import ConnectionPool, PoolStatistics
from gateway.upstream.request_head import RequestRoute
from tests.unit.upstream.test_connection import CHUNKED, OK, SIZED, receive
from tests.unit.upstream.test_pool import Imagined, pool_of

NOTHING = PoolStatistics(open=0, idle=0, waiting=0)
ROUTE = RequestRoute(httpx.Request("POST", "http://h/x"))


def always() -> bool:
    return True


def exchange_over(
    pool: ConnectionPool,
    *,
    whole: bool = False,
    lasting: bool = False,
    connect: float = 1,
    first_token: float = 10,
    between: float = 10,
    total: float = 10,
) -> Exchange:
    deadlines = Deadlines(
        DeadlineLimits(connect, first_token, between, total), time.monotonic(), streams=not whole
    )
    return Exchange(pool, ROUTE, b"{}", deadlines, time.monotonic, again=always, whole=whole, lasting=lasting)


async def begun(exchange: Exchange, dialer: Imagined, data: bytes) -> BackendConnection:
    """Begin the exchange with an answer that starts with `data`."""
    async with asyncio.TaskGroup() as group:
        group.create_task(exchange.begin())
        for _ in range(3):
            await asyncio.sleep(0)
        receive(dialer.made[-1], data)
    return dialer.made[-1]


def over(exchange: Exchange) -> bool:
    return exchange.ended


async def test_an_answer_that_came_with_its_head_frees_the_connection_before_it_is_read() -> None:
    pool, dialer = pool_of()
    exchange = exchange_over(pool)
    await begun(exchange, dialer, SIZED)
    assert pool.statistics() == PoolStatistics(open=1, idle=1, waiting=0)
    assert not over(exchange)
    assert await exchange.read(begun=False) == b"hello"
    assert over(exchange)
    assert await exchange.read(begun=False) == b""
    await exchange.aclose()
    assert pool.statistics() == PoolStatistics(open=1, idle=1, waiting=0)


async def test_pieces_are_given_as_they_come_and_the_last_one_frees_the_connection() -> None:
    pool, dialer = pool_of()
    exchange = exchange_over(pool)
    connection = await begun(exchange, dialer, CHUNKED[:52])
    assert await exchange.read(begun=False) == b"he"
    reading = asyncio.get_running_loop().create_task(exchange.read(begun=True))
    await asyncio.sleep(0)
    receive(connection, CHUNKED[52:-9])
    assert await reading == b"llo world"
    assert not over(exchange)
    receive(connection, CHUNKED[-9:])
    assert await exchange.read(begun=True) == b""
    assert over(exchange)
    assert connection.reusable()
    assert pool.statistics() == PoolStatistics(open=1, idle=1, waiting=0)


async def test_a_body_left_before_its_end_closes_the_connection_once() -> None:
    pool, dialer = pool_of()
    exchange = exchange_over(pool)
    await begun(exchange, dialer, SIZED[:-1])
    for _ in range(2):
        await exchange.aclose()
        assert pool.statistics() == NOTHING
    assert await exchange.read(begun=True) == b""


async def test_what_came_before_a_cut_is_given_before_the_error() -> None:
    pool, dialer = pool_of()
    exchange = exchange_over(pool)
    connection = await begun(exchange, dialer, SIZED[:-1])
    connection.connection_lost(None)
    assert await exchange.read(begun=True) == b"hell"
    with pytest.raises(UpstreamTruncated):
        await exchange.read(begun=True)
    assert pool.statistics() == NOTHING


async def test_a_whole_answer_larger_than_the_mark_is_read_to_its_end() -> None:
    pool, dialer = pool_of()
    exchange = exchange_over(pool, whole=True)
    size = 3 * HIGH_WATER
    head = OK + b"Content-Length: %d\r\n\r\n" % size
    connection = await begun(exchange, dialer, head + b"x" * HIGH_WATER)
    got = await exchange.read(begun=False)
    while not exchange.ended:
        reading = asyncio.get_running_loop().create_task(exchange.read(begun=False))
        await asyncio.sleep(0)
        receive(connection, b"x" * min(HIGH_WATER, size - len(got)))
        got += await reading
    assert got == b"x" * size
    assert pool.statistics() == PoolStatistics(open=1, idle=1, waiting=0)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        pytest.param(
            b"HTTP/1.1 503 No\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", UpstreamBusy, id="whole"
        ),
        pytest.param(b"HTTP/1.1 503 No\r\nRetry-After: 7\r\n\r\nno", UpstreamBusy, id="until-close"),
        pytest.param(OK + b"Content-Encoding: br\r\nContent-Length: 1\r\n\r\nx", UpstreamGarbled, id="coded"),
        pytest.param(b"nonsense", UpstreamGarbled, id="nonsense"),
        pytest.param(b"HTTP/1.1 200", UpstreamReset, id="half-a-head"),
    ],
)
async def test_no_good_answer_is_an_error_and_leaves_nothing_busy(
    data: bytes, kind: type[GatewayError]
) -> None:
    pool, dialer = pool_of()
    beginning = asyncio.get_running_loop().create_task(exchange_over(pool).begin())
    for _ in range(3):
        await asyncio.sleep(0)
    receive(dialer.made[0], data)
    await asyncio.sleep(0)
    dialer.made[0].connection_lost(None)
    with pytest.raises(kind) as raised:
        await beginning
    assert raised.value.retry_after == (7 if kind is UpstreamBusy else None)
    assert pool.statistics() == NOTHING


@pytest.mark.parametrize(
    ("data", "seen", "limits", "kind"),
    [
        pytest.param(b"", False, {"first_token": 0.03}, FirstTokenTimeout, id="no-head"),
        pytest.param(SIZED[:-5], False, {"first_token": 0.03}, FirstTokenTimeout, id="no-content"),
        pytest.param(SIZED[:-4], True, {"between": 0.03}, StallTimeout, id="a-pause"),
        pytest.param(SIZED[:-4], True, {"total": 0.03}, TotalTimeout, id="total"),
    ],
)
async def test_silence_ends_at_its_limit(
    data: bytes, seen: bool, limits: dict[str, float], kind: type[GatewayError]
) -> None:
    pool, dialer = pool_of()
    exchange = exchange_over(pool, **limits)  # type: ignore[arg-type]  # mypy takes `whole` for a limit
    started = time.monotonic()
    if data:
        await begun(exchange, dialer, data)
    if seen:
        assert await exchange.read(begun=False) == b"h"
    with pytest.raises(kind) as raised:
        await (exchange.read(begun=seen) if data else exchange.begin())
    assert time.monotonic() - started >= 0.028
    assert raised.value.__suppress_context__
    assert pool.statistics() == NOTHING


@pytest.mark.parametrize(
    ("limits", "kind"),
    [
        pytest.param({"connect": 0.02}, ConnectFailed, id="connect"),
        pytest.param({"first_token": 0.02}, FirstTokenTimeout, id="first-token"),
        pytest.param({"total": 0.02}, TotalTimeout, id="total"),
    ],
)
@pytest.mark.parametrize("full", [False, True], ids=["connecting", "all-in-use"])
async def test_waiting_for_a_connection_ends_at_whichever_limit_comes_first(
    limits: dict[str, float], kind: type[GatewayError], full: bool
) -> None:
    pool, dialer = pool_of(most=1)
    if full:
        await begun(exchange_over(pool), dialer, SIZED[:-1])
    else:
        hold(dialer)
    before = pool.statistics()
    with pytest.raises(kind):
        await exchange_over(pool, **limits).begin()  # type: ignore[arg-type]  # as above
    assert pool.statistics() == before


def hold(dialer: Imagined) -> None:
    """Make the dialer open nothing, and give up after the seconds it is given."""

    async def never(lost: Callable[[BackendConnection], None], seconds: float | None) -> BackendConnection:
        async with asyncio.timeout(seconds):
            await asyncio.Event().wait()
        raise AssertionError("unreachable")

    dialer.wait_connection = never  # type: ignore[method-assign]


@pytest.mark.parametrize("steps", range(5))
async def test_whoever_is_cancelled_and_leaves_keeps_nothing_busy(steps: int) -> None:
    pool, dialer = pool_of()
    exchange = exchange_over(pool)

    async def use() -> None:
        try:
            await exchange.begin()
            await exchange.read(begun=True)
            await exchange.read(begun=True)
        finally:
            await exchange.aclose()

    task = asyncio.get_running_loop().create_task(use())
    for step in range(steps):
        await asyncio.sleep(0)
        if step == 2:
            receive(dialer.made[0], SIZED[:-1])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pool.statistics() == NOTHING
    assert all(connection.closed and connection._timer is None for connection in dialer.made)


# --- answers that are awaited although nobody wants them --------------------------------------------


def working(exchange: Exchange) -> bool:
    return exchange.underway


async def left(exchange: Exchange, turns: int = 3) -> None:
    """Ask for the whole answer, and leave after so many turns of the loop."""
    task = asyncio.get_running_loop().create_task(exchange.wait_whole())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_request_that_has_left_is_underway_when_its_client_leaves() -> None:
    pool, dialer = pool_of()
    exchange = exchange_over(pool, whole=True, lasting=True)
    await left(exchange)
    assert working(exchange)
    rest = asyncio.get_running_loop().create_task(exchange.outlast())
    await asyncio.sleep(0)
    (connection,) = dialer.made
    receive(connection, SIZED[:-2])
    await asyncio.sleep(0)
    assert working(exchange)
    receive(connection, SIZED[-2:])
    await rest
    assert not working(exchange)
    assert pool.statistics() == PoolStatistics(open=1, idle=1, waiting=0)


async def test_a_request_that_does_not_last_is_left_with_its_client() -> None:
    pool, dialer = pool_of()
    exchange = exchange_over(pool, whole=True)
    await left(exchange)
    assert not working(exchange)
    assert dialer.made[0].closed
    assert pool.statistics() == NOTHING


async def test_an_answer_that_takes_too_long_is_still_underway_where_it_lasts() -> None:
    pool, dialer = pool_of()
    exchange = exchange_over(pool, whole=True, lasting=True, total=0.03)
    with pytest.raises(TotalTimeout):
        await exchange.wait_whole()
    assert working(exchange)
    rest = asyncio.get_running_loop().create_task(exchange.outlast())
    await asyncio.sleep(0)
    receive(dialer.made[0], SIZED)
    await rest
    assert pool.statistics() == PoolStatistics(open=1, idle=1, waiting=0)


async def test_what_has_not_left_when_its_time_is_over_does_not_last() -> None:
    pool, dialer = pool_of()
    exchange = exchange_over(pool, whole=True, lasting=True, total=0.03)
    waiting = asyncio.ensure_future(exchange.wait_whole())
    for _ in range(3):
        await asyncio.sleep(0)
    (connection,) = dialer.made
    connection._turn = connection._write_batcher.turn  # as if the write were still held
    with pytest.raises(TotalTimeout):
        await waiting
    assert not exchange.underway
    assert pool.statistics() == NOTHING


async def test_nobody_waits_for_ever_for_what_lasts() -> None:
    pool, _ = pool_of()
    exchange = exchange_over(pool, whole=True, lasting=True, total=0.03)
    started = time.monotonic()
    with pytest.raises(TotalTimeout):
        await exchange.wait_whole()
    await exchange.outlast()
    assert time.monotonic() - started >= 0.058
    assert not working(exchange)
    assert pool.statistics() == NOTHING


async def test_what_is_left_of_an_answer_that_breaks_off_is_nothing() -> None:
    pool, dialer = pool_of()
    exchange = exchange_over(pool, whole=True, lasting=True)
    await left(exchange)
    rest = asyncio.get_running_loop().create_task(exchange.outlast())
    await asyncio.sleep(0)
    dialer.made[-1].connection_lost(ConnectionResetError())
    await rest
    assert not exchange.underway
    assert pool.statistics() == NOTHING


async def test_whoever_leaves_while_the_connection_is_opened_leaves_nothing_behind() -> None:
    pool, dialer = pool_of()
    dialer.gate.clear()
    exchange = exchange_over(pool, whole=True)
    await left(exchange)
    assert not exchange.underway
    await exchange.aclose()
    assert pool.statistics() == NOTHING


async def test_an_answer_that_failed_is_not_underway() -> None:
    pool, dialer = pool_of()
    exchange = exchange_over(pool, whole=True)
    task = asyncio.get_running_loop().create_task(exchange.wait_whole())
    for _ in range(3):
        await asyncio.sleep(0)
    dialer.made[-1].connection_lost(None)
    with pytest.raises(UpstreamReset):
        await task
    assert not exchange.underway
    assert pool.statistics() == NOTHING


CLOSING = CHUNKED.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)


@pytest.mark.parametrize(("answer", "last"), [(CLOSING, True), (CHUNKED, False)], ids=["closing", "kept"])
async def test_the_last_answer_of_a_connection_is_known_by_its_head(answer: bytes, last: bool) -> None:
    pool, dialer = pool_of()
    exchange = exchange_over(pool)
    await begun(exchange, dialer, answer[:-20])
    assert exchange.last is last
    await exchange.aclose()


async def test_the_next_request_has_its_connection_before_the_last_answer_has_ended() -> None:
    pool, dialer = pool_of()
    exchange = exchange_over(pool)
    old = await begun(exchange, dialer, CLOSING[:-20])
    exchange.prepare()
    for _ in range(3):
        await asyncio.sleep(0)
    assert not exchange.last
    assert pool.take() is dialer.made[1] is not old
    await exchange.aclose()


# --- pieces that go on by themselves -------------------------------------------------------------------


OPEN = OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n"


async def test_pieces_flow_until_one_is_refused_which_is_read() -> None:
    pool, dialer = pool_of()
    exchange = exchange_over(pool)
    connection = await begun(exchange, dialer, OPEN)
    assert await exchange.read(begun=False) == b"he"
    taken: list[bytes] = []

    def taker(piece: bytes) -> Taken:
        if piece == b"stop":
            return REFUSED
        taken.append(piece)
        return HEARD

    flow = asyncio.ensure_future(exchange.flow(taker))
    await asyncio.sleep(0)
    for piece in (b"llo", b"you", b"stop"):
        receive(connection, b"%x\r\n%b\r\n" % (len(piece), piece))
    await flow
    assert taken == [b"llo", b"you"]
    assert await exchange.read(begun=True) == b"stop"
    receive(connection, b"0\r\n\r\n")
    await exchange.flow(taker)
    assert await exchange.read(begun=True) == b""
    assert over(exchange)


def _never(piece: bytes) -> Taken:
    raise AssertionError(piece)


async def test_what_has_come_before_is_read_before_anything_flows() -> None:
    pool, dialer = pool_of()
    exchange = exchange_over(pool)
    await begun(exchange, dialer, OPEN)
    await exchange.flow(_never)
    assert await exchange.read(begun=False) == b"he"
    await exchange.aclose()
    await exchange.flow(_never)


async def test_a_flow_that_breaks_off_is_told_by_reading() -> None:
    pool, dialer = pool_of()
    exchange = exchange_over(pool)
    connection = await begun(exchange, dialer, OPEN)
    await exchange.read(begun=False)
    flow = asyncio.ensure_future(exchange.flow(lambda _: HEARD))
    await asyncio.sleep(0)
    connection.connection_lost(None)
    await flow
    with pytest.raises(UpstreamTruncated):
        await exchange.read(begun=True)
    assert pool.statistics() == NOTHING


@pytest.mark.parametrize(("between", "total", "error"), [(0.05, 10, StallTimeout), (10, 0.05, TotalTimeout)])
async def test_a_flow_that_pauses_for_too_long_is_told_by_reading(
    between: float, total: float, error: type[GatewayError]
) -> None:
    pool, dialer = pool_of()
    exchange = exchange_over(pool, between=between, total=total)
    connection = await begun(exchange, dialer, OPEN)
    await exchange.read(begun=False)
    flow = asyncio.ensure_future(exchange.flow(lambda _: HEARD))
    await asyncio.sleep(0)
    receive(connection, b"3\r\nllo\r\n")
    async with asyncio.timeout(30):
        await flow
        with pytest.raises(error):
            await exchange.read(begun=True)
    assert pool.statistics() == NOTHING


@pytest.mark.parametrize(
    "number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL]
)
async def test_what_our_own_system_lacks_is_no_fault_of_the_backend(number: int) -> None:
    pool, dialer = pool_of()
    dialer.fails = OSError(number, "none left")
    with pytest.raises(OutOfDescriptors) as caught:
        await exchange_over(pool).begin()
    row = caught.value.row
    assert (row.status, row.code, row.blames, row.retryable) == (503, "out_of_descriptors", False, True)
    assert caught.value.retry_after == 1
    assert pool.statistics() == NOTHING


@pytest.mark.parametrize("number", [errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH])
async def test_what_the_network_says_is_the_backends(number: int) -> None:
    pool, dialer = pool_of()
    dialer.fails = OSError(number, "nobody there")
    with pytest.raises(ConnectFailed):
        await exchange_over(pool).begin()
