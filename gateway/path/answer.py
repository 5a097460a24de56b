"""`Answer`: what doors read; and `ParallelChoices`: one answer made of several generations."""

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
    """Accepts the bytes of a stream without waiting: the channel to a client."""

    @property
    def flows(self) -> bool:
        """True if `pour` may be called now: the body has begun, and the client reads fast enough."""

    def pour(self, piece: bytes) -> None:
        """Send a piece that is not empty. Only while `flows` is True."""


class Answer(ABC):
    """An answer while it arrives. Its reader closes it. `done` is True once all of it has been read."""

    done: bool = False

    @abstractmethod
    async def read(self) -> list[Event]:
        """Return the next events, which may be none. Raises the error that ends the answer early."""

    async def flow(self, sink: ByteSink) -> None:  # noqa: B027 - a default, not abstract
        """Pass bytes on to `sink` without parsing them for as long as that is possible; then return.

        Does nothing for answers whose events must be read. Raises nothing: `read` raises what ends the
        answer.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Abandon the answer. Does nothing once it is done."""


class ParallelChoices(Answer):
    """Several generations at the same time, one for each choice (rule T8). Fails when one of them fails."""

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
            if isinstance(item, Exception):  # another choice had failed before
                forget_trace(item)


async def _pump(
    choice: int, answer: Answer, queue: asyncio.Queue[tuple[int, list[Event] | Exception | None]]
) -> None:
    try:
        while not answer.done:
            await queue.put((choice, await answer.read()))
    except Exception as error:  # noqa: BLE001 - raised by the reader of the queue
        await queue.put((choice, error))
    else:
        await queue.put((choice, None))
    finally:
        await answer.aclose()
