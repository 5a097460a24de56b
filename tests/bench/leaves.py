"""`python -m tests.bench.leaves`: clients that leave at every moment; how soon the card of each server knows.

LEAVES (1000) says how many leave in each case: in the queue, before the first token, and in the middle of an
answer; streamed and whole; of each dialect; every second one without a farewell. Printed is the time from a
client's end of its connection to the backend's, or to the booking of a card that cannot be stopped. The exit
status is 1 when one of a hundred took longer than 200 ms, or when anything is left behind: a slot, a place in
the queue, a connection, a task, an open file.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.bench.__main__ import prepared, say
from tests.bench.figures import quantile
from tests.bench.own import milliseconds, number
from tests.support.fleet import SERVERS
from tests.support.leaving import WINDOWS, Case, Departures, depart

LIMIT = 0.2
"""Seconds, for 99 of 100."""
CASES = [Case(server, stream, window) for window in WINDOWS for server in SERVERS for stream in (True, False)]


@dataclass
class Course:
    """How it went, case by case."""

    found: list[tuple[Case, Departures]] = field(default_factory=list)

    def faults(self) -> list[str]:
        """What is wrong; empty where all is well."""
        return [f"{case}: {fault}" for case, found in self.found for fault in _faults(found)]

    def figures(self) -> list[str]:
        """What was measured, a line for each moment."""
        lines = []
        for window in WINDOWS:
            times = [time for case, found in self.found if case.window == window for time in found.times]
            if times:
                lines.append(f"{window}: {_spread(times)} (promised: {milliseconds(LIMIT)})")
        return lines


def _faults(found: Departures) -> list[str]:
    slow = quantile(found.times, 0.99) > LIMIT
    # Each leaves as the others did: what is wrong with all of them is told once.
    return [*(["the backend knew too late"] if slow else []), *dict.fromkeys(found.faults)]


def _spread(times: Sequence[float]) -> str:
    middle, last = (milliseconds(quantile(times, share)) for share in (0.5, 0.99))
    return f"{len(times)} left, p50 {middle}, p99 {last}"


async def leaves(cases: Sequence[Case], count: int, tell: Callable[[str], None]) -> Course:
    """Let so many clients leave in each case."""
    course = Course()
    for case in cases:
        found = await _departures(case, count)
        course.found.append((case, found))
        tell(f"{case}: {_spread(found.times)}")
    return course


async def _departures(case: Case, count: int) -> Departures:
    try:
        return await depart(case, count, "fin", "rst")
    except TimeoutError:
        found = Departures()
        found.check("something that had to come never came", ok=False)
        return found


def main() -> int:
    """The program; gives its exit status."""
    prepared()
    course = asyncio.run(leaves(CASES, int(number(os.environ, "LEAVES", 1000)), say))
    say("\n".join(course.figures()))
    faults = course.faults()
    say("\n".join(faults) if faults else "kept: all of it")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
