"""One request to a backend and its answer, over the gateway's own connections.

Faults of a connection become exceptions of `gateway.errors` here, and nowhere else.
"""

from __future__ import annotations

import contextlib
import errno
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import httpx

from gateway.dialects.shared.refusals import refusal
from gateway.dialects.shared.waits import Field
from gateway.errors import (
    ConnectFailed,
    GatewayError,
    OutOfDescriptors,
    UpstreamGarbled,
    UpstreamReset,
    UpstreamTLS,
    UpstreamTruncated,
)
from gateway.scheduling.deadlines import Deadlines
from gateway.upstream.connection import BackendConnection, ConnectionFault, Overdue, ReadyAt, Taker
from gateway.upstream.pool import ConnectionPool
from gateway.upstream.request_head import RequestRoute
from gateway.upstream.sending import Again, wait_answer
from gateway.upstream.transport import Malformed, as_httpx

MAX_ANSWER = 16 * 1024 * 1024
"""Maximum size, in bytes, of a complete (not streamed) answer."""
MAX_REFUSAL = 64 * 1024
"""Bytes of a refusal that are read to find the field that it complains about."""
JSON = {"content-type": "application/json"}
"""What every request is."""
FOREIGN = (httpx.HTTPError, httpx.StreamError)
"""What httpx may raise."""

T = TypeVar("T")
Broken = type[UpstreamReset | UpstreamTruncated]


