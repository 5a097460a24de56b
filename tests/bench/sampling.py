"""`python -m tests.bench.sampling`: where a gateway spends its CPU, as shares of samples by program and room.

The gateway runs in this process under a timer that counts its CPU time; at each tick the innermost Python
frame is noted. What is done in C (the parser, the loop, system calls) counts for the frame that called it.
WORKLOADS=c32 says what it is asked for SAMPLE_SECONDS=5; the first lines by share are printed as a table.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType

from gateway.config import load
from gateway.server import serve
from tests.bench import process
from tests.bench.__main__ import prepared, say
from tests.bench.bench import Bench, bench
from tests.bench.kit import ROOT, kit
from tests.bench.tables import table
from tests.bench.target import Ports, command_of, targets
from tests.bench.workload import WORKLOADS, Workload

TICK = 0.001
"""Seconds of CPU between two samples."""
SHOWN = 30


def place(file: str) -> str:
    """The room of the gateway a file belongs to, else the package, else the part of the standard library."""
    parts = Path(file).parts
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1]
    if Path(file).is_relative_to(ROOT):
        return "/".join(Path(file).relative_to(ROOT).parts[:2])
    library = next((number for number, part in enumerate(parts) if part.startswith("python3.")), None)
    return f"python: {parts[library + 1].removesuffix('.py')}" if library is not None else f"python: {file}"


def shares(samples: Counter[str]) -> list[list[str]]:
    """The rows of the table: place and share, the largest first."""
    total = sum(samples.values()) or 1
    return [[name, f"{100 * count / total:.1f} %"] for name, count in samples.most_common(SHOWN)]


class Sampler:
    """Notes frames while `on`."""

    def __init__(self) -> None:
        self.on = False
        self.places: Counter[str] = Counter()
        self.functions: Counter[str] = Counter()

    def note(self, _number: int, frame: FrameType | None) -> None:
        """The handler of the timer's signal."""
        if self.on and frame is not None:
            where = place(frame.f_code.co_filename)
            self.places[where] += 1
            self.functions[f"{where} {frame.f_code.co_qualname}"] += 1


def asked(one: Bench, port: int, workload: Workload, sampler: Sampler, done: Callable[[], None]) -> None:
    """Warm the gateway up, load it under the sampler, and end it. Runs in a thread."""
    gateway = targets()["gateway"]
    try:
        while not process.listens(port):
            threading.Event().wait(0.1)
        one.steer(workload)
        one.load(gateway, port, replace(workload, seconds=1.0))
        sampler.on = True
        one.load(gateway, port, workload)
        sampler.on = False
    finally:
        done()


def main() -> int:
    """The program; gives its exit status."""
    run = prepared()
    name = os.environ.get("WORKLOADS") or "c32"
    workload = replace(WORKLOADS[name], seconds=float(os.environ.get("SAMPLE_SECONDS", "5")))
    sampler = Sampler()
    signal.signal(signal.SIGPROF, sampler.note)
    with bench(kit(run), run) as one, (run / "sampling.log").open("w") as log:
        ports = Ports(process.free_port(), process.free_port(), one.mock_port)
        settings = load(Path(command_of(targets()["gateway"], ports, run)[-1]), os.environ)
        end = lambda: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731 - the gateway's own way to end
        thread = threading.Thread(target=asked, args=(one, ports.own, workload, sampler, end))
        os.sched_setaffinity(0, {one.cores[0]})
        thread.start()
        signal.setitimer(signal.ITIMER_PROF, TICK, TICK)
        shown, sys.stdout = sys.stdout, log
        try:
            serve(settings)
        finally:
            sys.stdout = shown
            signal.setitimer(signal.ITIMER_PROF, 0)
            thread.join()
    say(f"{name}: {sum(sampler.places.values())} samples\n")
    say(table(["where", "share"], shares(sampler.places)))
    say(table(["function", "share"], shares(sampler.functions)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
