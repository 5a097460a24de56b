"""Ends a request whose client has gone, or whose gateway goes, while its answer is being made."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Protocol

from gateway.api.lifecycle import Lifecycle
from gateway.errors import ClientGone, GatewayError
from gateway.path.answer import ByteSink


class ClientChannel(ByteSink, Protocol):
    """A client, and whether it is still there. Lies in the scope as `presence`, put there by `http1`.

    `on_leaving` is called, by the event loop and not by the request's own task, when `gone` becomes true.
    `fault` is the reason where the server itself sent the client away, with an answer of its own.
    """

    gone: bool
    fault: GatewayError | None
    on_leaving: Callable[[], None] | None

    @property
    def task(self) -> asyncio.Task[None]:
        """The one that serves the request."""

    # What most requests do, with the least ado: without messages of ASGI that say the same.

    def whole_body(self) -> bytes | None:
        """Receive the whole body of the request, if all of it is there; None where it must be received."""

    def answer(self, lines: Sequence[bytes], body: bytes) -> Awaitable[None]:
        """Send a whole answer of status 200, with these headers (`name: value` each).

        Its length is told for it, and nothing of the connection.
        """

    def push(self, piece: bytes) -> Awaitable[None]:
        """Send a piece of a body that has begun."""


class ClientGuard:
    """`with ClientGuard(...)`: raises `ClientGone` once the client has left, `Draining` at our own end.

    Works like asyncio's own time-outs: the task inside is cancelled, and the cancellation turned into
    the error at the edge. Costs no task: the connection itself tells.
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
        """Cancel what is inside, for this reason. The first reason counts."""
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
