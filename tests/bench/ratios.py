"""What one target costs beside another: one figure a round in which both were measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from tests.bench.judge import HELD
from tests.bench.record import Record, Sample
from tests.bench.workload import Workload

INVALID = "INVALID"
MISSED = "MISSED"


class Book:
    """All records of a run, by round and target."""

    def __init__(self, records: Iterable[Record], workloads: Mapping[str, Workload]) -> None:
        self.workloads = dict(workloads)
        self.rounds: dict[int, dict[str, Record]] = {}
        for record in records:
            self.rounds.setdefault(record.round, {})[record.target] = record

    @property
    def targets(self) -> list[str]:
        """The names, in the order in which they were first measured."""
        return list(dict.fromkeys(name for targets in self.rounds.values() for name in targets))

    def records(self, target: str) -> list[Record]:
        """The target's rounds."""
        return [targets[target] for targets in self.rounds.values() if target in targets]

    def samples(self, target: str, workload: str) -> list[Sample]:
        """What the target did in that workload, one a round."""
        return [record.samples[workload] for record in self.records(target) if workload in record.samples]

    def figures(self, target: str, workload: str) -> list[float]:
        """The CPU figures that count."""
        key = self.workloads[workload].figure
        values = [getattr(one, key) for one in self.samples(target, workload) if not one.invalid]
        return [value for value in values if value is not None]

    def is_invalid(self, target: str, workload: str) -> bool:
        """Whether most rounds do not count."""
        samples = self.samples(target, workload)
        return 2 * sum(bool(one.invalid) for one in samples) > len(samples)

    def bad(self, target: str) -> int:
        """Faults in all rounds and workloads."""
        return sum(one.bad for record in self.records(target) for one in record.samples.values())

    def ratios(self, target: str, anchor: str, workload: str) -> list[float]:
        """CPU of the target over the anchor's.

        An anchor that cannot do native work is held against with its plain requests of as many clients. As an
        anchor a stream is struck out only where events were held back: to be late makes it no cheaper.
        """
        return self.between((target, workload), (anchor, self._in_place_of(workload, anchor)))

    def between(self, one: tuple[str, str], other: tuple[str, str]) -> list[float]:
        """CPU of one (target, workload) over another's, in each round that has both."""
        found = []
        for targets in self.rounds.values():
            mine, yours = _sample(targets, one), _sample(targets, other)
            if mine is None or yours is None or mine.invalid or HELD in yours.invalid:
                continue
            above = getattr(mine, self.workloads[one[1]].figure)
            below = getattr(yours, self.workloads[other[1]].figure)
            if above and below:
                found.append(above / below)
        return found

    def added(self, target: str, workload: str, key: str) -> list[float]:
        """Latency over no proxy at all, in microseconds."""
        pairs = [
            (_sample(targets, (target, workload)), _sample(targets, ("direct", workload)))
            for targets in self.rounds.values()
        ]
        return [getattr(mine, key) - getattr(bare, key) for mine, bare in pairs if mine and bare]

    def _in_place_of(self, workload: str, anchor: str) -> str:
        asked = self.workloads[workload]
        if not asked.native or self.samples(anchor, workload):
            return workload
        plain = f"c{asked.clients}"
        return plain if plain in self.workloads else workload


@dataclass(frozen=True)
class Goal:
    """One promise: what may be at most `must`, and would better be at most `aim`.

    `values` has one figure a round that counts; `invalid`: most rounds do not.
    """

    what: str
    must: float
    aim: float
    values: tuple[float, ...]
    invalid: bool = False

    @property
    def state(self) -> str:
        """`aim`, `must`, `MISSED`, `INVALID`, or `not measured`."""
        if self.invalid:
            return INVALID
        if not self.values:
            return "not measured"
        median = statistics.median(self.values)
        return "aim" if median <= self.aim else "must" if median <= self.must else MISSED


def goals(book: Book, gateway: str = "gateway") -> list[Goal]:
    """What the gateway must hold, with what was measured."""

    def to(anchor: str, workload: str) -> tuple[float, ...]:
        return _known(book, workload, lambda: book.ratios(gateway, anchor, workload))

    def own(workload: str, other: str) -> tuple[float, ...]:
        return _known(book, workload, lambda: book.between((gateway, workload), (gateway, other)), other)

    added = _known(
        book, "r100", lambda: [value / 1000 for value in book.added(gateway, "r100", "latency_p50")]
    )
    late = book.is_invalid(gateway, "s100")
    memory = tuple(record.pss_idle for record in book.records(gateway) if not record.failed)
    return [
        Goal("request, 32 clients / vllm-router", 1.4, 0.9, to("vllm-router", "c32")),
        Goal("request, 32 clients / SMG", 0.65, 0.42, to("smg", "c32")),
        Goal("request, 32 clients / nginx", 6, 4, to("nginx", "c32")),
        Goal("event, 100 streams / vllm-router", 1.5, 1.1, to("vllm-router", "s100"), late),
        Goal("event, 100 streams / nginx", 2.8, 1.8, to("nginx", "s100"), late),
        Goal("translated / passed request, 32 clients", 1.3, 1.1, own("native_c32", "c32")),
        Goal("request, 256 clients / 32 clients", 1.5, 1.2, own("c256", "c32")),
        Goal("request of 32 KB / nginx", 9, 5, to("nginx", "p32k")),
        Goal("memory idle, PSS in MiB", 60, 45, memory),
        Goal("added latency at 100 requests/s, p50 in ms", 1.0, 0.5, added),
    ]


def _known(
    book: Book, workload: str, values: Callable[[], list[float]], other: str | None = None
) -> tuple[float, ...]:
    """The values, or none where a workload was not run."""
    return tuple(values()) if {workload, other or workload} <= set(book.workloads) else ()


def _sample(targets: Mapping[str, Record], key: tuple[str, str]) -> Sample | None:
    target, workload = key
    return targets[target].samples.get(workload) if target in targets else None
