"""The HTTP client of one backend."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

import httpx

from gateway.config.call_urls import CallUrls
from gateway.dialects.base import Outgoing
from gateway.dialects.shared.waits import asked
from gateway.errors import UpstreamReset
from gateway.scheduling.deadlines import Deadlines
from gateway.upstream.exchange import FOREIGN, JSON, Exchange, mapped
from gateway.upstream.pool import ConnectionPool
from gateway.upstream.probe_client import ProbeClient
from gateway.upstream.request_head import RequestRoute
from gateway.upstream.sending import Again
from gateway.upstream.transport import GatewayTransport

MAX_PROBED = 64 * 1024
"""Bytes of the answer to a probe that are read."""


class Probed(NamedTuple):
    """The answer to a probe.

    `rest` is for how many seconds the server asks not to be sent requests. `server` is the name of the
    server program from the `Server` header; "" without one.
    """

    status: int
    rest: float = 0.0
    server: str = ""


class Client:
    """The HTTP client of one backend. Shared by all requests to it.

    `calls` knows the paths of the backend's endpoints.
    """

    def __init__(
        self,
        calls: CallUrls,
        transport: GatewayTransport,
        *,
        api_key: str | None,
        clock: Callable[[], float],
    ) -> None:
        headers = {"accept-encoding": "identity", "user-agent": "chatglm-gateway"}
        if api_key:
            headers["authorization"] = f"Bearer {api_key}"
        self._http = ProbeClient(
            base_url=calls.origin,
            headers=headers,
            transport=transport,
            timeout=None,  # every wait has its limit in Deadlines
            trust_env=False,
            follow_redirects=False,
        )
        self._calls = calls
        self._transport = transport
        self._clock = clock
        self._routes: dict[str, tuple[RequestRoute, ConnectionPool]] = {}

    def whole(
        self, outgoing: Outgoing, deadlines: Deadlines, again: Again | None = None
    ) -> Coroutine[Any, Any, bytes]:
        """Send the request and return the body of its answer, which has status 200.

        `again` is that of `exchange`. Raises the error that `refusal` returns for any other status, and the
        errors of the exchange.
        """
        return self.exchange(outgoing, deadlines, whole=True, again=again).wait_whole()

    def exchange(
        self,
        outgoing: Outgoing,
        deadlines: Deadlines,
        *,
        whole: bool = False,
        lasting: bool = False,
        again: Again | None = None,
    ) -> Exchange:
        """Return the exchange for one request, which is sent by `begin`. Its answer is streamed, or `whole`.

        `again` allows to send the request a second time if a reused connection was just being closed; see
        `sending.wait_answer`. `lasting` is for complete answers that keep the GPU busy even if nobody waits
        for them; see `Exchange.outlast`.
        """
        route, pool = self._routes.get(outgoing.path) or self._route(outgoing.path)
        return Exchange(
            pool,
            route,
            outgoing.body,
            deadlines,
            self._clock,
            again if self._transport.retry_reused else None,
            whole,
            lasting,
        )

    def _route(self, path: str) -> tuple[RequestRoute, ConnectionPool]:
        request = self._http.build_request("POST", self._calls.at(path), content=b"", headers=JSON)
        route = RequestRoute(request)
        made = self._routes[path] = route, self._transport.pool(route.origin)
        return made

    async def probe(self, path: str) -> Probed:
        """Send a GET for `path` and read its answer. Raises the errors of connecting and reading."""
        try:
            response = await self._http.send(self._http.build_request("GET", path), stream=True)
            try:
                await _read_some(response)
            finally:
                await response.aclose()
        except FOREIGN as error:
            raise mapped(error, UpstreamReset) from None
        server = response.headers.get("server", "")
        return Probed(response.status_code, asked(response.headers.get) or 0.0, server)

    async def retire(self) -> None:
        """Keep no idle connections from now on. Requests in flight go on, and may still open a connection."""
        await self._transport.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()


async def _read_some(response: httpx.Response) -> None:
    """Read and drop the rest of a body, up to a limit, so that its connection can be used again."""
    size = 0
    async for piece in response.aiter_bytes() if response.is_stream_consumed else response.aiter_raw():
        size += len(piece)
        if size > MAX_PROBED:
            return
