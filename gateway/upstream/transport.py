"""The transport under httpx: where requests meet connections, and where their failures become httpx's.

A seam of its own, so that the way bytes travel can change without anything above it noticing.
Environment proxies, redirects, cookies and content encodings are no part of it.

A request is never sent twice once a byte of it was written; `retry_reused` makes one exception, see
`sending.wait_answer`.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import AsyncIterable, Callable, Mapping, Sequence

import httpx

from gateway.upstream.connection import (
    BackendConnection,
    ConnectionFault,
    Garbled,
    Overdue,
    Stale,
    Unanswered,
)
from gateway.upstream.dialer import Connector, Dialer, HandshakeTimeout, Origin
from gateway.upstream.pool import ConnectionPool, PoolFull, PoolStatistics
from gateway.upstream.request_head import head_of, origin_of
from gateway.upstream.sending import wait_answer

KEEPALIVE = 3.0
"""Seconds an idle connection is kept: below the 5 s after which uvicorn, which serves all ChatGLM programs,
closes it, so that a request hardly ever meets a connection that is just being closed."""

CLOSE_DELIMITED = "close_delimited"
"""Extension of a response: its body ends where the connection does, so that a cut cannot be seen."""

_VERSIONS = {"1.1": b"HTTP/1.1", "1.0": b"HTTP/1.0"}
_EXTENSIONS = {
    (version, delimited): {"http_version": _VERSIONS[version], CLOSE_DELIMITED: delimited}
    for version in _VERSIONS
    for delimited in (False, True)
}
_NO_LIMITS: Mapping[str, float | None] = {}


class Disconnected(httpx.RemoteProtocolError):
    """The server ended the connection without a byte of an answer."""


class BrokenOff(httpx.ReadError):
    """The server ended the connection in the middle of its answer."""


class Malformed(httpx.RemoteProtocolError):
    """The server's answer is not valid HTTP/1.1."""


class GatewayTransport(httpx.AsyncBaseTransport):
    """Carries requests over a pool of connections, one pool for each origin: of a backend there is one.

    `most`: connections of a pool. `keepalive`: seconds an idle one is kept. `context` makes the TLS
    context when it is first needed. `uds`: path of a Unix socket to use instead of the network.
    `addresses`: where to connect, instead of looking the URL's host up. `receive_buffer`: see `Dialer`.
    `retry_reused`: send a request again, once and on a fresh connection, when a connection that had
    served before ends without a byte of an answer within `sending.REPEAT_WITHIN` seconds of the send.
    `deserted`: is told when the server closes a connection that nobody uses. `connector` makes what opens
    the connections to an origin, in the place of a `Dialer`.
    Takes the limits `connect`, `pool` and `read` (for each read) from the request's `timeout`.
    """

    def __init__(
        self,
        *,
        most: int,
        keepalive: float = KEEPALIVE,
        context: Callable[[], ssl.SSLContext],
        uds: str | None = None,
        retry_reused: bool = False,
        deserted: Callable[[], None] | None = None,
        addresses: Sequence[str] = (),
        receive_buffer: int = 0,
        connector: Callable[[Origin], Connector] | None = None,
    ) -> None:
        self._deserted = deserted
        self._connector = connector or self._dialer
        self._addresses = addresses
        self._receive_buffer = receive_buffer
        self._most = most
        self._keepalive = keepalive
        self._context = context
        self._uds = uds
        self.retry_reused = retry_reused
        self._pools: dict[Origin, ConnectionPool] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        limits = request.extensions.get("timeout", _NO_LIMITS)
        pool = self.pool(origin_of(request.url))
        read = limits.get("read")
        try:
            connection = await wait_answer(
                pool,
                head_of(request.method, request.url, request.headers.raw) + b"\r\n",
                _body_of(request),
                connect=limits.get("connect"),
                place=limits.get("pool"),
                read=read,
                again=_always if self.retry_reused else None,
                without_body=request.method == "HEAD",
                chunked="transfer-encoding" in request.headers,
            )
        except (ConnectionFault, OSError) as error:
            raise as_httpx(error) from error
        return httpx.Response(
            connection.status,
            headers=connection.headers,
            stream=Body(connection, pool, read),
            extensions=_EXTENSIONS[connection.version, connection.close_delimited],
        )

    def pool(self, origin: Origin) -> ConnectionPool:
        """The connections to one server."""
        return self._pools.get(origin) or self._make_pool(origin)

    def _make_pool(self, origin: Origin) -> ConnectionPool:
        if origin.scheme not in {"http", "https"} or not origin.host:
            raise httpx.UnsupportedProtocol("A backend's URL begins with http:// or https://.")
        pool = self._pools[origin] = ConnectionPool(
            self._connector(origin), most=self._most, keepalive=self._keepalive, deserted=self._deserted
        )
        return pool

    def _dialer(self, origin: Origin) -> Connector:
        return Dialer(origin, self._context, self._uds, self._addresses, self._receive_buffer)

    async def aclose(self) -> None:
        """Close idle connections now, the others when their requests end."""
        for pool in self._pools.values():
            pool.close()

    def statistics(self) -> PoolStatistics:
        """The state of all pools together."""
        states = [pool.statistics() for pool in self._pools.values()]
        return PoolStatistics(
            sum(state.open for state in states),
            sum(state.idle for state in states),
            sum(state.waiting for state in states),
        )

    def __repr__(self) -> str:
        pools = ", ".join(f"{origin.host}:{origin.port} {pool}" for origin, pool in self._pools.items())
        return f"<GatewayTransport {pools or 'unused'}>"


