"""Clients that leave, one after the other, at one moment of their requests; and what becomes of the backend.

What is measured is the time from the client's end of the connection to the server's: the backend sees it
close, or, where the card cannot be stopped, its slot is booked as a zombie. Who leaves the queue has no
backend yet: there it is the time until the place is free.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Literal

from gateway.dispatch.dispatcher import Dispatcher
from tests.faults.checks import limits, over
from tests.support.fleet import Server
from tests.support.peer import Peer, Talk, peer
from tests.support.site import Site
from tests.support.tapes import STREAMING, Tape, tape
from tests.support.visitor import How, Visitor, chat

Window = Literal["queued", "before_first", "during"]
"""When they leave: in the queue, before the first token, in the middle of an answer, streamed or whole."""
WINDOWS: tuple[Window, ...] = ("queued", "before_first", "during")
STOPPABLE = {"chatglm3", "glm4", "openai"}
"""Dialects whose streams end with their connection."""
FILES = Path("/proc/self/fd")
SPARE = 2
"""Open files that may come and go: a connection kept for the next request, or for a probe."""
PATIENCE = 20.0
"""Seconds after which what has not happened never will."""


def streams(server: Server, *, stream: bool) -> bool:
    """Whether the server itself streams."""
    return stream and server in STREAMING


def kept(server: Server, *, stream: bool) -> bool:
    """Whether this server works on for nobody, as far as anyone knows."""
    return not (server.dialect == "openai" or (stream and server.dialect in STOPPABLE))


@dataclass(frozen=True)
class Case:
    """Which server, whether its clients want streams, and when they leave."""

    server: Server
    stream: bool
    window: Window

    @property
    def phase(self) -> str:
        """The word of the gateway's metrics for it: a client of a whole answer has seen nothing yet."""
        if self.window == "during":
            return "streaming" if streams(self.server, stream=self.stream) else "before_first"
        return self.window

    def __str__(self) -> str:
        return f"{self.server.id} {'stream' if self.stream else 'whole'} {self.window}"


@dataclass
class Departures:
    """What became of them: seconds until each backend was closed or booked, and all that was not right."""

    times: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def check(self, fault: str, *, ok: bool) -> None:
        """Note a fault, unless all is well."""
        if not ok:
            self.faults.append(fault)


