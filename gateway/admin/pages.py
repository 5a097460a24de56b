"""`GET /metrics` and `GET /version`."""

from __future__ import annotations

import asyncio
from typing import Protocol

from starlette.types import Receive, Scope, Send

from gateway.api import responses
from gateway.api.request_context import request_context
from gateway.formats import jsontext


class Exposition(Protocol):
    """Whoever can write the metrics down."""

    def prepare(self) -> None:
        """Take note of the present."""

    def write(self) -> tuple[bytes, str]:
        """The metrics as prepared, and their content type; may run in a thread."""


class MetricsPage:
    """The metrics in Prometheus' text format, written in a thread: there may be thousands of series."""

    def __init__(self, metrics: Exposition) -> None:
        self._metrics = metrics
        self._alone = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Serve one scrape."""
        request_context(scope).quiet = True
        async with self._alone:
            self._metrics.prepare()
            body, kind = await asyncio.to_thread(self._metrics.write)
        await responses.send_whole(send, 200, body, [(b"content-type", kind.encode())])


class VersionPage:
    """Which version this is."""

    def __init__(self, version: str) -> None:
        self._body = jsontext.write({"version": version})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Serve one request."""
        request_context(scope).quiet = True
        await responses.send_whole(send, 200, self._body, responses.JSON)