class Exchange:
    """One request and its answer. Used by one task: `begin`, then `read` to the end, always `aclose`.

    `wait_whole` does the first two steps, and closes the exchange if it fails, unless it is `lasting`.

    Attributes and arguments:
        ended: True once the whole body has been read.
        last: True if the backend will close the connection after this answer.
        whole: the answer will be read to its end, so its beginning need not wake the task.
        again: called before the request is sent a second time; see `sending.wait_answer`.
        lasting: the caller may stop waiting, but the answer is awaited, as its end frees the GPU.

    The connection goes back to the pool as soon as its answer is complete.
    """

    __slots__ = (
        "_again",
        "_body",
        "_clock",
        "_connection",
        "_deadline",
        "_deadlines",
        "_last",
        "_lasting",
        "_pool",
        "_ready_at",
        "_route",
        "ended",
        "last",
    )  # fmt: skip

    def __init__(
        self,
        pool: ConnectionPool,
        route: RequestRoute,
        body: bytes,
        deadlines: Deadlines,
        clock: Callable[[], float],
        again: Again | None,
        whole: bool,
        lasting: bool = False,
    ) -> None:
        self._pool = pool
        self._lasting = lasting
        self._route = route
        self._body = body
        self._deadlines = deadlines
        self._clock = clock
        self._again = again
        self._ready_at: ReadyAt = "end" if whole else "body"
        self._connection: BackendConnection | None = None
        self._last = b""
        self.ended = self.last = False

    async def wait_whole(self) -> bytes:
        """Send the request and return the whole body of its answer. Raises what `begin` and `read` raise."""
        try:
            connection = await self._answer()
            if self._refuses(connection):
                await self._wait_refusal(connection)
            if self._connection is None:  # most answers come in one piece
                self.ended = True
                return self._last
            return await self._wait_rest()
        except (ConnectionFault, OSError) as error:
            raise self._failed(error) from None
        except BaseException:
            if not self._lasting:
                self._leave()
            raise

    async def begin(self) -> None:
        """Send the request and wait for the head of an answer with status 200.

        Raises the error that `refusal` returns for any other status, and the errors of connecting and
        sending.
        """
        try:
            connection = await self._answer()
        except (ConnectionFault, OSError) as error:
            raise self._failed(error) from None
        if self._refuses(connection):
            await self._wait_refusal(connection)

    def _answer(self) -> Coroutine[Any, Any, BackendConnection]:
        """Send the request and wait for the head of its answer."""
        body, deadlines = self._body, self._deadlines
        connect, again = deadlines.connect, self._again
        self._again = None  # it may be a method of who holds this: no reference cycle is left behind
        self._body = b""  # sent once; the rest of the exchange must not hold it in memory
        self._deadline = opening = deadlines.opening
        return wait_answer(
            self._pool,
            b"%b%d\r\n\r\n" % (self._route.head, len(body)),
            body,
            connect=connect,
            place=connect,
            again=again,
            until=self._pool.time() + opening - self._clock(),
            ready_at=self._ready_at,
            lasting=self._lasting,
            sent=self._sent,
        )

    def _failed(self, error: ConnectionFault | OSError) -> GatewayError:
        if not (isinstance(error, Overdue) and self.underway):
            self._leave()
        return self._mapped(error, UpstreamReset, begun=False)

    def _refuses(self, connection: BackendConnection) -> bool:
        """Store the head of an answer; return True if it is not a good answer."""
        if connection.complete:
            self._last = connection.take()
            self._connection = None
            self._pool.give_back(connection)
        else:
            self.last = not connection.keeps
        return connection.status != 200 or (
            connection.low_head.find(b"\r\ncontent-encoding:") >= 0
            and (connection.field(b"content-encoding") or "").lower() != "identity"
        )

    async def _wait_refusal(self, connection: BackendConnection) -> None:
        try:
            # The connection may be another's soon: take what may be needed of it now.
            headers = {k.lower().decode("latin-1"): v.decode("latin-1") for k, v in connection.headers[::-1]}
            raise await self._wait_refused(connection.status, headers.get)
        finally:
            self._leave()

    async def _wait_rest(self) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while size <= MAX_ANSWER:
            piece = await self.read(begun=False)
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)
            size += len(piece)
        raise UpstreamGarbled("The backend's answer is too large.")

    async def _wait_refused(self, status: int, field: Field) -> GatewayError:
        """Return the error for an answer that is not a good one. `field` returns a header of the answer."""
        if status == 200:
            return UpstreamGarbled("The backend sent a content encoding that was not asked for.")
        body = bytearray()
        with contextlib.suppress(UpstreamTruncated):  # the status has told enough
            while len(body) <= MAX_REFUSAL and (piece := await self.read(begun=False)):
                body += piece
        return refusal(status, bytes(body), field)

    def _sent(self, connection: BackendConnection) -> None:
        self._connection = connection

    def prepare(self) -> None:
        """Open a connection for the next request if the backend closes the present one (`last`)."""
        self.last = False
        self._pool.prepare()

    async def read(self, *, begun: bool) -> bytes:
        """Return the next bytes of the body as they arrived, b"" at its end.

        `begun` is True once content has been seen, which decides which time-out applies. Raises
        `UpstreamTruncated` if the body breaks off, and `StallTimeout`, `TotalTimeout` or
        `FirstTokenTimeout`.
        """
        connection = self._connection
        if connection is None:
            self.ended = True
            piece, self._last = self._last, b""
            return piece
        limited = False
        while not (connection.pieces or connection.complete):
            if connection.error is not None:
                self._leave()
                raise self._mapped(connection.error, UpstreamTruncated, begun=begun) from None
            if not limited:
                limited = True
                self._limit(connection, begun=begun)
            try:
                await connection.next_event()
            except Overdue as error:
                raise self._mapped(error, UpstreamTruncated, begun=begun) from None
        piece = connection.take()
        if connection.complete:
            self.ended = True
            self._connection = None
            self._pool.give_back(connection)
        return piece

    def _limit(self, connection: BackendConnection, *, begun: bool) -> None:
        """Wake the waiting task when the next deadline passes. The task decides which time-out it was."""
        now = self._clock()
        self._deadline = deadline = self._deadlines.deadline(now, begun=begun)
        connection.limit(self._pool.time() + deadline - now)

    async def flow(self, taker: Taker) -> None:
        """Pass what arrives to `taker` for as long as it accepts it; return when `read` is needed.

        Only after content has been seen.
        """
        connection = self._connection
        if connection is None or connection.pieces or connection.complete or connection.error is not None:
            return
        deadlines, ahead = self._deadlines, self._pool.time() - self._clock()
        try:
            await connection.flow(taker, deadlines.end + ahead, deadlines.pause, deadlines.silent)
        finally:
            connection.stop_flow()
            self._deadline = deadlines.flowed(self._clock(), connection.heard - ahead)

    @property
    def underway(self) -> bool:
        """True if the backend may still be working on the request after `wait_whole` has failed."""
        connection = self._connection
        return connection is not None and not (connection.unsent or connection.error or connection.complete)

    async def outlast(self) -> None:
        """Read the rest of an answer that is `underway` and no longer wanted, then close the exchange."""
        self._deadlines = self._deadlines.doubled()
        try:
            with contextlib.suppress(GatewayError):
                while await self.read(begun=False):
                    pass
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """End the exchange; closes the connection if the body was not read to its end. Idempotent."""
        if self._connection is not None:
            self._leave()

    def _leave(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.discard(connection)

    def _mapped(self, error: ConnectionFault | OSError, broken: Broken, *, begun: bool) -> GatewayError:
        # Connecting ends with the limit of the whole try, where that comes first.
        late = isinstance(error, TimeoutError) and self._clock() >= self._deadline
        if late or isinstance(error, Overdue):
            return self._deadlines.error(self._deadline, begun=begun)
        return mapped(as_httpx(error), broken)


def mapped(error: httpx.HTTPError | httpx.StreamError, broken: Broken) -> GatewayError:
    """Map httpx's errors to the gateway's. `broken` is the error for a connection that ends now."""
    if (
        isinstance(error, httpx.TransportError)
        and broken is UpstreamReset
        and _caused_by(error, ssl.SSLError)
    ):
        return UpstreamTLS("The TLS handshake with the backend failed.")
    match error:
        case httpx.ConnectError() if _is_our_own(error):
            return OutOfDescriptors(
                "The gateway has no file descriptor, port or buffer left for a connection to a backend.",
                retry_after=1,
            )
        case httpx.ConnectError() | httpx.ConnectTimeout() | httpx.PoolTimeout():
            return ConnectFailed(
                "The backend cannot be reached.", retry_after=1, refused=_caused_by(error, _NOBODY_LISTENS)
            )
        case Malformed():
            return UpstreamGarbled("The backend's answer is not valid HTTP.")
        case httpx.RemoteProtocolError() | httpx.ReadError() | httpx.WriteError() | httpx.CloseError():
            return broken(_BROKEN[broken])
        case _:
            return UpstreamGarbled("The backend's answer is not valid HTTP.")


_BROKEN = {
    UpstreamReset: "The backend closed the connection before it answered.",
    UpstreamTruncated: "The backend's answer broke off.",
}


_NOBODY_LISTENS = (ConnectionRefusedError, FileNotFoundError)
"""Exceptions of connecting to a port or a Unix socket where no server listens."""


_OUR_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
"""Error numbers of connecting when this system has run out of a resource. The backend is not at fault."""


def _is_our_own(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _OUR_SHORTAGES:
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _caused_by(error: BaseException, kinds: type[BaseException] | tuple[type[BaseException], ...]) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, kinds):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
