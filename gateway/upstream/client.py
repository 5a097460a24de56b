"""Speaks HTTP to one backend. Everything httpx may raise becomes one of our errors here, and only here."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Callable

import httpx

from gateway.dialects.base import Outgoing
from gateway.dialects.refusals import refusal
from gateway.errors import (
    ConnectFailed,
    GatewayError,
    UpstreamGarbled,
    UpstreamReset,
    UpstreamTLS,
    UpstreamTruncated,
)
from gateway.scheduling.patience import Patience
from gateway.upstream.deadline import Deadline
from gateway.upstream.lean import LeanClient
from gateway.upstream.message import LeanResponse
from gateway.upstream.transport import Body, Malformed, Transport

MAX_ANSWER = 16 * 1024 * 1024
"""The largest whole answer that is read, in bytes."""
MAX_REFUSAL = 64 * 1024
"""How much of a refusal is read to find the field it complains about, in bytes."""


class Client:
    """The HTTP client of one backend. Shared by all its requests."""

    def __init__(
        self,
        url: str,
        transport: Transport,
        *,
        api_key: str | None,
        clock: Callable[[], float],
    ) -> None:
        headers = {"accept-encoding": "identity", "user-agent": "chatglm-gateway"}
        if api_key:
            headers["authorization"] = f"Bearer {api_key}"
        self._http = LeanClient(
            base_url=url,
            headers=headers,
            transport=transport,
            timeout=None,  # every wait has its limit in Patience
            trust_env=False,
            follow_redirects=False,
        )
        self._clock = clock

    async def whole(self, outgoing: Outgoing, patience: Patience) -> bytes:
        """Send the request and read its whole answer, which came with status 200.

        Raises what `refusal` makes of other statuses, and every way in which the exchange can fail.
        """
        exchange = Exchange(self._http, self._clock, outgoing, patience, _never)
        async with exchange as answer:
            short = exchange.come()
            if short is not None:
                return short
            pieces: list[bytes] = []
            size = 0
            async for piece in answer:
                pieces.append(piece)
                size += len(piece)
                if size > MAX_ANSWER:
                    raise UpstreamGarbled("The backend's answer is too large.")
            return b"".join(pieces)

    def stream(
        self, outgoing: Outgoing, patience: Patience, begun: Callable[[], bool]
    ) -> contextlib.AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Send the request and give the chunks of its event stream as they come.

        `begun` tells whether content has been seen, which decides what a pause means. The iterator
        raises `UpstreamTruncated` when the body breaks off.
        """
        return Exchange(self._http, self._clock, outgoing, patience, begun)

    def exchange(self, outgoing: Outgoing, patience: Patience) -> Exchange:
        """One request and its streamed answer."""
        return Exchange(self._http, self._clock, outgoing, patience, _never)

    async def probe(self, path: str) -> int:
        """Ask for `path` and give the status. Raises what connecting and reading may raise."""
        try:
            return (await self._http.get(path)).status_code
        except _FOREIGN as error:
            raise _mapped(error, UpstreamReset) from None

    async def aclose(self) -> None:
        """Close every connection."""
        await self._http.aclose()


def _never() -> bool:
    return False


class Exchange(AsyncIterator[bytes]):
    """One request and its answer: a context manager, and the iterator of the answer's pieces."""

    __slots__ = (
        "_begun",
        "_clock",
        "_http",
        "_limit",
        "_open",
        "_outgoing",
        "_patience",
        "_pieces",
        "_response",
    )

    def __init__(
        self,
        http: LeanClient,
        clock: Callable[[], float],
        outgoing: Outgoing,
        patience: Patience,
        begun: Callable[[], bool],
    ) -> None:
        self._http = http
        self._clock = clock
        self._outgoing = outgoing
        self._patience = patience
        self._begun = begun

    async def begin(self) -> None:
        """Send the request and wait for the head of its answer."""
        self._open = False
        await self.__aenter__()
        self._open = True

    async def read(self, *, begun: bool) -> bytes:
        """The next bytes; none at the end."""
        self._begun = lambda: begun
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            return b""

    async def aclose(self) -> None:
        """End it."""
        if self._open:
            self._open = False
            await self.__aexit__()

    async def __aenter__(self) -> AsyncIterator[bytes]:
        self._limit = Deadline()
        try:
            response = self._response = await self._head()
        except BaseException:
            self._limit.cancel()
            raise
        self._pieces = _raw(response)
        encoding = _field(response, b"content-encoding")
        if response.status_code != 200 or not (encoding is None or encoding.lower() == "identity"):
            try:
                await self._refuse(response)
            finally:
                await self.__aexit__()
        return self

    async def _refuse(self, response: httpx.Response) -> None:
        if response.status_code != 200:
            raise refusal(response.status_code, await self._refused(), _field(response, b"retry-after"))
        raise UpstreamGarbled("The backend sent a content encoding that was not asked for.")

    async def __aexit__(self, *_: object) -> None:
        self._limit.cancel()
        await self._response.aclose()

    def come(self) -> bytes | None:
        """The whole body, if it came with the head, as short ones do: then there is nothing to wait for."""
        pieces = self._pieces
        return pieces.come() if isinstance(pieces, Body) else None

    async def _head(self) -> httpx.Response:
        connect = self._patience.connect
        request = self._http.lean_request(
            self._outgoing.path, self._outgoing.body, {"timeout": {"connect": connect, "pool": connect}}
        )
        deadline = self._set_limit(begun=False)
        try:
            with self._limit:
                return await self._http.send(request, stream=True)
        except TimeoutError:
            raise self._patience.error(deadline, begun=False) from None
        except _FOREIGN as error:
            raise _mapped(error, UpstreamReset) from None

    def _set_limit(self, *, begun: bool) -> float:
        now = self._clock()
        deadline = self._patience.deadline(now, begun=begun)
        self._limit.move(deadline - now)
        return deadline

    async def _refused(self) -> bytes:
        body = bytearray()
        with contextlib.suppress(UpstreamTruncated):  # the status has told enough
            async for piece in self:
                body += piece
                if len(body) > MAX_REFUSAL:
                    break
        return bytes(body)

    async def __anext__(self) -> bytes:
        deadline = self._set_limit(begun=self._begun())
        try:
            with self._limit:
                return await self._pieces.__anext__()
        except TimeoutError:
            raise self._patience.error(deadline, begun=self._begun()) from None
        except _FOREIGN as error:
            raise _mapped(error, UpstreamTruncated) from None


def _raw(response: httpx.Response) -> AsyncIterator[bytes]:
    if isinstance(response, LeanResponse) and isinstance(response.stream, Body):
        return response.stream
    # A mocked reply made from bytes can only be read as bytes, a real one only raw: take either.
    return response.aiter_bytes() if response.is_stream_consumed else response.aiter_raw()


def _field(response: httpx.Response, name: bytes) -> str | None:
    if isinstance(response, LeanResponse):
        return response.field(name)
    value: str | None = response.headers.get(name.decode("ascii"))
    return value


_FOREIGN = (httpx.HTTPError, httpx.StreamError)


def _mapped(
    error: httpx.HTTPError | httpx.StreamError, broken: type[UpstreamReset | UpstreamTruncated]
) -> GatewayError:
    """Map httpx's errors; `broken` is what a connection that ends now means."""
    if isinstance(error, httpx.TransportError) and broken is UpstreamReset and _tls(error):
        return UpstreamTLS("The TLS handshake with the backend failed.")
    match error:
        case httpx.ConnectError() | httpx.ConnectTimeout() | httpx.PoolTimeout():
            return ConnectFailed("The backend cannot be reached.", retry_after=1)
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


def _tls(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
