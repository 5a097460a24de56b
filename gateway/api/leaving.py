"""Notices a client that leaves while its answer is being made, streamed or not."""

from __future__ import annotations

import asyncio
from types import TracebackType

from starlette.types import Receive

from gateway.errors import ClientGone
from gateway.upstream.background import Background


class Leaving:
    """`async with Leaving(...)`: raises `ClientGone` inside as soon as the client has left.

    Works like asyncio's own time-outs: the task inside is cancelled, and the cancellation turned into
    the error at the edge. The request's body must have been read; from then on the server's next
    message can only say that the client is gone.
    """

    def __init__(self, receive: Receive, background: Background) -> None:
        self._receive = receive
        self._background = background
        self._gone = False

    async def __aenter__(self) -> Leaving:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("Leaving needs a task to cancel")
        self._inside = task
        self._watch = self._background.start(self._wait_until_gone(), "a client's leaving")
        return self

    async def _wait_until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._inside.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.cancel()
        if self._gone and self._inside.uncancel() <= 0 and isinstance(error, asyncio.CancelledError):
            raise ClientGone("The client left before its answer was complete.") from None
