"""An answer as it comes, and several generations that are one answer."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

from gateway.abilities import usage
from gateway.background import Background
from gateway.errors import forget_trace
from gateway.formats.events import Delta, Event, Finish, Usage
from gateway.telemetry.receipt import Receipt


class ByteSink(Protocol):
    """Where the bytes of a stream may go on to without waiting: a client."""

    @property
    def flows(self) -> bool:
        """Whether it takes a piece at this moment: its body has begun, and its reader keeps up."""

    def pour(self, piece: bytes) -> None:
        """Send a piece, not an empty one; only while it `flows`."""


class Answer(ABC):
    """An answer as it comes. Whoever reads it closes it. `done` tells that all of it has been read."""

    done: bool = False

    @abstractmethod
    async def read(self) -> list[Event]:
        """The next pieces; may be none. Raises whatever ends the answer before its time."""

    async def flow(self, sink: ByteSink) -> None:  # noqa: B027 - most have to be read
        """Let pieces go on by themselves as long as they need no look, and return when `read` is needed.

        Does nothing for answers that have to be read piece by piece. Raises nothing.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Leave. Does nothing after the end."""


class ParallelChoices(Answer):
    """Generations side by side, each with a ticket of its own (rule T8); fails as soon as one fails."""

    def __init__(self, generations: Sequence[Answer], receipt: Receipt, background: Background) -> None:
        self._going = len(generations)
        self._receipt = receipt
        self._usages: list[Usage] = []
        self._queue: asyncio.Queue[tuple[int, list[Event] | Exception | None]] = asyncio.Queue(self._going)
        self._tasks = [
            background.start(_pump(choice, one, self._queue), f"choice {choice} of {receipt.request_id}")
            for choice, one in enumerate(generations)
        ]

    async def read(self) -> list[Event]:
        choice, item = await self._queue.get()
        if isinstance(item, Exception):
            raise item
        if item is not None:
            return [out for event in item if (out := self._of_choice(event, choice)) is not None]
        self._going -= 1
        if self._going:
            return []
        self.done = True
        whole = usage.total(self._usages)
        self._receipt.usage = whole
        return [whole]

    def _of_choice(self, event: Event, choice: int) -> Event | None:
        if isinstance(event, Usage):
            self._usages.append(event)
            return None
        return event._replace(choice=choice) if isinstance(event, Delta | Finish) else event

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while not self._queue.empty():
            _, item = self._queue.get_nowait()
            if isinstance(item, Exception):  # of a choice that failed after another one
                forget_trace(item)


async def _pump(
    choice: int, answer: Answer, queue: asyncio.Queue[tuple[int, list[Event] | Exception | None]]
) -> None:
    try:
        while not answer.done:
            await queue.put((choice, await answer.read()))
    except Exception as error:  # noqa: BLE001 - not swallowed: the reader of the queue raises it
        await queue.put((choice, error))
    else:
        await queue.put((choice, None))
    finally:
        await answer.aclose()
