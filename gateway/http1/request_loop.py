"""The task that serves the requests of one client connection, one after the other.

Creating a task for each request costs more than parsing the request's head: asyncio registers the task,
unregisters it, and runs its done callbacks in a later iteration of the event loop. A persistent connection
therefore keeps one task, which is suspended between requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

Work: TypeAlias = Coroutine[Any, Any, None]
Over: TypeAlias = Callable[[Exception | None], None]
"""Called when a coroutine has ended, with its exception, or None if it succeeded or was cancelled."""


class RequestLoop:
    """Runs coroutines one after another in a single task.

    The task ends on `dismiss`, or when a coroutine is cancelled.
    """

    __slots__ = ("_dismissed", "_given", "_loop", "_rest", "task")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._given: tuple[Work, Over] | None = None
        self._rest: asyncio.Future[None] | None = None
        self._dismissed = False
        self.task: asyncio.Task[None] = loop.create_task(self._run())
        """The task. Cancelling it cancels the coroutine that is running."""
        self.task.add_done_callback(self._end)

    @property
    def rests(self) -> bool:
        """Return True if the task is suspended between two coroutines. A new loop also accepts work."""
        return self._rest is not None

    def give(self, work: Work, over: Over) -> None:
        """Schedule a coroutine. Call this only on a loop that is new or for which `rests` is true."""
        self._given = work, over
        rest, self._rest = self._rest, None
        if rest is not None:
            rest.set_result(None)

    def dismiss(self) -> None:
        """End the task: at once if it is suspended, otherwise after the running coroutine."""
        self._dismissed = True
        rest, self._rest = self._rest, None
        if rest is not None:
            rest.set_result(None)

    async def _run(self) -> None:
        while self._given is not None:
            (work, over), self._given = self._given, None
            error: Exception | None = None
            try:
                await work
            except Exception as raised:  # noqa: BLE001 - passed to the `over` callback
                error = raised
            finally:
                over(error)
            del work, over, error  # the suspended task must not keep the objects of the last request alive
            if self._dismissed:
                return
            self._rest = rest = self._loop.create_future()
            await rest

    def _end(self, _: asyncio.Task[None]) -> None:
        self._rest = None
        if self._given is not None:  # cancelled before the first step of the task
            work, over = self._given
            work.close()
            over(None)
