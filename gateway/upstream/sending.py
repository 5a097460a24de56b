"""One request on its way to the head of its answer: over which connection, and when over another one."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterable, Callable
from typing import TypeAlias

from gateway.upstream.connection import ONE_WRITE, BackendConnection, Overdue, ReadyAt, Stale, Unanswered
from gateway.upstream.pool import ConnectionPool

REPEAT_WITHIN = 0.1
"""Seconds after the send within which a used connection may end and the request be sent once more.

A server that was just closing the connection ends it at once; one that ends it later may have worked."""

Again: TypeAlias = Callable[[], bool]
"""Is asked, and so told, before a request that was written is sent once more; true allows it."""


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
    """Send a request and wait for the head of its answer; gives the connection, which the caller returns.

    `connect` and `place`: seconds to open a connection and to wait for one in use. `again`: when a
    connection that had served before ends without a byte of an answer within `REPEAT_WITHIN` seconds of the
    send, and this allows it, the request is sent once more on a fresh connection; None never allows it.
    `until`, in the loop's time, ends all of it; `read`, in seconds, the waiting for the answer. `ready_at`,
    `lasting` and `without_body` as in `BackendConnection.start`; `chunked`: how a body that comes in pieces
    is sent. `sent` is told the connection over which the request has left: when this is cancelled after
    that, or takes too long for one that is `lasting`, the connection stays as it is, and whoever was told
    must discard it. Raises `ConnectionFault`, and `OSError` where no connection was to be had.
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
            if not (connection.ready and connection.status):  # seldom: one event has told all
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
