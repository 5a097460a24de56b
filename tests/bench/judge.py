"""Whether a stream's figure counts: a proxy that holds events back is cheap, and of no use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tests.bench.record import Record, Sample
from tests.bench.workload import Workload

MOST_EVENTS_A_READ = 1.15
LATEST_FIRST = 10_000
"""Microseconds that the first event may come after nginx's; more in proportion above 100 streams."""
HELD = "events held back"
LATE = "late first event"


def judge(records: Iterable[Record], workloads: Mapping[str, Workload]) -> None:
    """Write `invalid` into every sample of a paced stream, beside nginx (else no proxy) of the same round."""
    rounds: dict[int, dict[str, Record]] = {}
    for record in records:
        rounds.setdefault(record.round, {})[record.target] = record
    for targets in rounds.values():
        for record in targets.values():
            for name, sample in record.samples.items():
                if workloads[name].stream and workloads[name].gap_us:
                    sample.invalid = verdict(sample, _reference(targets, name), workloads[name].clients)


def verdict(sample: Sample, reference: Sample | None, clients: int) -> str:
    """Why the figure does not count; empty where it does."""
    why = [HELD] if not 0 < sample.events_a_read <= MOST_EVENTS_A_READ else []
    allowed = LATEST_FIRST * max(1.0, clients / 100)
    if reference is not None and sample.first_p50 - reference.first_p50 > allowed:
        why.append(LATE)
    return ", ".join(why)


def _reference(targets: Mapping[str, Record], workload: str) -> Sample | None:
    for name in ("nginx", "direct"):
        if name in targets and workload in targets[name].samples:
            return targets[name].samples[workload]
    return None