class Watchful:
    """A server's script. Marks when its clients came, and when each left."""

    def __init__(self, beginning: bytes) -> None:
        self.beginning = beginning
        self.asked = 0
        self.answer = asyncio.Event()
        self.left: list[float] = []

    async def script(self, talk: Talk) -> None:
        """Say the beginning of an answer and wait; probes are answered when the test says so."""
        if (await talk.wait_request()).startswith(b"GET "):
            await self.answer.wait()
            await talk.send(b"HTTP/1.1 204 No Content\r\n\r\n")
            return
        if self.beginning:
            await talk.send(self.beginning)
        self.asked += 1
        gone = asyncio.ensure_future(talk.wait_left())
        ended = asyncio.ensure_future(self.answer.wait())
        await asyncio.wait({gone, ended}, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            self.left.append(asyncio.get_running_loop().time())
        gone.cancel()
        ended.cancel()


async def depart(case: Case, count: int, *hows: How) -> Departures:
    """Let so many clients leave, by turns in these ways."""
    here = Watchful(await _beginning(case))
    options = {"slots": 1} | ({"abandon": "close"} if case.server.dialect == "openai" else {})
    found = Departures()
    async with (
        peer(here.script) as place,
        over(case.server, place.url, extra=limits(), settle=False, **options) as gateway,
    ):
        leaving = _Leaving(case, here, place, gateway, found)
        await (leaving.queue if case.window == "queued" else leaving.go)(count, cycle(hows))
        await leaving.look_behind(count)
    return found


async def _beginning(case: Case) -> bytes:
    if case.window != "during":
        return b""
    good = await tape(case.server, stream=streams(case.server, stream=case.stream))
    return _part(good)


def _part(good: Tape) -> bytes:
    head = good.head(f"content-length: {len(good.body)}")
    return head + good.body[: len(good.body) * 6 // 10]


class _Leaving:
    """Clients that come to one gateway, and leave."""

    def __init__(self, case: Case, here: Watchful, place: Peer, gateway: Site, found: Departures) -> None:
        self._case = case
        self._here = here
        self._place = place
        self._gateway = gateway
        self._found = found
        self._zombie = kept(case.server, stream=case.stream)
        self._body = chat(stream=case.stream)
        self._quiet = (0, 0)

    @property
    def _dispatcher(self) -> Dispatcher:
        return self._gateway.gateway.dispatcher

    @property
    def _busy(self) -> tuple[int, int, int]:
        """Slots taken, of which for nobody, and how many wait."""
        one = self._dispatcher
        return one.in_flight("gpu-0"), one.zombies("gpu-0"), one.queue_depth("m")

    async def go(self, count: int, hows: Iterator[How]) -> None:
        """Leave a backend that works."""
        for turn in range(1, count + 1):
            await self._go(turn, next(hows))
            if turn == 1:
                self._quiet = _running()

    async def _go(self, turn: int, how: How) -> None:
        loop, here = asyncio.get_running_loop(), self._here
        visitor = await Visitor.to(self._gateway, self._body)
        await _wait(lambda: here.asked == turn)
        if self._case.phase == "streaming":
            await visitor.reader.readuntil(b'"content":"')
        began = loop.time()
        await visitor.leave(how)
        self._found.times.append(await self._wait_released(turn) - began)
        if self._zombie:
            self._found.check("a card that works on was not booked", ok=self._busy == (1, 1, 0))
            here.answer.set()
            await _wait(lambda: not self._busy[0])
            here.answer.clear()
        await _wait(lambda: self._busy == (0, 0, 0))

    async def _wait_released(self, turn: int) -> float:
        """Wait until this client's backend is free, or booked; give the time."""
        if self._zombie:
            await _wait(lambda: self._dispatcher.zombies("gpu-0") > 0)
            return asyncio.get_running_loop().time()
        await _wait(lambda: len(self._here.left) == turn)
        return self._here.left[-1]

    async def queue(self, count: int, hows: Iterator[How]) -> None:
        """Leave the queue behind one that never gets an answer."""
        loop, here = asyncio.get_running_loop(), self._here
        first = await Visitor.to(self._gateway, self._body)
        await _wait(lambda: here.asked == 1)
        for turn in range(1, count + 1):
            visitor = await Visitor.to(self._gateway, self._body)
            await _wait(lambda: self._busy[2] == 1)
            began = loop.time()
            await visitor.leave(next(hows))
            await _wait(lambda: self._busy[2] == 0)
            self._found.times.append(loop.time() - began)
            if turn == 1:
                self._quiet = _running()
        await _wait(lambda: self._left("queued") == count)
        self._found.check("a backend was asked for a client that had gone", ok=here.asked == 1)
        await first.leave()
        here.answer.set()
        await _wait(lambda: self._busy == (0, 0, 0))

    async def look_behind(self, count: int) -> None:
        """See that all are accounted for, and that nothing of them is left."""
        gateway, check = self._gateway, self._found.check
        await _wait(lambda: self._left(self._case.phase) >= count, ok_if_never=True)
        extra = self._case.window == "queued"  # the one who held the card left too
        gone = gateway.metric("gateway_requests_total", outcome="client_gone")
        check("not all were seen to leave", ok=self._left(self._case.phase) == count)
        check("not all were accounted for", ok=gone == count + extra)
        check("the backend was blamed", ok=gateway.metric("gateway_backend_up") == 1)
        gauges = gateway.in_flight, gateway.zombies, gateway.waiting
        check("a slot or a place is left in the gauges", ok=gauges == (0, 0, 0))
        await _wait(lambda: self._place.open <= 1, ok_if_never=True)
        check("a connection to the backend is left", ok=self._place.open <= 1)
        tasks, files = self._quiet
        await _wait(lambda: _running()[0] <= tasks and _running()[1] <= files + SPARE, ok_if_never=True)
        check("a task is left", ok=_running()[0] <= tasks)
        check("an open file is left", ok=_running()[1] <= files + SPARE)

    def _left(self, phase: str) -> float:
        return self._gateway.metric("gateway_client_disconnects_total", phase=phase)


def _running() -> tuple[int, int]:
    """Tasks, and open files where they can be counted."""
    files = len(list(FILES.iterdir())) if FILES.exists() else 0
    return len(asyncio.all_tasks()), files


async def _wait(condition: Callable[[], bool], *, ok_if_never: bool = False) -> None:
    """Wait for something. Raises TimeoutError after `PATIENCE`, unless somebody else finds out."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + PATIENCE
    while not condition():
        if loop.time() > ends:
            if ok_if_never:
                return
            raise TimeoutError
        await asyncio.sleep(0.001)
