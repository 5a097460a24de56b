"""One memory budget, in bytes, for all requests of the process.

A request counts from the first byte of its body until it ends. Its memory is estimated: the body, the
objects parsed from it, and the bodies sent to backends.

    while the body arrives   `OWN`, plus `READING` times its length (or the length so far)
    before it is parsed      `OWN`, plus its length, plus the result of `weight`
    after that               the same, plus the translated bodies where backends of several kinds may be asked

A request that does not fit waits in the order of arrival, and the rest of its body stays unread. Small
requests do not wait behind large ones. A request is refused after `server.memory_wait` seconds, or at once
if too many wait.
"""

from __future__ import annotations

import asyncio
from collections import deque

from gateway.api.request_context import RequestContext
from gateway.errors import NoMemory

OWN = 16_384
"""Bytes that every request needs besides its body: its task, its frames, its ticket."""
READING = 3
"""Factor for a body while it is read: its pieces, the joined body, and the parsed objects."""
MARK = 64
"""Bytes of a parsed JSON value besides its text: the smallest object and a reference to it."""
SMALL = 262_144
"""Requests of up to this many bytes do not wait behind larger ones."""
LITTLE = 8
"""A request may grow by a `LITTLE`th of what it holds without waiting."""
BEGINNING = 131_072
"""Bytes that a waiting request may have sent before reading from its connection stops."""
SHARE = 4
"""The unread beginnings of waiting requests may take up to a `SHARE`th of the budget, on top of it."""
PIECE = 65_536
"""Bytes scanned in one step. The interpreter's lock is held during a step."""
RETRY_AFTER = 2.0
"""Value of `Retry-After` for a refused request, in seconds."""


def weight(raw: bytes) -> int:
    """Return an upper estimate, in bytes, of a body and the objects parsed from it."""
    width, marks = 1, 0
    for at in range(0, len(raw), PIECE):
        piece = raw[at : at + PIECE + 4]
        width = max(width, _width(piece))
        piece = piece[:PIECE]
        marks += piece.count(b",") + piece.count(b"[") + piece.count(b"{") + piece.count(b":")
    return len(raw) * (1 + width) + marks * MARK


def _width(raw: bytes) -> int:
    """Return bytes per character: Python stores every character of a string as wide as its widest one."""
    if b"\xf0" in raw or b"\\ud8" in raw or b"\\uD8" in raw:
        return 4
    return 1 if raw.isascii() and b"\\u" not in raw else 2


class MemoryBudget:
    """The budget. One for the process. `used` can exceed `limit`, because `set` does not wait."""

    def __init__(self, limit: int, wait: float) -> None:
        self.limit = limit
        self.used = 0
        self._wait = wait
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def reconfigure(self, limit: int, wait: float) -> None:
        """Use another limit, in bytes, and another maximum wait, in seconds."""
        self.limit, self._wait = limit, wait
        self._grant()

    @property
    def largest(self) -> int:
        """The largest body, in bytes, that fits into an otherwise unused budget."""
        return (self.limit - OWN) // READING

    @property
    def waiting(self) -> int:
        """Number of requests that wait for memory."""
        return len(self._waiting)

    def seize(self, context: RequestContext, size: int) -> bool:
        """Raise what `context` holds to `size` bytes if that is possible now; return whether it was."""
        held = context.held
        more = size - held
        if more > held // LITTLE:
            goes_first = held > 0 or size <= SMALL or not self._waiting
            if self.used + more > self.limit or not goes_first:
                return False
        context.memory, context.held = self, size
        self.used += more
        if more < 0:
            self._grant()
        return True

    async def take(self, context: RequestContext, size: int) -> None:
        """Raise what `context` holds to `size` bytes, waiting if needed. Raises `NoMemory`."""
        if self.seize(context, size):
            return
        if not context.held and (len(self._waiting) * BEGINNING * SHARE >= self.limit or size > self.limit):
            raise _full()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (size - context.held, future)
        if context.held:  # requests that hold memory go first, else all could wait for one another
            self._waiting.appendleft(entry)
        else:
            self._waiting.append(entry)
        try:
            async with asyncio.timeout(self._wait):
                await future
        except TimeoutError:
            raise _full() from None
        finally:
            if future.done() and not future.cancelled():
                context.memory, context.held = self, size  # granted; returned at the end of the request
            elif entry in self._waiting:
                self._waiting.remove(entry)
                self._grant()

    def set(self, context: RequestContext, size: int) -> None:
        """Set what `context` holds to `size` bytes, even beyond the limit."""
        more = size - context.held
        context.memory, context.held = self, size
        self.used += more
        if more < 0:
            self._grant()

    def borrow(self, size: int) -> bool:
        """Take bytes for a shadow copy; return False if a request waits or the bytes are not available."""
        if self._waiting or self.used + size > self.limit:
            return False
        self.used += size
        return True

    def give(self, size: int) -> None:
        """Return bytes to the budget and grant waiting requests."""
        self.used -= size
        if self._waiting:
            self._grant()

    def _grant(self) -> None:
        while self._waiting and self.used + self._waiting[0][0] <= self.limit:
            more, future = self._waiting.popleft()
            if not future.done():
                self.used += more
                future.set_result(None)

    def __repr__(self) -> str:
        return f"<MemoryBudget {self.used} of {self.limit} bytes, {self.waiting} waiting>"


def _full() -> NoMemory:
    return NoMemory("The gateway holds too many large requests. Try again.", retry_after=RETRY_AFTER)
