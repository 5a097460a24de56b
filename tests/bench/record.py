"""What was measured: one `Sample` a workload, one `Record` a target and round."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Sample:
    """One workload on one target. Times in microseconds.

    `bad` are broken answers, statuses but 200 and streams with events missing; `invalid` says why the figure
    does not count, or is empty.
    """

    done: int = 0
    events: int = 0
    reads: int = 0
    cpu: float = 0.0
    latency_p50: float = 0.0
    latency_p99: float = 0.0
    first_p50: float = 0.0
    bad: int = 0
    invalid: str = ""

    @property
    def us_request(self) -> float | None:
        """CPU for each answer."""
        return self.cpu / self.done * 1e6 if self.done else None

    @property
    def us_event(self) -> float | None:
        """CPU for each event."""
        return self.cpu / self.events * 1e6 if self.events else None

    @property
    def events_a_read(self) -> float:
        """Events that the client got with one read; above 1 they were held back."""
        return self.events / self.reads if self.reads else 0.0


def sample_of(report: dict[str, Any], cpu: float) -> Sample:
    """What the load client printed, with the CPU seconds that the target used meanwhile."""
    done = int(report.get("done", 0))
    bad = sum(int(report.get(name, 0)) for name in ("errs", "badstatus", "short"))
    return Sample(
        done=done,
        events=int(report.get("events", 0)),
        reads=int(report.get("reads", 0)),
        cpu=cpu,
        latency_p50=float(report.get("lat_p50", 0)),
        latency_p99=float(report.get("lat_p99", 0)),
        first_p50=float(report.get("ttfb_p50", 0)),
        bad=bad if done else max(bad, 1),
    )


@dataclass
class Record:
    """One target in one round. `failed` says why there is nothing else. PSS in MiB."""

    target: str
    round: int
    version: str = ""
    failed: str = ""
    pss_idle: float = 0.0
    pss_after: float = 0.0
    load_average: float = 0.0
    samples: dict[str, Sample] = field(default_factory=dict)

    def line(self) -> dict[str, Any]:
        """Itself as JSON."""
        return asdict(self)
