"""Memory: one budget of bytes for all requests of the process, from the first byte of a body to the end.

What a request holds is estimated: the body, the objects that are made of it, and the bytes for the backends.

    while the body comes    `OWN` and `READING` times its length (of a body without one, of what has come)
    before it is parsed     what `weight` says, and the body once more for a backend
    from then on            what `weight` says without the body, and the bytes for each kind of backend

Who does not fit waits, with the rest of the body unread, in the order of arrival; small bodies do not wait
behind large ones. After `server.memory_wait` seconds the request is refused; at once, when too many wait.
"""

from __future__ import annotations

import asyncio
from collections import deque

from gateway.api.middleware import RequestContext
from gateway.errors import NoMemory

OWN = 16_384
"""Bytes that any request takes, whatever it says: its task, its frames, its place in the queue."""
READING = 3
"""How many times its length a body takes while it is read: it is put together, and then parsed."""
MARK = 64
"""Bytes that a value of JSON takes besides its text: the smallest object, and its place in another."""
SMALL = 262_144
"""Bytes of a request that is let in before larger ones that wait."""
LITTLE = 8
"""By which part of what it holds a request may always grow."""
BEGINNING = 131_072
"""Bytes that a request may have sent before it is not read any more."""
SHARE = 4
"""Which part of the budget the beginnings of those that wait may take besides it."""
PIECE = 65_536
"""Bytes that are looked at in one step: nobody else runs meanwhile, on whatever thread it is."""
RETRY_AFTER = 2.0
"""Seconds after which a refused request may come again."""


def weight(raw: bytes) -> int:
    """Bytes that a body and the objects made of it take, at most; an estimate that errs on the safe side."""
    width, marks = 1, 0
    for at in range(0, len(raw), PIECE):
        piece = raw[at : at + PIECE + 4]
        width = max(width, _width(piece))
        piece = piece[:PIECE]
        marks += piece.count(b",") + piece.count(b"[") + piece.count(b"{") + piece.count(b":")
    return len(raw) * (1 + width) + marks * MARK


def _width(raw: bytes) -> int:
    """Bytes for each character of its texts: Python stores all of a text as wide as its widest one."""
    if b"\xf0" in raw or b"\\ud8" in raw or b"\\uD8" in raw:
        return 4
    return 1 if raw.isascii() and b"\\u" not in raw else 2


class MemoryBudget:
    """The budget, one for the whole process. `used` may pass `limit` by what was not foreseen."""

    def __init__(self, limit: int, wait: float) -> None:
        self.limit = limit
        self.used = 0
        self._wait = wait
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def reconfigure(self, limit: int, wait: float) -> None:
        """Go by another limit from now on."""
        self.limit, self._wait = limit, wait
        self._grant()

    @property
    def largest(self) -> int:
        """Bytes of the largest body that fits if there is no other."""
        return (self.limit - OWN) // READING

    @property
    def waiting(self) -> int:
        """Requests that wait for memory."""
        return len(self._waiting)

    def seize(self, context: RequestContext, size: int) -> bool:
        """Take what is needed for `context` to hold `size` bytes, if it is there."""
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
        """Take what is needed for `context` to hold `size` bytes. Raises `NoMemory`."""
        if self.seize(context, size):
            return
        if not context.held and (len(self._waiting) * BEGINNING * SHARE >= self.limit or size > self.limit):
            raise _full()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (size - context.held, future)
        if context.held:  # who has begun goes first, or all would wait for one another
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
                context.memory, context.held = self, size  # granted; the end of the request gives it back
            elif entry in self._waiting:
                self._waiting.remove(entry)
                self._grant()

    def set(self, context: RequestContext, size: int) -> None:
        """Count `size` bytes for `context`, whether there is room or not."""
        more = size - context.held
        context.memory, context.held = self, size
        self.used += more
        if more < 0:
            self._grant()

    def borrow(self, size: int) -> bool:
        """Take bytes for what is no request of a client's, if there are so many that nobody waits for."""
        if self._waiting or self.used + size > self.limit:
            return False
        self.used += size
        return True

    def give(self, size: int) -> None:
        """Take bytes back, and let others in."""
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
