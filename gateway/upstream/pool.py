"""The pool of connections to one server: limited in number, last-in first-out, with an idle time-out."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from gateway.upstream.connection import BackendConnection
from gateway.upstream.dialer import Connector

PEEK_AFTER = 0.025
"""Idle seconds after which the socket is checked before a connection is reused. A busy event loop may not
have processed the server's close yet."""

OLDEST = 60.0
"""The maximum age of a reused connection in seconds. New connections use the current address of the name."""


class PoolFull(TimeoutError):
    """No connection became free in time."""


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """The number of open (or opening) connections, idle connections, and waiting requests of a pool."""

    open: int
    idle: int
    waiting: int


class ConnectionPool:
    """The connections to one server. Belongs to one event loop.

    A place is the right to one open connection. It is taken before connecting, and given back when the
    connection is discarded or lost, whichever is first. A returned connection goes to a waiting request
    before it becomes idle. `deserted` is called when the server closes an idle connection, which is a sign
    that the server may be stopping.
    """

    def __init__(
        self, dialer: Connector, *, most: int, keepalive: float, deserted: Callable[[], None] | None = None
    ) -> None:
        self._dialer = dialer
        self._deserted = deserted
        self._most = most
        self._keepalive = keepalive
        self._open = 0
        self._idle: list[BackendConnection] = []  # in the order in which they became idle
        self._waiting: deque[asyncio.Future[BackendConnection | None]] = deque()
        self._sweep: asyncio.TimerHandle | None = None
        self._preparing: asyncio.Task[None] | None = None
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self.time = self._loop.time

    # --- getting -----------------------------------------------------------------------------------

    def take(self) -> BackendConnection | None:
        """Return the most recently used idle connection that is still open, or None. Discard expired ones."""
        while self._idle:
            connection = self._idle.pop()
            now = self._loop.time()
            idle = now - connection.idle_since
            if now - connection.opened < OLDEST:
                if idle < PEEK_AFTER and not connection.closed:
                    return connection
                if idle < self._keepalive and connection.quiet():
                    return connection
            self.discard(connection)
        return None

    async def wait_connection(
        self, *, place: float | None, connect: float | None, until: float = math.inf, fresh: bool = False
    ) -> BackendConnection:
        """Return a connection: one handed over by another request, or a new one.

        Args:
            place: seconds to wait for a place.
            connect: seconds to open a connection.
            until: the end of both waits, in the event loop's time.
            fresh: return only a connection that has served no request.

        Raises `PoolFull`, and what the dialer raises.
        """
        if self._open < self._most:
            self._open += 1
        elif (connection := await self._wait_place(self._within(place, until), fresh=fresh)) is not None:
            return connection
        return await self._wait_dialed(self._within(connect, until))

    async def _wait_dialed(self, seconds: float | None) -> BackendConnection:
        """Open a connection for a place that is already taken."""
        try:
            connection = await self._dialer.wait_connection(self._lose, seconds)
        except BaseException:
            self._give_place_back()
            raise
        connection.counted = True
        connection.opened = self._loop.time()
        return connection

    def prepare(self) -> None:
        """Start to open a connection for a coming request, unless one is idle or no place is free.

        An `OSError` is ignored: the request that needs a connection opens its own and gets its own error.
        """
        if self._preparing is None and not (self._closed or self._idle or self._open >= self._most):
            self._preparing = self._loop.create_task(self._prepare())

    async def _prepare(self) -> None:
        self._open += 1
        try:
            connection = await self._wait_dialed(self._keepalive)  # a request that comes later opens its own
        except OSError:
            return
        finally:
            self._preparing = None
        if self._closed:
            self.discard(connection)
        else:
            self._keep(connection)

    def _within(self, seconds: float | None, until: float) -> float | None:
        if until == math.inf:
            return seconds
        left = until - self._loop.time()
        return left if seconds is None or left < seconds else seconds

    async def _wait_place(self, seconds: float | None, *, fresh: bool) -> BackendConnection | None:
        """Wait for a connection that another request returns, or for a place (None), which is then taken."""
        if fresh and self._open >= self._most and self._idle:
            self.discard(self._idle.pop(0))
        until = None if seconds is None else self._loop.time() + seconds
        while self._open >= self._most:
            connection = await self._wait_turn(until)
            if connection is None or not (fresh or connection.closed):
                return connection
            if connection.counted:  # the connection cannot be used, but its place can
                connection.counted = False
                connection.abort()
                return None
        self._open += 1
        return None

    async def _wait_turn(self, until: float | None) -> BackendConnection | None:
        waiter: asyncio.Future[BackendConnection | None] = self._loop.create_future()
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout_at(until):
                return await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled():
                self._return(waiter.result())
            else:
                with contextlib.suppress(ValueError):  # already removed from the queue
                    self._waiting.remove(waiter)
            if isinstance(error, TimeoutError):
                raise PoolFull("No connection became free in time.") from None
            raise

    def _return(self, turn: BackendConnection | None) -> None:
        if turn is None:
            self._give_place_back()
        else:
            self.give_back(turn)

    # --- giving back -------------------------------------------------------------------------------

    def give_back(self, connection: BackendConnection) -> None:
        """Return a connection to the pool after its request. Close it if it cannot be reused."""
        if self._closed or not connection.reusable():
            self.discard(connection)
        else:
            self._keep(connection)

    def _keep(self, connection: BackendConnection) -> None:
        if self._waiting and self._hand_over(connection):
            return
        connection.idle_since = self._loop.time()
        self._idle.append(connection)
        if self._sweep is None:
            self._sweep = self._loop.call_later(self._keepalive, self._drop_old)

    def discard(self, connection: BackendConnection) -> None:
        """Close a connection and give its place back. Calling it again has no effect."""
        connection.abort()
        if connection.counted:
            connection.counted = False
            self._give_place_back()

    def _lose(self, connection: BackendConnection) -> None:
        if self._deserted is not None and connection in self._idle:
            self._deserted()
        self.discard(connection)

    def _give_place_back(self) -> None:
        if not self._hand_over(None):
            self._open -= 1

    def _hand_over(self, turn: BackendConnection | None) -> bool:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(turn)
                return True
        return False

    def _drop_old(self) -> None:
        oldest_kept = self._loop.time() - self._keepalive
        kept: list[BackendConnection] = []
        for connection in self._idle:
            if connection.idle_since > oldest_kept and not connection.closed:
                kept.append(connection)
            else:
                self.discard(connection)
        self._idle = kept
        self._sweep = None
        if kept:
            delay = max(0.001, kept[0].idle_since - oldest_kept)
            self._sweep = self._loop.call_later(delay, self._drop_old)

    def close(self) -> None:
        """Close idle connections now, and every other connection when its request ends."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        if self._preparing is not None:
            self._preparing.cancel()
        while self._idle:
            self.discard(self._idle.pop())

    def statistics(self) -> PoolStatistics:
        """Return the state of the pool. Closed connections that are not yet removed do not count as idle."""
        idle = sum(not connection.closed for connection in self._idle)
        return PoolStatistics(self._open, idle, len(self._waiting))

    def __repr__(self) -> str:
        state = self.statistics()
        return f"<Pool {state.open} open of {self._most}, {state.idle} idle, {state.waiting} waiting>"
