"""Connections whose socket the event loop has not taken yet."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from gateway.upstream.connection import ONE_WRITE, BackendConnection, Stale, Unanswered
from tests.unit.upstream.test_connection import Notes

HEAD = b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        theirs.settimeout(10)
        yield ours, theirs


class Opening:
    """A connection over a real socket; `take` plays the event loop that takes it, `fail` one that cannot."""

    def __init__(self, sock: socket.socket) -> None:
        self.lost: list[BackendConnection] = []
        self.notes = Notes()
        self.connection = BackendConnection(self.lost.append, sock)
        self._taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.connection.attach(self._wait())

    async def _wait(self) -> None:
        await self._taken
        self.connection.connection_made(self.notes)

    async def take(self) -> None:
        self._taken.set_result(None)
        await self._settle()

    async def fail(self, error: Exception) -> None:
        self._taken.set_exception(error)
        await self._settle()

    async def _settle(self) -> None:
        attaching = self.connection._attaching
        assert attaching is not None
        await asyncio.wait({attaching})
        await asyncio.sleep(0)


async def test_a_request_leaves_before_the_event_loop_has_the_socket(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    opening = Opening(pair[0])
    opening.connection.start(HEAD, b"{}")
    assert pair[1].recv(1000) == HEAD + b"{}"
    assert not opening.connection.unsent
    await opening.take()
    assert opening.notes.written == []
    opening.connection.abort()
    assert opening.notes.aborted


async def test_what_the_socket_does_not_take_follows_when_the_event_loop_has_it(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    opening, body = Opening(pair[0]), bytes(range(256)) * 1000
    connection = opening.connection
    connection.start(HEAD, body)
    rest = asyncio.get_running_loop().create_task(connection.wait_rest(body))
    await asyncio.sleep(0)
    assert not rest.done()  # more of the body waits until there is somebody to take it
    await opening.take()
    await rest
    early = pair[1].recv(1_000_000)
    assert 0 < len(early) < ONE_WRITE
    assert early + b"".join(opening.notes.written) == HEAD + body
    connection.abort()


async def test_a_body_in_pieces_keeps_its_order(pair: tuple[socket.socket, socket.socket]) -> None:
    opening = Opening(pair[0])
    opening.connection.start(HEAD)
    opening.connection._write(b"first")
    await opening.take()
    opening.connection._write(b"second")
    assert pair[1].recv(1000) == HEAD + b"first"
    assert opening.notes.written == [b"second"]
    opening.connection.abort()


async def test_one_given_up_is_closed_when_the_event_loop_has_it(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    opening = Opening(pair[0])
    opening.connection.start(HEAD, b"{}")
    opening.connection.abort()
    assert not opening.notes.aborted
    with pytest.raises(Stale):
        opening.connection.start(HEAD, b"{}")
    await opening.take()
    assert opening.notes.aborted


async def test_a_socket_that_ends_meanwhile_leaves_the_request_unanswered(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    opening = Opening(pair[0])
    pair[1].close()
    opening.connection.start(HEAD, b"{}")
    await opening.take()
    assert opening.notes.written == [HEAD + b"{}"]  # the event loop shall find out why
    opening.connection.connection_lost(BrokenPipeError())
    with pytest.raises(Unanswered):
        await opening.connection.wait_head()


async def test_an_event_loop_that_does_not_take_it_ends_the_request(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    opening = Opening(pair[0])
    opening.connection.start(HEAD, b"{}")
    await opening.fail(OSError("no more files"))
    with pytest.raises(Unanswered):
        await opening.connection.wait_head()
    assert opening.lost == [opening.connection]


async def test_at_the_end_of_the_event_loop_nobody_waits_on(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    opening = Opening(pair[0])
    opening.connection.start(HEAD, b"{}")
    attaching = opening.connection._attaching
    assert attaching is not None
    attaching.cancel()
    with pytest.raises(Unanswered):
        await opening.connection.wait_head()
    assert opening.lost == [opening.connection]
