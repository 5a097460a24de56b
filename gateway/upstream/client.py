"""Speaks HTTP to one backend. Everything httpx may raise becomes one of our errors here, and only here."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from gateway.dialects.base import Outgoing
from gateway.dialects.refusals import refusal
from gateway.errors import ConnectFailed, UpstreamGarbled, UpstreamReset, UpstreamTLS, UpstreamTruncated
from gateway.scheduling.patience import Patience
from gateway.upstream.transport import Transport

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
        self._http = httpx.AsyncClient(
            base_url=url,
            headers=headers,
            transport=transport,
            # What a backend sets for one client must not come back with the requests of another.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            timeout=None,  # noqa: S113 - every wait has its limit in Patience
            trust_env=False,
            follow_redirects=False,
        )
        self._clock = clock

    async def whole(self, outgoing: Outgoing, patience: Patience) -> bytes:
        """Send the request and read its whole answer, which came with status 200.

        Raises what `refusal` makes of other statuses, and every way in which the exchange can fail.
        """
        async with self._exchange(outgoing, patience) as response:
            chunks = [chunk async for chunk in _capped(self._chunks(response, patience, begun=lambda: False))]
            return b"".join(chunks)

    @contextlib.asynccontextmanager
    async def stream(
        self, outgoing: Outgoing, patience: Patience, begun: Callable[[], bool]
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Send the request and give the chunks of its event stream as they come.

        `begun` tells whether content has been seen, which decides what a pause means. The iterator
        raises `UpstreamTruncated` when the body breaks off.
        """
        async with self._exchange(outgoing, patience) as response:
            yield self._chunks(response, patience, begun)

    async def probe(self, path: str) -> int:
        """Ask for `path` and give the status. Raises what connecting and reading may raise."""
        with _mapped(UpstreamReset):
            return (await self._http.get(path)).status_code

    @contextlib.asynccontextmanager
    async def _exchange(self, outgoing: Outgoing, patience: Patience) -> AsyncIterator[httpx.Response]:
        response = await self._head(outgoing, patience)
        try:
            if response.status_code != 200:
                raise refusal(
                    response.status_code,
                    await self._refused(response, patience),
                    response.headers.get("retry-after"),
                )
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                raise UpstreamGarbled("The backend sent a content encoding that was not asked for.")
            if "content-length" in response.headers and "transfer-encoding" in response.headers:
                raise UpstreamGarbled("The backend's answer tells two lengths.")
            yield response
        finally:
            await response.aclose()

    async def _head(self, outgoing: Outgoing, patience: Patience) -> httpx.Response:
        request = self._http.build_request(
            "POST",
            outgoing.path,
            content=outgoing.body,
            headers={"content-type": "application/json"},
            timeout=httpx.Timeout(None, connect=patience.connect, pool=patience.connect),
        )
        deadline = patience.deadline(self._clock(), begun=False)
        with _mapped(UpstreamReset):
            try:
                async with asyncio.timeout(deadline - self._clock()):
                    return await self._http.send(request, stream=True)
            except TimeoutError:
                raise patience.error(deadline, begun=False) from None

    async def _refused(self, response: httpx.Response, patience: Patience) -> bytes:
        body = bytearray()
        with contextlib.suppress(UpstreamTruncated):  # the status has told enough
            async for chunk in self._chunks(response, patience, begun=lambda: False):
                body += chunk
                if len(body) > MAX_REFUSAL:
                    break
        return bytes(body)

    async def _chunks(
        self, response: httpx.Response, patience: Patience, begun: Callable[[], bool]
    ) -> AsyncIterator[bytes]:
        chunks = _raw(response)
        while True:
            deadline = patience.deadline(self._clock(), begun=begun())
            with _mapped(UpstreamTruncated):
                try:
                    async with asyncio.timeout(deadline - self._clock()):
                        chunk = await anext(chunks, None)
                except TimeoutError:
                    raise patience.error(deadline, begun=begun()) from None
            if chunk is None:
                return
            yield chunk

    async def aclose(self) -> None:
        """Close every connection."""
        await self._http.aclose()


def _raw(response: httpx.Response) -> AsyncIterator[bytes]:
    # A mocked reply made from bytes can only be read as bytes, a real one only raw: take either.
    return response.aiter_bytes() if response.is_stream_consumed else response.aiter_raw()


async def _capped(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > MAX_ANSWER:
            raise UpstreamGarbled("The backend's answer is too large.")
        yield chunk


@contextlib.contextmanager
def _mapped(broken: type[UpstreamReset | UpstreamTruncated]) -> Iterator[None]:
    """Map httpx's errors; `broken` is what a connection that ends now means."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        if _tls(error):
            raise UpstreamTLS("The TLS handshake with the backend failed.") from None
        raise ConnectFailed("The backend cannot be reached.", retry_after=1) from None
    except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError, httpx.CloseError):
        raise broken(_BROKEN[broken]) from None
    except (httpx.HTTPError, httpx.StreamError):
        raise UpstreamGarbled("The backend's answer is not valid HTTP.") from None


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
