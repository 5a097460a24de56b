"""Where work goes whose length a client's body decides, so that it never holds up everybody else."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from gateway.errors import NoMemory

SMALL = 65_536
"""Bytes of a body up to which a thread would cost more than it spares."""
_SURELY_LIGHT = 8_192
_FEW = 2_000
"""Values that are read in a millisecond or two."""
MOST = 256
"""Pieces of work that may wait."""

SWITCH_INTERVAL = 0.0005
"""Seconds after which the thread lets the event loop go on, while it has work.

The loop asks for the interpreter's lock at every socket that is ready. With 200 bodies of 4 MiB coming in,
Python's default of 0.005 stalled it for 0.2 s. Without work the default stays, as each switch costs time."""

Given = ParamSpec("Given")
Result = TypeVar("Result")


def light(raw: bytes) -> bool:
    """Whether a body is read in no time: it is small, and does not hold many values."""
    size = len(raw)
    if size <= _SURELY_LIGHT:
        return True
    return size <= SMALL and raw.count(b",") + raw.count(b"[") + raw.count(b"{") <= _FEW


class _Job:
    """A piece of work, which lets go of everything when nobody waits for it any more."""

    __slots__ = ("work",)

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work: Callable[[], Any] | None = work

    def __call__(self) -> Any:
        work, self.work = self.work, None
        return work() if work is not None else None


class Offload:
    """One thread beside the event loop, for large bodies. One for the whole process.

    One thread, not many: the interpreter's lock is handed over every few milliseconds, and each more that
    waits for it would take its turn before the loop does. Work whose waiter is cancelled is not begun.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="large-body")
        self._waiting = 0
        self._usual_interval = sys.getswitchinterval()

    async def run(self, work: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs) -> Result:
        """Do `work`, which reads a large body, beside the loop. Raises `NoMemory` where too much waits."""
        if self._waiting >= MOST:
            raise NoMemory("Too many large requests are being read. Try again.", retry_after=2)
        job = _Job(lambda: work(*args, **kwargs))
        if self._waiting == 0:
            sys.setswitchinterval(SWITCH_INTERVAL)
        self._waiting += 1
        try:
            result: Result = await asyncio.get_running_loop().run_in_executor(self._thread, job)
        finally:
            self._waiting -= 1
            if self._waiting == 0:
                sys.setswitchinterval(self._usual_interval)
            job.work = None  # what is cancelled stays in the executor's queue for a while
        return result

    def close(self) -> None:
        """Take no more work."""
        self._thread.shutdown(wait=False, cancel_futures=True)
