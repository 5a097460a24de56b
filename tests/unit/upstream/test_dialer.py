"""What can be said of the dialer without a network; the rest is in tests/contract/test_transport_lives.py."""

from __future__ import annotations

import ssl

import pytest

from gateway.upstream.connection import Connection
from gateway.upstream.dialer import Dialer, HandshakeTimeout, Origin


def never() -> ssl.SSLContext:
    raise AssertionError("a context that nobody needs was made")


def ignore(connection: Connection) -> None:
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
