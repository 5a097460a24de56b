"""An httpx client without auth flows, redirects, cookies, event hooks and logging, which no backend needs."""

from __future__ import annotations

from typing import Any

import httpx

from gateway.upstream.message import LeanRequest, Route


class LeanClient(httpx.AsyncClient):
    """Sends a request to the transport of its URL and does nothing else.

    The transport is still asked for by `_transport_for_url`, so that mounts and mocks (respx with
    `using="httpx"`, `httpx.MockTransport`) work as with any client.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._routes: dict[str, Route] = {}

    def lean_request(self, path: str, body: bytes, extensions: dict[str, Any]) -> LeanRequest:
        """A POST of JSON to `path`; all but the body is made once a path."""
        route = self._routes.get(path)
        if route is None:
            headers = {"content-type": "application/json"}
            route = self._routes[path] = Route(self.build_request("POST", path, content=b"", headers=headers))
        return LeanRequest(route, body, extensions)

    async def send(self, request: httpx.Request, *, stream: bool = False, **_: Any) -> httpx.Response:
        """Send the request as it is. Raises what the transport raises."""
        if self.is_closed:
            raise RuntimeError("Cannot send a request, as the client has been closed.")
        response = await self._transport_for_url(request.url).handle_async_request(request)
        response.request = request
        if not stream:
            try:
                await response.aread()
            finally:
                await response.aclose()
        return response
