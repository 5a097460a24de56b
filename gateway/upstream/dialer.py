"""Opens connections to one server: name lookup, TCP connect and TLS handshake, within one time-out."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from gateway.upstream import socket_options
from gateway.upstream.connection import BackendConnection, make_buffer
from gateway.upstream.resolver import Address, Resolver
from gateway.write_batcher import WriteBatcher

_UNDER_WAY = frozenset({errno.EINPROGRESS, errno.EALREADY, errno.EINTR})
_CONNECTED = frozenset({0, errno.EISCONN})


class Origin(NamedTuple):
    """Scheme, host and port of a server. `host` has no brackets; `port` is always set."""

    scheme: str
    host: str
    port: int


class HandshakeTimeout(ssl.SSLError):
    """The server accepted the connection but did not finish the TLS handshake in time."""


class Connector(Protocol):
    """Opens connections to one origin."""

    async def wait_connection(
        self, lost: Callable[[BackendConnection], None], seconds: float | None, /
    ) -> BackendConnection:
        """Open a connection within `seconds`; `lost` is called when the connection has ended."""


class Dialer:
    """Opens connections to one origin. A name is looked up again for new connections; see `Resolver`.

    If the name has several addresses, the last one that accepted a connection is tried first. An unreachable
    address therefore costs its time-out only once.
    `context` makes the TLS context when it is first needed; `uds` is the path of a Unix socket to use
    instead of the network, `addresses` are where the server is, if the name is not to be looked up.
    `receive_buffer`: size of the socket receive buffer in bytes; 0 keeps the default of the system.
    """

    def __init__(
        self,
        origin: Origin,
        context: Callable[[], ssl.SSLContext],
        uds: str | None = None,
        addresses: Sequence[str] = (),
        receive_buffer: int = 0,
    ) -> None:
        self._origin = origin
        self._context = context
        self._uds = uds
        self._receive_buffer = receive_buffer
        self._resolver = Resolver(origin.host, origin.port, fixed=addresses)
        self._good: Address | None = None
        self._buffer = make_buffer()
        self._write_batcher = WriteBatcher()

    async def wait_connection(
        self, lost: Callable[[BackendConnection], None], seconds: float | None
    ) -> BackendConnection:
        """Open a connection within `seconds`. Without TLS, it is usable before the event loop has the socket.

        Raises `TimeoutError`, `HandshakeTimeout`, `OSError` or `ssl.SSLError`.
        """
        loop = asyncio.get_running_loop()
        until = None if seconds is None else loop.time() + seconds
        sock = await self._wait_socket(await self._wait_addresses(seconds), until)
        connection = BackendConnection(lost, sock, loop, self._buffer, self._write_batcher)
        if self._origin.scheme != "https":
            connection.attach(self._attached(connection, sock, None))
            return connection
        try:
            async with asyncio.timeout_at(until):
                await self._attached(connection, sock, self._context())
        except TimeoutError:
            raise HandshakeTimeout("the handshake took too long") from None
        except ConnectionError as error:
            raise ssl.SSLError("the server ended the handshake") from error
        return connection

    async def _wait_addresses(self, seconds: float | None) -> list[Address]:
        if self._uds is not None:
            return [(socket.AF_UNIX, self._uds)]
        try:
            found = await self._resolver.wait_addresses(seconds)
        except socket.gaierror:
            socket.socket().close()  # raises EMFILE if no descriptor is left, which gaierror hides
            raise
        if self._good in found[1:]:
            return sorted(found, key=lambda address: address != self._good)  # the others keep their order
        return found

    async def _wait_socket(self, addresses: list[Address], until: float | None) -> socket.socket:
        """Connect to the first address that accepts. Each gets an equal share of the remaining time."""
        loop = asyncio.get_running_loop()
        failed: OSError = OSError("The name has no address.")
        for index, address in enumerate(addresses):
            share = None if until is None else (until - loop.time()) / (len(addresses) - index)
            try:
                sock = await _wait_open(address, share, self._receive_buffer)
            except OSError as error:  # TimeoutError is one
                failed = _told_apart(error, address)
                continue
            self._good = address
            return sock
        self._resolver.doubt()
        try:
            raise failed
        finally:
            del failed  # its traceback refers to this frame

    async def _attached(
        self, connection: BackendConnection, sock: socket.socket, context: ssl.SSLContext | None
    ) -> None:
        """Give the socket to the event loop, which then calls the connection as its protocol."""
        loop = asyncio.get_running_loop()
        name = self._origin.host if context is not None else None
        connect = loop.create_connection if self._uds is None else loop.create_unix_connection
        try:
            await connect(lambda: connection, sock=sock, ssl=context, server_hostname=name)
        except BaseException:
            connection.abort()
            raise


def _told_apart(error: OSError, address: Address) -> OSError:
    """Return the error, or EHOSTUNREACH if this system cannot reach the address at all.

    The system reports EADDRNOTAVAIL for both an unreachable address and exhausted local ports. Connecting a
    UDP socket, which has its own ports and sends nothing, distinguishes the two cases.
    """
    if error.errno == errno.EADDRNOTAVAIL:
        family, where = address
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.connect(where)
        except OSError:
            return OSError(errno.EHOSTUNREACH, "The address cannot be reached from here.")
    return error


async def _wait_open(address: Address, seconds: float | None, receive_buffer: int = 0) -> socket.socket:
    family, where = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if receive_buffer:  # before connecting: the TCP window scale is negotiated there
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if family == socket.AF_UNIX or sys.platform == "win32":
            if family != socket.AF_UNIX:
                socket_options.tune(sock)
            async with asyncio.timeout(seconds):
                await asyncio.get_running_loop().sock_connect(sock, where)
        else:
            socket_options.tune(sock)
            await _wait_connected(sock, where, seconds)
    except BaseException:
        sock.close()
        raise
    return sock


async def _wait_connected(sock: socket.socket, where: Any, seconds: float | None) -> None:
    """Connect to an address. uvloop's `sock_connect` would first resolve it in a thread, without need."""
    error = sock.connect_ex(where)
    if error in _UNDER_WAY:
        error = sock.connect_ex(where)  # a server on this machine may have accepted already
    if error in _UNDER_WAY:
        loop = asyncio.get_running_loop()
        connected = loop.create_future()
        loop.add_writer(sock, _note, connected)
        try:
            async with asyncio.timeout(seconds):
                await connected
        finally:
            loop.remove_writer(sock)
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error not in _CONNECTED:
        raise OSError(error, os.strerror(error))


def _note(connected: asyncio.Future[None]) -> None:
    if not connected.done():
        connected.set_result(None)
