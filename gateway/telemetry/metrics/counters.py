"""What was counted, in plain numbers of our own that become Prometheus' when somebody scrapes.

Whoever counts often keeps the cell or row of its series and adds to that: no label is looked up then.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric

from gateway.telemetry.metrics.families import BY_NAME

Labels = tuple[str, ...]
"""The labels of one series, in the order of the table of families."""


LARGEST = sys.float_info.max


def exported(value: float) -> float:
    """A value as Prometheus' client can write it: what is no number is 0, what is too large the largest."""
    if value != value:
        return 0.0
    return max(-LARGEST, min(LARGEST, value))


class CounterCell:
    """One series of a counter."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0


class CounterTable:
    """A family of counters: its series by their labels."""

    def __init__(self, name: str) -> None:
        self.family = BY_NAME[name]
        self._cells: dict[Labels, CounterCell] = {}
        if not self.family.labels:
            self.cell(())

    def cell(self, labels: Labels) -> CounterCell:
        """The series of these labels, made now if it is new."""
        cell = self._cells.get(labels)
        if cell is None:
            cell = self._cells[labels] = CounterCell()
        return cell

    def add(self, *labels: str) -> None:
        """Count one."""
        self.cell(labels).value += 1

    def make(self, series: Iterable[Labels]) -> None:
        """Make these series now, with the value 0 where they are new."""
        for labels in series:
            self.cell(labels)

    def written(self) -> Metric:
        """The family as a scrape shows it; also in a thread, while series are counted and added."""
        family = self.family
        written = CounterMetricFamily(family.name, family.help, labels=family.labels)
        for labels, cell in list(self._cells.items()):
            written.add_metric(labels, exported(cell.value))
        return written


class CounterRow:
    """One series of a histogram: how many lengths fell into each bucket, and their sum."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, length: float, times: int = 1) -> None:
        """Count a length, in the family's unit, once or several times."""
        self.counts[bisect_left(self._bounds, length)] += times
        self.total += length * times


class LengthHistogram:
    """A family of histograms: its series by their labels."""

    def __init__(self, name: str) -> None:
        self.family = BY_NAME[name]
        self._names = [*(str(float(bound)) for bound in self.family.buckets), "+Inf"]
        self._rows: dict[Labels, CounterRow] = {}
        if not self.family.labels:
            self.row(())

    def row(self, labels: Labels) -> CounterRow:
        """The series of these labels, made now if it is new."""
        row = self._rows.get(labels)
        if row is None:
            row = self._rows[labels] = CounterRow(self.family.buckets)
        return row

    def written(self) -> Metric:
        """The family as a scrape shows it; also in a thread, while series are counted and added."""
        family = self.family
        written = HistogramMetricFamily(family.name, family.help, labels=family.labels)
        for labels, row in list(self._rows.items()):
            buckets = list(zip(self._names, map(exported, accumulate(row.counts)), strict=True))
            written.add_metric(labels, buckets, exported(row.total))
        return written
