"""Where work goes whose length a client's body decides, so that it never holds up everybody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

SMALL = 65_536
"""Bytes of a body up to which a thread would cost more than it spares."""

Given = ParamSpec("Given")
Result = TypeVar("Result")


class Offload:
    """One thread beside the event loop, for large bodies. One for the whole process.

    One thread, not many: the interpreter's lock is handed over every few milliseconds, and each more that
    waits for it would take its turn before the loop does.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="large-body")

    async def run(self, work: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs) -> Result:
        """Do `work`, which reads a large body, beside the loop."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: work(*args, **kwargs))

    def close(self) -> None:
        """Take no more work."""
        self._thread.shutdown(wait=False, cancel_futures=True)
