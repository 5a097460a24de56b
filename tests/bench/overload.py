"""`python -m tests.bench.overload`: twice as many requests as the cards can answer, and what comes of it.

OVERLOAD_SECONDS (60) says how long. Four simulated cards of one slot answer in a tenth of a second each. What
they can do is measured first, each asked directly, one thing after the other. Then requests arrive at the
gateway by chance, at 0.8 of that, at twice that, and evenly at half of it.
The exit status is 1 when the cards were idle for more than a twentieth of the overload, when a refusal came
late or did not say when to come again, when those that were taken waited too long, when `/livez` was slow, or
when things were not as before 5 seconds after.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from gateway.simulator import Options, Simulator
from tests.bench.__main__ import prepared, say
from tests.bench.figures import quantile
from tests.bench.own import (
    Clients,
    Own,
    Reply,
    Server,
    chat,
    get,
    milliseconds,
    native,
    number,
    own,
    two_cores,
)
from tests.bench.soak import left

CARDS = 4
SERVICE = 0.1
"""Seconds that a card takes for an answer."""
QUEUE = CARDS
"""Requests that may wait: one more for each card, so that nobody who is taken waits longer than an answer."""
NORMAL, TWICE, HALF = 0.8, 2.0, 0.5
"""Loads, as parts of the capacity."""
LOOK = 0.05
"""Seconds between two looks at `/livez`."""

GOODPUT = 0.95
"""The least share of the capacity that must become answers."""
REFUSAL = 0.05
"""Seconds to a refusal, for 99 of 100."""
LIVE = 0.1
"""Seconds to the answer of `/livez`, always."""
SLOWER = 2.0
"""How much longer than at the normal load an accepted request may take, for 99 of 100."""
AGAIN = 5.0
"""Seconds after the overload within which all is as before."""


@dataclass(frozen=True)
class Plan:
    """Seconds of the three loads, and of what is measured without the gateway."""

    before: float
    overload: float
    after: float = AGAIN + 1.0
    direct: float = 2.0

    @classmethod
    def of(cls, seconds: float) -> Plan:
        """So many seconds of overload, and what it takes to compare them with."""
        return cls(before=max(5.0, seconds / 4), overload=seconds)


@dataclass
class Phase:
    """What one load gave. `began` and `seconds` are the time in which its requests were sent.

    `late`: by how many seconds the latest of them was sent after it was due.
    """

    began: float
    seconds: float
    replies: list[Reply] = field(default_factory=list)
    late: float = 0.0

    @property
    def accepted(self) -> list[Reply]:
        """The answers."""
        return [one for one in self.replies if one.status == 200]

    @property
    def refused(self) -> list[Reply]:
        """The refusals."""
        return [one for one in self.replies if one.status == 503]

    def p99(self, replies: Iterable[Reply]) -> float:
        """Seconds within which 99 of 100 of these came."""
        return quantile([one.seconds for one in replies], 0.99)


@dataclass
class Course:
    """How it went. `twice` counts cards that were asked two things at once, `wasted` answers nobody got.

    `capacity` is what the cards can do, in answers a second.
    """

    capacity: float
    before: Phase
    overload: Phase
    after: Phase
    looks: list[Reply]
    twice: int = 0
    wasted: int = 0
    left: list[str] = field(default_factory=list)

    @property
    def goodput(self) -> float:
        """Answers that came while the overload was sent, as a share of what the cards can do."""
        over = self.overload
        came = [one.came for one in [*self.before.accepted, *over.accepted]]
        made = sum(over.began < one <= over.began + over.seconds for one in came)
        return made / (self.capacity * over.seconds)

    @property
    def normal_after(self) -> float:
        """Seconds from the end of the overload until no more request is refused or slow; 0: at once."""
        slow = SLOWER * self.before.p99(self.before.accepted)
        odd = [one.came for one in self.after.replies if one.status != 200 or one.seconds > slow]
        return max(odd, default=self.after.began) - self.after.began

    def figures(self) -> Iterator[str]:
        """What was measured, a line each."""
        over, base = self.overload, self.before
        taken, refused = over.accepted, over.refused
        yield f"the cards can do {self.capacity:.1f} answers a second"
        yield f"sent {len(over.replies)} in {over.seconds:g} s: {len(taken)} answered, {len(refused)} refused"
        yield f"goodput: {self.goodput:.1%} of what the cards can do (promised: {GOODPUT:.0%})"
        yield f"refusals, p99: {milliseconds(over.p99(refused))} (promised: {milliseconds(REFUSAL)})"
        yield (
            f"accepted, p99: {milliseconds(over.p99(taken))}, at {NORMAL:g} of the load"
            f" {milliseconds(base.p99(base.accepted))} (promised: {SLOWER:g} times that)"
        )
        slowest = max(one.seconds for one in self.looks)
        yield f"/livez, slowest of {len(self.looks)}: {milliseconds(slowest)} (promised: {LIVE * 1000:g} ms)"
        yield f"as before after {self.normal_after:.2f} s (promised: {AGAIN:g} s)"

    def faults(self) -> list[str]:
        """What is wrong; empty where all is well."""
        over, base = self.overload, self.before
        slow = SLOWER * base.p99(base.accepted)
        found = {
            "the cards were idle while requests waited or were refused": self.goodput < GOODPUT,
            "nobody was refused: it was no overload": not over.refused,
            "refusals came late": over.p99(over.refused) > REFUSAL,
            "a refusal did not say when to come again": not all(map(_says_when, over.refused)),
            "those that were taken waited too long": over.p99(over.accepted) > slow,
            "/livez was slow or failed": any(one.status != 200 or one.seconds > LIVE for one in self.looks),
            "it did not recover in time": self.normal_after > AGAIN,
            "requests ended in another way": any(map(_is_odd, [*base.replies, *over.replies])),
            f"{self.twice} cards were asked two things at once": bool(self.twice),
            f"{self.wasted} answers were made for nobody": bool(self.wasted),
        }
        return [fault for fault, is_so in found.items() if is_so] + [f"{one} at the end" for one in self.left]


def _says_when(reply: Reply) -> bool:
    return int(reply.headers.get("retry-after", 0)) >= 1


def _is_odd(reply: Reply) -> bool:
    return reply.status not in (200, 503)


# --- loads -----------------------------------------------------------------------------------------


def by_chance(rate: float, seconds: float, chance: random.Random) -> Iterator[float]:
    """Moments at which requests arrive that know nothing of one another."""
    moment = chance.expovariate(rate)
    while moment < seconds:
        yield moment
        moment += chance.expovariate(rate)


def evenly(rate: float, seconds: float) -> Iterator[float]:
    """Moments at equal distances."""
    return (count / rate for count in range(int(rate * seconds)))


async def phase(
    group: asyncio.TaskGroup, clients: Clients, moments: Iterable[float], seconds: float
) -> Phase:
    """Send a request at each of these moments. Their answers come into the phase when they come."""
    here = Phase(time.perf_counter(), seconds)

    async def send() -> None:
        here.replies.append(await clients.ask(chat("你好")))

    for moment in [*moments, seconds]:
        due = here.began + moment
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        here.late = max(here.late, time.perf_counter() - due)
        if moment < seconds:
            group.create_task(send())
    return here


async def look(clients: Clients, looks: list[Reply]) -> None:
    """Ask `/livez` for ever."""
    while True:
        looks.append(await clients.ask(get("/livez")))
        await asyncio.sleep(LOOK)


@contextlib.asynccontextmanager
async def cards() -> AsyncIterator[list[Simulator]]:
    """The simulated cards."""
    async with contextlib.AsyncExitStack() as stack:
        options = Options(dialect="chatglm2", latency=SERVICE, reply="好的。", history=1)
        yield [await stack.enter_async_context(Simulator(options)) for _ in range(CARDS)]


async def wait_capacity(simulators: list[Simulator], seconds: float) -> float:
    """Answers a second of these cards when each is asked again as soon as it has answered.

    By the median of what an answer takes: a machine that was held up for a moment changes nothing.
    """
    ends = time.perf_counter() + seconds
    request = native("你好")
    turns: list[float] = []

    async def ask(card: Simulator) -> None:
        clients, began = Clients(card.port), time.perf_counter()
        while began < ends:
            await clients.ask(request)
            ended = time.perf_counter()
            turns.append(ended - began)
            began = ended
        clients.close()

    await asyncio.gather(*map(ask, simulators))
    return len(simulators) / median(turns)


async def overload(here: Own, simulators: list[Simulator], plan: Plan, tell: Callable[[str], None]) -> Course:
    """Load a gateway over these cards as planned."""
    chance = random.Random(7)
    capacity = await wait_capacity(simulators, plan.direct)
    clients, looks = Clients(here.port), list[Reply]()
    async with asyncio.TaskGroup() as group:
        await phase(group, clients, evenly(HALF * capacity, 1), 1)  # the first of a program are slow
    warm = sum(one.started for one in simulators)
    async with asyncio.TaskGroup() as group:
        looking = group.create_task(look(clients, looks))
        tell(f"{NORMAL:g} of what the cards can do, {plan.before:g} s")
        moments = by_chance(NORMAL * capacity, plan.before, chance)
        before = await phase(group, clients, moments, plan.before)
        tell(f"{TWICE:g} times what they can do, {plan.overload:g} s")
        moments = by_chance(TWICE * capacity, plan.overload, chance)
        over = await phase(group, clients, moments, plan.overload)
        tell(f"{HALF:g} of it, {plan.after:g} s")
        after = await phase(group, clients, evenly(HALF * capacity, plan.after), plan.after)
        looking.cancel()
    clients.close()
    course = Course(capacity, before, over, after, looks)
    course.twice = sum(one.max_in_flight > 1 for one in simulators)
    answered = sum(len(one.accepted) for one in (before, over, after))
    course.wasted = sum(one.started for one in simulators) - warm - answered
    course.left = await asyncio.to_thread(left, here.admin)
    return course


async def run(plan: Plan, folder: Path, tell: Callable[[str], None], *, core: int) -> Course:
    """The whole thing: cards, a gateway on this core, load."""
    extra = f'[queue]\nlength = {QUEUE}\n[log]\nlevel = "warning"\n'
    async with cards() as simulators:
        servers = [Server(f"gpu-{place}", one.url, "chatglm2") for place, one in enumerate(simulators)]
        with own(servers, folder, extra, core=core) as here:
            return await overload(here, simulators, plan, tell)


def main() -> int:
    """The program; gives its exit status."""
    folder, plan = prepared(), Plan.of(number(os.environ, "OVERLOAD_SECONDS", 60))
    gateways, ours = two_cores()
    os.sched_setaffinity(0, {ours})
    course = asyncio.run(run(plan, folder, say, core=gateways))
    say("\n".join(course.figures()))
    say(f"(this program was late by {milliseconds(course.overload.late)}, load {os.getloadavg()[0]:.1f})")
    faults = course.faults()
    say("\n".join(faults) if faults else "kept: all of it")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
