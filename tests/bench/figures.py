"""Medians, ranges, slopes, and how a number is shown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """The median of the rounds with the least and the most of them."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{shown(self.median)} [{shown(self.least)}..{shown(self.most)}]"


def spread(values: Sequence[float]) -> Spread | None:
    """Median and range; `None` where there is nothing."""
    return Spread(statistics.median(values), min(values), max(values)) if values else None


def differ(one: Spread, other: Spread) -> bool:
    """Whether two spreads are a finding: ranges that do not overlap, or medians more than a quarter apart."""
    apart = one.most < other.least or other.most < one.least
    low, high = sorted((one.median, other.median))
    return apart or high > 1.25 * low


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the sorted values lie below; 0 where there are none."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)] if values else 0.0


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Rise for each unit of x, by least squares; 0 where all x are equal."""
    if len({x for x, _ in points}) < 2:
        return 0.0
    return statistics.linear_regression([x for x, _ in points], [y for _, y in points]).slope


def shown(value: float | None, digits: int = 3) -> str:
    """A number with so many digits that count; `-` for none."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    magnitude = int(f"{abs(value):e}".split("e")[1])
    return f"{value:.{min(max(digits - 1 - magnitude, 0), 4)}f}"