class Body(httpx.AsyncByteStream):
    """The body of a response: each piece is what had come when it was asked for.

    The connection goes back to the pool with the last piece, and is closed when the body is left before.
    """

    def __init__(self, connection: BackendConnection, pool: ConnectionPool, read: float | None) -> None:
        self._connection: BackendConnection | None = connection
        self._pool = pool
        self._read = read
        self._last = b""
        if connection.complete:
            self._last = connection.take()
            self._release(connection)

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        connection = self._connection
        if connection is None:
            piece, self._last = self._last, b""
            if not piece:
                raise StopAsyncIteration
            return piece
        connection.limit(math.inf if self._read is None else self._pool.time() + self._read)
        try:
            piece = await connection.wait_piece()
        except BaseException as error:
            self._leave(connection)
            if isinstance(error, ConnectionFault):
                raise as_httpx(error) from error
            raise
        if connection.drained:
            self._release(connection)
        if not piece:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        """Leave the body; harmless when it was read to its end."""
        self._last = b""
        if self._connection is not None:
            self._leave(self._connection)

    def _release(self, connection: BackendConnection) -> None:
        self._connection = None
        self._pool.give_back(connection)

    def _leave(self, connection: BackendConnection) -> None:
        self._connection = None
        self._pool.discard(connection)


def _always() -> bool:
    return True


def _body_of(request: httpx.Request) -> bytes | AsyncIterable[bytes]:
    if isinstance(request.stream, httpx.ByteStream):
        return b"".join(request.stream)
    if not isinstance(request.stream, httpx.AsyncByteStream):
        raise httpx.LocalProtocolError("The request's body is not asynchronous.")
    return request.stream


def as_httpx(error: ConnectionFault | OSError) -> httpx.TransportError:
    """The error of httpx that says what has failed here; `error` is its cause."""
    foreign = _as_httpx(error)
    foreign.__cause__ = error
    return foreign


def _as_httpx(error: ConnectionFault | OSError) -> httpx.TransportError:
    match error:
        case PoolFull():
            return httpx.PoolTimeout(str(error))
        case Garbled():
            return Malformed(f"The server's answer is not valid HTTP: {error}.")
        case Stale() | Unanswered():
            return Disconnected("The server closed the connection without an answer.")
        case Overdue():
            return httpx.ReadTimeout("The server was silent for too long.")
        case ConnectionFault():
            return BrokenOff("The server's answer broke off.")
        case HandshakeTimeout() | TimeoutError():
            return httpx.ConnectTimeout("The connection was not opened in time.")
        case _:
            return httpx.ConnectError(f"The connection was not opened: {error.strerror or error}.")


class Certificates:
    """Makes the TLS context of one backend when it is first needed: reading the system's CAs takes long.

    Files that are named are read at once, so that a wrong one is known before the first request.
    """

    def __init__(self, ca_file: str | None, cert_file: str | None, key_file: str | None) -> None:
        self._files = (ca_file, cert_file, key_file)
        self._context = self._made() if any(self._files) else None

    def __call__(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = self._made()
        return self._context

    def _made(self) -> ssl.SSLContext:
        ca_file, cert_file, key_file = self._files
        context = ssl.create_default_context(cafile=ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        if cert_file is not None:
            context.load_cert_chain(cert_file, key_file)
        return context


def make_transport(
    *,
    slots: int,
    ca_file: str | None,
    cert_file: str | None,
    key_file: str | None,
    deserted: Callable[[], None] | None = None,
    addresses: Sequence[str] = (),
    receive_buffer: int = 0,
) -> GatewayTransport:
    """Make the transport of one backend. Certificates are always verified, TLS 1.2 at least."""
    # Slots bound the requests; a probe may come beside them. A used connection that ends at once without a
    # byte was almost always just being closed for idleness, in the moment in which the request went out.
    return GatewayTransport(
        most=slots + 2,
        context=Certificates(ca_file, cert_file, key_file),
        retry_reused=True,
        deserted=deserted,
        addresses=addresses,
        receive_buffer=receive_buffer,
    )
