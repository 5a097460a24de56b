"""Cancels the work for a request when its client disconnects or the gateway shuts down."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Protocol

from gateway.api.lifecycle import Lifecycle
from gateway.errors import ClientGone, GatewayError
from gateway.path.answer import ByteSink


class ClientChannel(ByteSink, Protocol):
    """The channel to the client of one request. The connection puts it into the scope as `exchange`.

    Attributes:
        gone: True once the client has disconnected; what is sent then is dropped.
        fault: why the connection itself refused the rest of the request, if it did.
        on_leaving: called when `gone` becomes true, by the event loop, not by the task of the request.
        context: the `RequestContext` of the request. Set by the middleware.
        remembered: what the application stores for later requests on the same connection.
    """

    gone: bool
    fault: GatewayError | None
    on_leaving: Callable[[], None] | None
    context: object
    remembered: dict[str, Any]

    @property
    def task(self) -> asyncio.Task[None]:
        """The task that serves the request."""

    # Shortcuts for what most requests do. Each replaces several ASGI messages.

    def whole_body(self) -> bytes | None:
        """Return the whole request body if all of it has arrived, else None: then use ASGI's `receive`."""

    def answer(self, lines: Sequence[bytes], body: bytes) -> Awaitable[None]:
        """Send a complete response with status 200 and these headers, each a `name: value` line.

        `content-length` and `connection` are added and must not be among them.
        """

    def push(self, piece: bytes) -> Awaitable[None]:
        """Send a piece of a response body whose head has been sent."""


class ClientGuard:
    """Context manager: raises `ClientGone` when the client disconnects, `Draining` when the gateway ends.

    It works like `asyncio.timeout`: the task inside is cancelled, and `__exit__` turns the cancellation into
    the error. It needs no task of its own, because the connection calls it.
    """

    __slots__ = ("_client", "_inside", "_lifecycle", "_reason")

    def __init__(self, client: ClientChannel, lifecycle: Lifecycle) -> None:
        self._client = client
        self._lifecycle = lifecycle
        self._reason: GatewayError | None = None

    def __enter__(self) -> ClientGuard:
        client = self._client
        if client.gone:
            raise _gone()
        self._inside = client.task
        client.on_leaving = self._leave
        self._lifecycle.visitors.add(self)
        return self

    def _leave(self) -> None:
        self.end(_gone())

    def end(self, reason: GatewayError) -> None:
        """Cancel the task inside, which then raises `reason`. Only the first call has an effect."""
        if self._reason is None:
            self._reason = reason
            self._inside.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.on_leaving = None
        self._lifecycle.visitors.discard(self)
        if self._reason and self._inside.uncancel() <= 0 and isinstance(error, asyncio.CancelledError):
            raise self._reason from None


def _gone() -> ClientGone:
    return ClientGone("The client left before its answer was complete.")
