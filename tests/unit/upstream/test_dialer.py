"""What can be said of the dialer without a network; the rest is in tests/contract/test_transport_lives.py."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl

import pytest

from gateway.upstream.connection import BackendConnection
from gateway.upstream.dialer import Dialer, HandshakeTimeout, Origin, _told_apart
from gateway.upstream.resolver import Address, Resolver


def never() -> ssl.SSLContext:
    raise AssertionError("a context that nobody needs was made")


def ignore(connection: BackendConnection) -> None:
    raise AssertionError(f"{connection} was never opened")


async def test_no_tls_context_is_made_before_the_server_is_reached() -> None:
    for scheme in ("http", "https"):
        dialer = Dialer(Origin(scheme, "h", 1), never, uds="/nowhere/socket")
        with pytest.raises(OSError, match="No such file"):
            await dialer.wait_connection(ignore, 1)


async def test_a_name_without_addresses_is_an_error() -> None:
    dialer = Dialer(Origin("http", "h", 1), never)
    with pytest.raises(OSError, match="no address"):
        await dialer._wait_socket([], None)


def test_a_handshake_that_hangs_counts_as_a_failure_of_tls() -> None:
    assert issubclass(HandshakeTimeout, ssl.SSLError)


async def test_the_address_that_answered_last_comes_first() -> None:
    dialer = Dialer(Origin("http", "gpu.test", 1), never)
    three = [(2, (f"192.0.2.{number}", 1)) for number in range(3)]
    dialer._resolver = Resolver(
        "gpu.test", 1, lambda *_, **__: [(*one[:1], 1, 6, "", one[1]) for one in three]
    )
    assert await dialer._wait_addresses(1) == three
    dialer._good = three[1]
    assert await dialer._wait_addresses(1) == [three[1], three[0], three[2]]
    dialer._good = (2, ("192.0.2.9", 1))
    assert await dialer._wait_addresses(1) == three


async def test_a_server_that_has_moved_is_found_at_its_new_address() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        old = unused.getsockname()[1]
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as server:
        ports = [old, server.sockets[0].getsockname()[1]]
        dialer = Dialer(Origin("http", "gpu.test", 1), never)
        dialer._resolver = Resolver(
            "gpu.test", 1, lambda *_, **__: [(socket.AF_INET, 1, 6, "", ("127.0.0.1", ports.pop(0)))]
        )
        with pytest.raises(ConnectionRefusedError):
            await dialer.wait_connection(ignore, 1)
        connection = await dialer.wait_connection(lambda _: None, 1)
        connection.abort()


async def test_an_address_that_this_system_cannot_reach_is_not_taken_for_ports_in_use() -> None:
    dialer = Dialer(Origin("http", "h", 1), never)
    error = OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
    here = _told_apart(error, (socket.AF_INET, ("127.0.0.1", 1)))
    nowhere = _told_apart(error, (socket.AF_INET6, ("127.0.0.1", 1)))
    assert here is error
    assert nowhere.errno == errno.EHOSTUNREACH
    refused = OSError(errno.ECONNREFUSED, "Connection refused")
    assert _told_apart(refused, (socket.AF_INET6, ("127.0.0.1", 1))) is refused
    assert dialer._good is None


async def test_a_lookup_that_fails_for_want_of_descriptors_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    async def fails(seconds: float | None) -> list[Address]:
        raise socket.gaierror(socket.EAI_SYSTEM, "System error")

    dialer = Dialer(Origin("http", "h", 1), never)
    monkeypatch.setattr(dialer._resolver, "wait_addresses", fails)
    with pytest.raises(socket.gaierror):
        await dialer._wait_addresses(1)
    monkeypatch.setattr(socket, "socket", none_left)
    with pytest.raises(OSError, match="Too many open files"):
        await dialer._wait_addresses(1)
