"""An httpx client without auth flows, redirects, cookies, event hooks and logging, which no backend needs."""

from __future__ import annotations

from typing import Any

import httpx


class ProbeClient(httpx.AsyncClient):
    """Sends a request to the transport of its URL and does nothing else."""

    def carrier(self, url: httpx.URL) -> httpx.AsyncBaseTransport:
        """The transport of a URL, as httpx finds it: mounts and mocks (respx with `using="httpx"`) count."""
        return self._transport_for_url(url)

    async def send(self, request: httpx.Request, *, stream: bool = False, **_: Any) -> httpx.Response:
        """Send the request as it is. Raises what the transport raises."""
        if self.is_closed:
            raise RuntimeError("Cannot send a request, as the client has been closed.")
        response = await self.carrier(request.url).handle_async_request(request)
        response.request = request
        if not stream:
            try:
                await response.aread()
            finally:
                await response.aclose()
        return response
