"""Counters and histograms in plain Python, converted to Prometheus' types at scrape time.

Code that counts often keeps the `CounterCell` or `CounterRow` of its series, which avoids looking up the
labels for each event.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric

from gateway.telemetry.metrics.families import BY_NAME

Labels = tuple[str, ...]
"""The label values of one series, in the order of the table of families."""


LARGEST = sys.float_info.max


def exported(value: float) -> float:
    """Return a value that Prometheus' client can write.

    NaN becomes 0. A value outside the range of finite floats becomes the nearest limit.
    """
    if value != value:
        return 0.0
    return max(-LARGEST, min(LARGEST, value))


class CounterCell:
    """One series of a counter."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0


class CounterTable:
    """A family of counters: its series by label values."""

    def __init__(self, name: str) -> None:
        self.family = BY_NAME[name]
        self._cells: dict[Labels, CounterCell] = {}
        if not self.family.labels:
            self.cell(())

    def cell(self, labels: Labels) -> CounterCell:
        """Return the series with these label values; create it if necessary."""
        cell = self._cells.get(labels)
        if cell is None:
            cell = self._cells[labels] = CounterCell()
        return cell

    def add(self, *labels: str) -> None:
        """Add 1 to the series with these label values."""
        self.cell(labels).value += 1

    def make(self, series: Iterable[Labels]) -> None:
        """Create these series with the value 0 if they do not exist."""
        for labels in series:
            self.cell(labels)

    def written(self) -> Metric:
        """Return the family for a scrape. May run in a thread while series are counted and added."""
        family = self.family
        written = CounterMetricFamily(family.name, family.help, labels=family.labels)
        for labels, cell in list(self._cells.items()):
            written.add_metric(labels, exported(cell.value))
        return written


class CounterRow:
    """One series of a histogram: the number of values in each bucket, and their sum."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, length: float, times: int = 1) -> None:
        """Count a value in the unit of the family, `times` times."""
        self.counts[bisect_left(self._bounds, length)] += times
        self.total += length * times


class LengthHistogram:
    """A family of histograms: its series by label values."""

    def __init__(self, name: str) -> None:
        self.family = BY_NAME[name]
        self._names = [*(str(float(bound)) for bound in self.family.buckets), "+Inf"]
        self._rows: dict[Labels, CounterRow] = {}
        if not self.family.labels:
            self.row(())

    def row(self, labels: Labels) -> CounterRow:
        """Return the series with these label values; create it if necessary."""
        row = self._rows.get(labels)
        if row is None:
            row = self._rows[labels] = CounterRow(self.family.buckets)
        return row

    def written(self) -> Metric:
        """Return the family for a scrape. May run in a thread while series are counted and added."""
        family = self.family
        written = HistogramMetricFamily(family.name, family.help, labels=family.labels)
        for labels, row in list(self._rows.items()):
            buckets = list(zip(self._names, map(exported, accumulate(row.counts)), strict=True))
            written.add_metric(labels, buckets, exported(row.total))
        return written
