"""Work that outlives the request it came from, kept in sight and ended with the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Background:
    """A set of running tasks. Whoever starts one may await it; nobody has to.

    Unlike a TaskGroup one failing task does not end the others: each belongs to another client.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run `work` now; its failure is seen by whoever awaits the task, and else only kept off the log."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved: an abandoned answer may fail without anyone to tell

    async def aclose(self) -> None:
        """Cancel what still runs, and what that may start meanwhile, and wait for its end."""
        while tasks := list(self._tasks):
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0)  # the callbacks that forget them

    def __len__(self) -> int:
        return len(self._tasks)

    def __repr__(self) -> str:
        return f"<Background {sorted(task.get_name() for task in self._tasks)}>"
