"""Runs the parsing of large bodies in a thread, so that it does not block the event loop."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from gateway.errors import NoMemory

SMALL = 65_536
"""Bytes of a body up to which parsing it directly is faster than using the thread."""
_SURELY_LIGHT = 8_192
_FEW = 2_000
"""JSON values that are parsed in one to two milliseconds."""
MOST = 256
"""Jobs that may wait for the thread. More are refused."""

SWITCH_INTERVAL = 0.0005
"""Python's thread switch interval while the thread has work, in seconds.

The event loop needs the interpreter's lock after every socket call. With 200 bodies of 4 MiB arriving,
Python's default of 0.005 blocked it for 0.2 s. The default is restored when the thread is idle, because each
switch costs time.
"""

Given = ParamSpec("Given")
Result = TypeVar("Result")


def light(raw: bytes) -> bool:
    """Return True if a body is small and has few values, so that parsing it does not need the thread."""
    size = len(raw)
    if size <= _SURELY_LIGHT:
        return True
    return size <= SMALL and raw.count(b",") + raw.count(b"[") + raw.count(b"{") <= _FEW


class _Job:
    """A job for the thread. Setting `work` to None drops it, with all that it refers to."""

    __slots__ = ("work",)

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work: Callable[[], Any] | None = work

    def __call__(self) -> Any:
        work, self.work = self.work, None
        return work() if work is not None else None


class Offload:
    """One thread for work on large bodies. One for the process.

    There is one thread only, because threads that wait for the interpreter's lock get it in turn: each
    further thread would delay the event loop. A job whose caller is cancelled before it starts does not
    run.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="large-body")
        self._waiting = 0
        self._usual_interval = sys.getswitchinterval()

    async def run(self, work: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs) -> Result:
        """Run `work` in the thread and return its result. Raises `NoMemory` if `MOST` jobs wait already."""
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
            job.work = None  # a cancelled job stays in the executor's queue for a while
        return result

    def close(self) -> None:
        """Shut the thread down without waiting for it; jobs that have not started are dropped."""
        self._thread.shutdown(wait=False, cancel_futures=True)
