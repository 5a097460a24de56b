"""`python -m tests.bench`: measure what is here, print the tables, keep the records in `.bench`.

ROUNDS=5 sets the rounds (3), WORKLOADS=c32,s100 and TARGETS=nginx,gateway choose, SCALE=0.2 shortens every
workload; NGINX, VLLM_ROUTER and SMG name programs that are not on the PATH. The exit status is 1 when a
target failed, had faults, or a promise was missed that was measured.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from tests.bench.bench import bench
from tests.bench.figures import shown
from tests.bench.judge import judge
from tests.bench.kit import ROOT, kit
from tests.bench.ratios import INVALID, MISSED, Book, goals
from tests.bench.record import Record
from tests.bench.tables import report
from tests.bench.target import Target, targets
from tests.bench.workload import WORKLOADS

Thing = TypeVar("Thing")


def say(text: str) -> None:
    """Tell the person who runs it."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def chosen(variable: str, known: Mapping[str, Thing]) -> dict[str, Thing]:
    """What the environment's comma list names, else everything; what is unknown ends the program."""
    names = [name for name in os.environ.get(variable, "").split(",") if name] or list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"{variable}: {', '.join(unknown)} not there; there are {', '.join(known)}")
    return {name: known[name] for name in names}


def turned(programs: Mapping[str, Target], turn: int) -> Iterator[Target]:
    """No proxy first, then the others in an order that begins with another one each round."""
    first = [one for one in programs.values() if not one.command]
    rest = [one for one in programs.values() if one.command]
    start = (turn - 1) % max(1, len(rest))
    return iter([*first, *rest[start:], *rest[:start]])


def prepared() -> Path:
    """The folder for what is made, and as many open files as the system allows."""
    run = ROOT / ".bench"
    run.mkdir(exist_ok=True)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every program started is ended
    return run


def measured(run: Path, rounds: int) -> list[Record]:
    """All rounds, each record written down as soon as it is there."""
    known = targets()
    programs = {"direct": known["direct"], **chosen("TARGETS", known)}
    workloads = chosen("WORKLOADS", WORKLOADS)
    instruments = kit(run)
    say(f"{platform.platform()}, {os.cpu_count()} cores; mock and clients in {instruments.name}")
    say("; ".join(f"{one.name} {one.version}" for one in programs.values() if one.version))
    records: list[Record] = []
    file = run / time.strftime("results-%Y%m%d-%H%M%S.jsonl")
    with bench(instruments, run, float(os.environ.get("SCALE", "1"))) as one, file.open("w") as lines:
        for turn in range(1, rounds + 1):
            for program in turned(programs, turn):
                record = one.measure(program, turn, workloads)
                records.append(record)
                lines.write(json.dumps(record.line()) + "\n")
                lines.flush()
                say(f"round {turn}/{rounds} {told(record)}")
    say(f"records: {file.relative_to(ROOT)}")
    return records


def told(record: Record) -> str:
    """A record in one line."""
    figures = [
        f"{name} {shown(getattr(sample, WORKLOADS[name].figure))}" for name, sample in record.samples.items()
    ]
    return f"{record.target}: {record.failed or ', '.join(figures)}"


def main() -> int:
    """The program; gives its exit status."""
    records = measured(prepared(), int(os.environ.get("ROUNDS", "3")))
    judge(records, WORKLOADS)
    book = Book(records, chosen("WORKLOADS", WORKLOADS))
    say("\n" + report(book))
    missed = [goal for goal in goals(book) if goal.state in {MISSED, INVALID}]
    faults = any(record.failed for record in records) or any(book.bad(name) for name in book.targets)
    return 1 if missed or faults else 0


if __name__ == "__main__":
    sys.exit(main())
