"""Sends one request and waits for the head of its response. Repeats it if that is safe."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterable, Callable
from typing import TypeAlias

from gateway.upstream.connection import ONE_WRITE, BackendConnection, Overdue, ReadyAt, Stale, Unanswered
from gateway.upstream.pool import ConnectionPool

REPEAT_WITHIN = 0.1
"""Seconds after the send within which the end of a reused connection allows a repeat of the request.

A server that was already closing the connection ends it at once. A server that ends the connection later may
have processed the request."""

Again: TypeAlias = Callable[[], bool]
"""Called before a request that was already written is sent a second time. Returns True to allow it."""


async def wait_answer(
    pool: ConnectionPool,
    head: bytes,
    body: bytes | AsyncIterable[bytes],
    *,
    connect: float | None,
    place: float | None,
    again: Again | None,
    until: float = math.inf,
    read: float | None = None,
    ready_at: ReadyAt = "head",
    lasting: bool = False,
    without_body: bool = False,
    chunked: bool = False,
    sent: Callable[[BackendConnection], None] | None = None,
) -> BackendConnection:
    """Send a request and wait for the head of its response.

    Args:
        connect: seconds to open a connection.
        place: seconds to wait for a connection that is in use.
        again: asked before a written request is repeated on a fresh connection. That is possible if a reused
            connection ends without a byte of a response within `REPEAT_WITHIN` seconds of the send. None
            forbids the repeat.
        until: the end of the whole exchange, in the event loop's time.
        read: seconds to wait for the response.
        ready_at, lasting, without_body: as in `BackendConnection.start`.
        chunked: send a body that comes in pieces with the chunked transfer coding.
        sent: called with the connection on which the request was sent. If this function is cancelled after
            that call, or a `lasting` request is overdue, the connection stays open and the callee must
            discard it.

    Returns the connection, which the caller must give back to the pool. Raises `ConnectionFault`, or
    `OSError` if no connection could be opened.
    """
    connection = pool.take()
    fresh = told = False
    while True:
        if connection is None:
            connection = await pool.wait_connection(place=place, connect=connect, until=until, fresh=fresh)
        served = connection.served
        began = pool.time() if served else 0.0
        try:
            if isinstance(body, bytes):
                connection.start(head, body, without_body=without_body, ready_at=ready_at, lasting=lasting)
                connection.limit(until)
                if len(body) > ONE_WRITE:
                    await connection.wait_rest(body)
            else:
                connection.start(head, without_body=without_body, ready_at=ready_at)
                connection.limit(until)
                await connection.wait_sent(body, chunked=chunked)
            if read is not None:
                connection.limit(pool.time() + read)
            if sent is not None:
                sent(connection)
                told = True
            if not connection.ready:
                await connection.next_event()
            if not (connection.ready and connection.status):  # rare: the head came in parts
                await connection.wait_head()
            return connection
        except (Stale, Unanswered) as fault:
            pool.discard(connection)
            written = isinstance(fault, Unanswered)
            if not served:
                raise
            if written and (again is None or pool.time() - began > REPEAT_WITHIN or not again()):
                raise
            fresh = fresh or written
            connection = None if fresh else pool.take()
            told = False
        except BaseException as error:
            stays = isinstance(error, asyncio.CancelledError) or (lasting and isinstance(error, Overdue))
            if not (told and stays):
                pool.discard(connection)
            raise
