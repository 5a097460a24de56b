"""`python -m tests.bench.soak`: many requests and events through one gateway; its memory must stay flat.

SOAK_REQUESTS (200000) and SOAK_EVENTS (2000000) say how many, SOAK_SECONDS (1800) when to give up. After each
slice of load the gateway's memory, open files and threads are read. The exit status is 1 when memory rises by
more than 5 MB for each 100,000 answers after the first quarter, when files or threads become more, when an
answer was bad, or when something is left in a gauge at the end.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.bench import process
from tests.bench.__main__ import prepared, say
from tests.bench.bench import Bench, Served, bench
from tests.bench.figures import slope
from tests.bench.kit import kit
from tests.bench.record import sample_of
from tests.bench.target import Target, targets
from tests.bench.workload import Workload

MOST = 5.0
"""MB that memory may rise for each 100,000 answers."""
PER = 100_000
WARM_UP = 0.25
"""Share of the answers that are not judged: caches fill, arenas grow to their size."""
SPARE = 5
"""Open files or threads that a later slice may have more than an earlier one."""
GAUGES = re.compile(r"^(gateway_(?:queue_depth|backend_inflight|backend_zombies)\S*) (\S+)$", re.MULTILINE)


class Point(NamedTuple):
    """The gateway after a slice of load: answers and events so far, memory, open files, threads."""

    answers: int
    events: int
    mib: float
    files: int
    threads: int


@dataclass
class Course:
    """How the gateway went. `bad` counts faulty answers, `left` has the gauges that are not 0 at the end."""

    points: list[Point] = field(default_factory=list)
    bad: int = 0
    complete: bool = False
    left: list[str] = field(default_factory=list)

    @property
    def settled(self) -> list[Point]:
        """The points after the warm-up."""
        total = self.points[-1].answers if self.points else 0
        return [point for point in self.points if point.answers >= WARM_UP * total]

    @property
    def rise(self) -> float:
        """MB for each 100,000 answers, after the warm-up."""
        points = [(float(point.answers), point.mib * 1.048576) for point in self.settled]
        return slope(points) * PER

    def faults(self) -> list[str]:
        """What is wrong; empty where all is well."""
        wrong = [] if self.complete else ["it was given up before the end"]
        if self.bad:
            wrong.append(f"{self.bad} bad answers")
        if self.rise > MOST:
            wrong.append(f"memory rises by {self.rise:.1f} MB for each {PER:,} answers")
        for what in ("files", "threads"):
            first, last = self._halves(what)
            if last > first + SPARE:
                wrong.append(f"{what} went from {first:.0f} to {last:.0f}")
        return wrong + [f"{gauge} at the end" for gauge in self.left]

    def _halves(self, what: str) -> tuple[float, float]:
        values = [getattr(point, what) for point in self.settled]
        middle = len(values) // 2
        return (median(values[:middle]), median(values[middle:])) if middle else (0.0, 0.0)


@dataclass(frozen=True)
class Plan:
    """How much, in slices of so many seconds, and when to give up."""

    answers: int
    events: int
    slice: float = 2.0
    limit: float = 1800.0

    @property
    def whole(self) -> Workload:
        """A slice of plain requests."""
        return Workload("soak-whole", clients=32, seconds=self.slice)

    @property
    def streamed(self) -> Workload:
        """A slice of streams, paced quickly."""
        return Workload("soak-stream", clients=32, seconds=self.slice, stream=True, gap_us=2000)


def soak(one: Bench, gateway: Target, plan: Plan, tell: Callable[[str], None]) -> Course:
    """Load the gateway as planned and look at it after every slice."""
    course = Course()
    with one.serving(gateway) as served:
        for point in _slices(one, gateway, served, plan, course):
            course.points.append(point)
            tell(
                f"{point.answers:>9,} answers {point.events:>10,} events  {point.mib:6.1f} MiB"
                f"  {point.files:>3} files  {point.threads:>2} threads"
            )
        course.left = left(served.second)
    return course


def _slices(one: Bench, gateway: Target, served: Served, plan: Plan, course: Course) -> Iterator[Point]:
    answers = events = whole = 0
    ends = time.monotonic() + plan.limit
    while time.monotonic() < ends:
        if whole >= plan.answers and events >= plan.events:
            course.complete = True
            return
        behind = whole * plan.events <= events * plan.answers
        workload = plan.whole if behind else plan.streamed
        one.steer(workload)
        sample = sample_of(one.load(gateway, served.port, workload), 0.0)
        answers += sample.done
        whole += 0 if workload.stream else sample.done
        events += sample.events
        course.bad += sample.bad
        files, threads = process.count(served.pid, "fd"), process.count(served.pid, "task")
        yield Point(answers, events, served.pss_mib(), files, threads)


def left(port: int, deadlines: float = 10.0) -> list[str]:
    """The gauges of the admin plane that do not come to 0 within `patience` seconds."""
    ends = time.monotonic() + deadlines
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics")
            page = connection.getresponse().read().decode()
        found = [f"{name} is {value}" for name, value in GAUGES.findall(page) if float(value)]
        if not found or time.monotonic() > ends:
            return found
        time.sleep(0.2)


def run(plan: Plan, folder: Path, tell: Callable[[str], None]) -> Course:
    """The whole thing: mock, gateway, load."""
    with bench(kit(folder), folder) as one:
        return soak(one, targets()["gateway"], plan, tell)


def main() -> int:
    """The program; gives its exit status."""
    plan = Plan(
        answers=int(os.environ.get("SOAK_REQUESTS", "200000")),
        events=int(os.environ.get("SOAK_EVENTS", "2000000")),
        limit=float(os.environ.get("SOAK_SECONDS", "1800")),
    )
    course = run(plan, prepared(), say)
    say(f"memory: {course.rise:+.2f} MB for each {PER:,} answers, at most {MOST:.0f} allowed")
    faults = course.faults()
    say(
        "\n".join(faults) if faults else "flat: no bad answer, no file, thread, slot or place in a queue left"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
