"""Worker: the task that serves the requests of one connection, one after the other.

A task of its own for each request costs more than reading the request's head does: asyncio enters it in its
lists, takes it out again, and tells of its end in another turn of the loop. A connection that stays keeps one
task, which rests in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

Work: TypeAlias = Coroutine[Any, Any, None]
Over: TypeAlias = Callable[[Exception | None], None]
"""Is told that a piece of work has ended, and what it raised; None also where it was cancelled."""


class RequestLoop:
    """Does a piece of work whenever it `rests`. Ends when it is dismissed, and with cancelled work."""

    __slots__ = ("_dismissed", "_given", "_loop", "_rest", "task")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._given: tuple[Work, Over] | None = None
        self._rest: asyncio.Future[None] | None = None
        self._dismissed = False
        self.task: asyncio.Task[None] = loop.create_task(self._run())
        """What can be cancelled to cancel the work."""
        self.task.add_done_callback(self._end)

    @property
    def rests(self) -> bool:
        """Whether it can be given work. A new one can, too."""
        return self._rest is not None

    def give(self, work: Work, over: Over) -> None:
        """Let it begin soon; only to one that is new or rests."""
        self._given = work, over
        rest, self._rest = self._rest, None
        if rest is not None:
            rest.set_result(None)

    def dismiss(self) -> None:
        """Let it end when its work has, or now."""
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
            except Exception as raised:  # noqa: BLE001 - who gave the work is told
                error = raised
            finally:
                over(error)
            del work, over, error  # a request must not live as long as its connection
            if self._dismissed:
                return
            self._rest = rest = self._loop.create_future()
            await rest

    def _end(self, _: asyncio.Task[None]) -> None:
        self._rest = None
        if self._given is not None:  # cancelled before it began
            work, over = self._given
            work.close()
            over(None)
