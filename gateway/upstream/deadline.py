"""A limit on waiting that moves with every piece of an answer, over one timer that is rarely touched."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Deadline:
    """Ends what is waited for inside `with` when the time set last has passed, as asyncio.timeout does.

    Of one exchange, used by one task at a time. Moving it later, which is what happens for each piece,
    costs no timer: the armed one finds out when it fires, and arms itself again for the rest. `cancel` it
    in the end.
    """

    __slots__ = ("_armed", "_cancelling", "_expired", "_loop", "_task", "_timer", "_when")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._when = 0.0
        self._armed = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._expired = False

    def move(self, delay: float) -> None:
        """Let the time end `delay` seconds from now."""
        self._when = when = self._loop.time() + delay
        if self._timer is None or when < self._armed:
            self._arm(when)

    def _arm(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed = when
        self._timer = self._loop.call_at(when, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if self._when - self._loop.time() > 0.001:  # moved since; or fired early by the clock's grain
            self._arm(self._when)
        elif self._task is not None:
            self._expired = True
            self._task.cancel()

    def __enter__(self) -> None:
        task = asyncio.current_task(self._loop)  # not told the loop, it asks the kernel for the process
        if task is None:
            raise RuntimeError("A deadline can only end what a task waits for.")
        self._task = task
        self._cancelling = task.cancelling()
        if self._timer is None:  # it fired while nobody waited
            self._arm(self._when)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raise `TimeoutError` where the deadline, and nobody else, has ended the waiting."""
        task, self._task = self._task, None
        if self._expired and task is not None:
            self._expired = False
            if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
                raise TimeoutError from error

    def cancel(self) -> None:
        """Nothing is waited for any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
