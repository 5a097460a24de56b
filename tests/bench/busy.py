"""`python -m tests.bench.busy`: a card that works is left alone; a killed one is out at once, then back.

BUSY_SECONDS (60) says how long two simulated ChatGLM2-6B servers generate, which answer nothing meanwhile:
one for a client that waits, one for a client that has left. BUSY_KILLS (5) says how often a server is killed
while it works, and how often while it does not; each is started again. The exit status is 1 when a card that
worked was put out, when a killed one was still in after a second, or one that came back was not asked again
within one probe period and a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import process
from tests.bench.__main__ import prepared, say
from tests.bench.figures import quantile
from tests.bench.own import Clients, Own, Reply, Server, chat, fetched, milliseconds, number, own, two_cores

PERIOD = 2.0
"""Seconds between two probes of an idle backend: the default."""
OUT = 1.0
"""Seconds within which a killed backend is out."""
BACK = PERIOD + 1.0
"""Seconds within which one that has come back is asked again."""
LOOK = 0.01
"""Seconds between two looks."""
SOON = "[health]\nslow_start = 0\n"
"""A backend that comes back has its slot at once, and can be killed again."""
PATIENCE = 20.0
"""Seconds after which nobody waits any more for what should have happened long ago."""
EJECTIONS = re.compile(r"^gateway_backend_ejections_total\{.*\} (\S+)$", re.MULTILINE)
UP = re.compile(r'^gateway_backend_up\{backend="(.*)"\} (\S+)$', re.MULTILINE)
WORKING = re.compile(r"^gateway_backend_inflight\{.*\} 1\.0$", re.MULTILINE)
ZOMBIES = re.compile(r'^gateway_backend_zombies\{backend="left"\} (\S+)$', re.MULTILINE)


class Card:
    """A simulated server in a process of its own, which can be killed and started again on its port."""

    def __init__(self, name: str, run: Path, core: int, latency: float) -> None:
        self.name = name
        self.port = process.free_port()
        self._latency = latency
        self._core = core
        self._log = run / f"card-{name}.log"
        self._stack = contextlib.ExitStack()

    @property
    def server(self) -> Server:
        """As the gateway knows it, with a model of its own."""
        return Server(self.name, f"http://127.0.0.1:{self.port}", "chatglm2", self.name)

    def start(self) -> float:
        """Start it; the time at which it listens."""
        command = [sys.executable, "-m", "gateway", "simulate", "--dialect", "chatglm2"]
        command += ["--port", str(self.port), "--latency", str(self._latency)]
        program = self._stack.enter_context(process.started(command, core=self._core, log=self._log))
        self._program: subprocess.Popen[bytes] = program
        while not process.listens(self.port):
            if program.poll() is not None:
                raise RuntimeError(f"{self.name} ended with status {program.returncode}")
            time.sleep(LOOK / 2)
        return time.perf_counter()

    def kill(self) -> float:
        """End it without a word; the time at which it was told."""
        told = time.perf_counter()
        self._program.send_signal(signal.SIGKILL)
        self._program.wait()
        return told

    def end(self) -> None:
        """Wait until all that was started is gone."""
        self._stack.close()


@dataclass
class Times:
    """Seconds from a kill until the backend was out, and from its return until it was in again."""

    out: list[float] = field(default_factory=list)
    back: list[float] = field(default_factory=list)


@dataclass
class Course:
    """How it went. `out` has the moments at which a card that worked was not up."""

    generated: float = 0.0
    looks: int = 0
    out: list[str] = field(default_factory=list)
    ejections: float = 0.0
    unanswered: list[str] = field(default_factory=list)
    kills: dict[str, Times] = field(default_factory=dict)

    def figures(self) -> Iterator[str]:
        """What was measured, a line each."""
        yield (
            f"generated for {self.generated:.0f} s under probes every {PERIOD:g} s: out at {len(self.out)}"
            f" of {self.looks} looks, {self.ejections:g} ejections"
        )
        for how, times in self.kills.items():
            yield (
                f"killed {len(times.out)} times while {how}: out after {_spread(times.out)}"
                f" (promised: {OUT:g} s), back after {_spread(times.back)} (promised: {BACK:g} s)"
            )

    def faults(self) -> list[str]:
        """What is wrong; empty where all is well."""
        found = list(dict.fromkeys(self.out))
        if self.ejections:
            found.append("a card that worked was put out")
        found += self.unanswered
        for how, times in self.kills.items():
            if max(times.out, default=0.0) > OUT:
                found.append(f"a card that was killed while {how} was not out in time")
            if max(times.back, default=0.0) > BACK:
                found.append(f"a card that came back, killed while {how}, was not asked in time")
        return found


def _spread(seconds: list[float]) -> str:
    return f"{milliseconds(quantile(seconds, 0.5))}, the slowest {milliseconds(max(seconds, default=0.0))}"


# --- a card that works -----------------------------------------------------------------------------


async def work(here: Own, seconds: float, course: Course) -> None:
    """Let one card work for a client that waits and one for a client that has left, and look on."""
    clients = Clients(here.port)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(clients.ask(chat("你好", model="waited")))
        leaving = group.create_task(clients.ask(chat("你好", model="left")))
        await _wait(lambda: len(WORKING.findall(_page(here))) == 2)
        leaving.cancel()
        began = time.perf_counter()
        while not waiting.done() and time.perf_counter() < began + seconds + PATIENCE:
            _look(here, course)
            await asyncio.sleep(max(LOOK, min(0.1, seconds / 20)))
        waiting.cancel()
        course.generated = time.perf_counter() - began
    if waiting.cancelled() or waiting.result().status != 200:
        course.unanswered.append("the client that waited was not answered")
    await _wait(lambda: not float(_only(ZOMBIES, _page(here))))
    page = _page(here)
    course.ejections = sum(map(float, EJECTIONS.findall(page)))
    clients.close()


def _look(here: Own, course: Course) -> None:
    course.looks += 1
    course.out += [f"{name} was out while it worked" for name, up in UP.findall(_page(here)) if not float(up)]


def _page(here: Own) -> str:
    return fetched(here.admin, "/metrics")[1]


def _only(pattern: re.Pattern[str], page: str) -> str:
    (found,) = pattern.findall(page)
    return str(found)


async def _wait(condition: Callable[[], bool]) -> float:
    """Wait for something, and give the time; `PATIENCE` later it is given up."""
    ends = time.perf_counter() + PATIENCE
    while not condition() and time.perf_counter() < ends:  # noqa: ASYNC110 - another process has no event
        await asyncio.sleep(LOOK)
    return time.perf_counter()


# --- a card that is killed -------------------------------------------------------------------------


async def kill(here: Own, card: Card, times: Times, course: Course, *, busy: bool) -> None:
    """Kill a card while it works or does not, and start it again."""
    clients = Clients(here.port)
    call: asyncio.Future[Reply] | None = None
    if busy:
        call = asyncio.ensure_future(clients.ask(chat("你好", model=card.name)))
        await _wait(lambda: bool(WORKING.findall(_page(here))))
    told = card.kill()
    times.out.append(await _wait(lambda: not _ready(here)) - told)
    if call is not None and (await call).status not in (502, 503):
        course.unanswered.append("the client of a card that was killed was not told")
    listens = await asyncio.to_thread(card.start)
    times.back.append(await _wait(lambda: _ready(here)) - listens)
    clients.close()


def _ready(here: Own) -> bool:
    """Whether the gateway has a backend that may be asked."""
    return fetched(here.admin, "/readyz")[0] == 200


# --- the program -----------------------------------------------------------------------------------


@contextlib.contextmanager
def cards(run: Path, latency: float, *names: str) -> Iterator[list[Card]]:
    """Cards that listen, and are gone at the end."""
    found = [Card(name, run, two_cores()[1], latency) for name in names]
    try:
        for card in found:
            card.start()
        yield found
    finally:
        for card in found:
            card.end()


async def busy(seconds: float, kills: int, folder: Path, tell: Callable[[str], None]) -> Course:
    """The whole thing: what works is left alone, what is killed is out and comes back."""
    course = Course()
    with (
        cards(folder, seconds, "waited", "left") as both,
        own([one.server for one in both], folder, core=two_cores()[0]) as here,
    ):
        await _wait(lambda: all(float(up) for _, up in UP.findall(_page(here))))
        tell(f"two cards generate for {seconds:g} s")
        await work(here, seconds, course)
    for how in ("working", "idle") if kills else ():
        tell(f"a card is killed {kills} times while {how}")
        await _killed_often(kills, folder, course, how)
    return course


async def _killed_often(kills: int, folder: Path, course: Course, how: str) -> None:
    chance = random.Random(7)
    times = course.kills[how] = Times()
    with (
        cards(folder, 60.0 if how == "working" else 0.0, "killed") as (card,),
        own([card.server], folder, SOON, core=two_cores()[0]) as here,
    ):
        for _ in range(kills):
            await _wait(lambda: 'state="up"} 1.0' in _page(here))
            await asyncio.sleep(chance.uniform(0.0, PERIOD))  # anywhere between two probes
            await kill(here, card, times, course, busy=how == "working")


def main() -> int:
    """The program; gives its exit status."""
    folder = prepared()
    seconds, kills = number(os.environ, "BUSY_SECONDS", 60), int(number(os.environ, "BUSY_KILLS", 5))
    course = asyncio.run(busy(seconds, kills, folder, say))
    say("\n".join(course.figures()))
    faults = course.faults()
    say("\n".join(faults) if faults else "kept: all of it")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
