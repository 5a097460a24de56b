"""Ends a request whose client has gone, or whose gateway goes, while its answer is being made."""

from __future__ import annotations

import asyncio
from types import TracebackType

from starlette.types import Receive

from gateway.api.life import Life
from gateway.errors import ClientGone, GatewayError
from gateway.upstream.background import Background


class Leaving:
    """`async with Leaving(...)`: raises `ClientGone` once the client has left, `Draining` at our own end.

    Works like asyncio's own time-outs: the task inside is cancelled, and the cancellation turned into
    the error at the edge. The request's body must have been read; from then on the server's next
    message can only say that the client is gone.
    """

    def __init__(self, receive: Receive, background: Background, life: Life) -> None:
        self._receive = receive
        self._background = background
        self._life = life
        self._reason: GatewayError | None = None

    async def __aenter__(self) -> Leaving:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("Leaving needs a task to cancel")
        self._inside = task
        self._watch = self._background.start(self._wait_until_gone(), "a client's leaving")
        self._life.enter(self.end)
        return self

    async def _wait_until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.end(ClientGone("The client left before its answer was complete."))

    def end(self, reason: GatewayError) -> None:
        """Cancel what is inside, for this reason. The first reason counts."""
        if self._reason is None:
            self._reason = reason
            self._inside.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._life.leave(self.end)
        self._watch.cancel()
        if self._reason and self._inside.uncancel() <= 0 and isinstance(error, asyncio.CancelledError):
            raise self._reason from None
