"""What requests leave behind: objects that only the collector can free, and memory of their bodies."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import tracemalloc
import types
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import gateway
from tests.support.stack import wait_until

HOME = str(Path(gateway.__file__).parent)
LARGE = 200_000
"""Characters of a text that is easily found in memory."""
_OTHERS = (f"{HOME}/simulator", "/tests/", "asyncio/streams.py")
"""Files whose objects are not the gateway's: simulators and the tests' own clients and servers."""


def _of_gateway(code: types.CodeType) -> bool:
    return code.co_filename.startswith(HOME) and not code.co_filename.startswith(_OTHERS[0])


def ours(found: Any) -> bool:
    """Whether an object is the gateway's, or of a kind that keeps a request's objects alive."""
    if isinstance(found, types.FrameType):
        return _of_gateway(found.f_code)
    if isinstance(found, types.CoroutineType):
        return _of_gateway(found.cr_code)
    if isinstance(found, types.TracebackType):
        return _of_gateway(found.tb_frame.f_code)
    if isinstance(found, BaseException | asyncio.Future):
        return True
    module = type(found).__module__
    return module.startswith("gateway.") and not module.startswith("gateway.simulator")


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def _garbage() -> Counter[str]:
    """What only the collector can free, by type."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    return Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.garbage if ours(one))


def _held() -> list[str]:
    """Where memory was taken, in the gateway, for something as large as the body, that is still there."""
    places = [
        str(trace.traceback[0]) for trace in tracemalloc.take_snapshot().traces if trace.size > LARGE * 3 // 4
    ]
    return [place for place in places if not any(other in place for other in _OTHERS)]


async def left_behind(act: Callable[[], Awaitable[object]], *, quiet: Callable[[], bool]) -> list[str]:
    """Let something happen twice, and tell what is left of the second time; `quiet`: when it is over."""
    await act()
    await wait_until(quiet)
    await _turns()
    tracemalloc.start()
    try:
        with _uncollected():
            await act()
            await wait_until(quiet)
            await _turns()
            held = _held()
            return [*held, *(f"{count} {name}" for name, count in _garbage().items())]
    finally:
        tracemalloc.stop()


async def _turns() -> None:
    """Let what was called soon happen."""
    for _ in range(10):
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
