from __future__ import annotations

import pytest

from gateway.telemetry.metrics.counters import LARGEST, CounterTable, LengthHistogram, exported
from gateway.telemetry.metrics.families import BY_NAME

RETRIES = "gateway_retries_total"
LAG = "gateway_event_loop_lag_seconds"
OVERHEAD = "gateway_overhead_seconds"


def counted(counts: CounterTable) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for sample in counts.written().samples
        if sample.name.endswith("_total")
    }


def measured(lengths: LengthHistogram) -> dict[str, float]:
    return {
        sample.name.removeprefix(lengths.family.name) + sample.labels.get("le", ""): sample.value
        for sample in lengths.written().samples
    }


def test_a_counter_counts_each_series() -> None:
    counts = CounterTable(RETRIES)
    counts.add("m", "busy")
    counts.add("m", "busy")
    counts.cell(("m", "garbled")).value += 5
    assert counted(counts) == {("m", "busy"): 2, ("m", "garbled"): 5}


def test_a_series_that_is_made_stands_at_zero_and_keeps_what_it_has() -> None:
    counts = CounterTable(RETRIES)
    counts.add("m", "busy")
    counts.make([("m", "busy"), ("m", "garbled")])
    assert counted(counts) == {("m", "busy"): 1, ("m", "garbled"): 0}


def test_a_cell_is_the_series_itself() -> None:
    counts = CounterTable(RETRIES)
    assert counts.cell(("m", "busy")) is counts.cell(("m", "busy"))


def test_a_histogram_has_its_buckets_added_up_and_its_sum() -> None:
    lengths = LengthHistogram(OVERHEAD)
    bounds = BY_NAME[OVERHEAD].buckets
    row = lengths.row(("chat",))
    row.observe(bounds[0])  # a value equal to a bound belongs to that bucket
    row.observe(bounds[1], times=2)
    row.observe(bounds[-1] + 1)
    told = measured(lengths)
    assert told[f"_bucket{float(bounds[0])}"] == 1
    assert told[f"_bucket{float(bounds[1])}"] == 3
    assert told[f"_bucket{float(bounds[-1])}"] == 3
    assert told["_bucket+Inf"] == told["_count"] == 4
    assert told["_sum"] == pytest.approx(bounds[0] + 2 * bounds[1] + bounds[-1] + 1)


def test_a_family_without_labels_is_there_from_the_start() -> None:
    assert measured(LengthHistogram(LAG))["_count"] == 0


NONSENSE = [10**400, -(10**400), float("inf"), float("-inf"), float("nan"), 10**5000]


@pytest.mark.parametrize("value", NONSENSE, ids=range(6))
def test_a_value_that_cannot_be_written_is_replaced_by_one_that_can(value: float) -> None:
    assert abs(float(exported(value))) in (0.0, LARGEST)


@pytest.mark.parametrize("value", NONSENSE, ids=range(6))
def test_no_value_of_a_series_keeps_families_from_being_written(value: float) -> None:
    counts, lengths = CounterTable(RETRIES), LengthHistogram(LAG)
    counts.cell(("m", "busy")).value = value
    lengths.row(()).total = value
    lengths.row(()).counts[0] = 10**400
    assert all(float(one) == one for one in [*counted(counts).values(), *measured(lengths).values()])
