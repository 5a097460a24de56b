"""The table of metric families follows the conventions of Prometheus and uses the agreed buckets."""

import dataclasses

import pytest

from gateway.telemetry.metrics.families import (
    BY_NAME,
    CHARACTERS,
    FAMILIES,
    LONG,
    PER_TOKEN,
    SHORT,
    Family,
    markdown_table,
)

EACH = [pytest.param(family, id=family.name) for family in FAMILIES]


@pytest.mark.parametrize("family", EACH)
def test_a_family_has_our_prefix_a_meaning_and_plain_labels(family: Family) -> None:
    assert family.name.startswith("gateway_")
    assert family.help.endswith(".")
    assert "|" not in family.help
    assert all(label.isidentifier() and label != "le" for label in family.labels)


@pytest.mark.parametrize("family", EACH)
def test_counters_alone_end_in_total_and_histograms_alone_have_buckets_and_a_unit(family: Family) -> None:
    assert family.name.endswith("_total") == (family.kind == "counter")
    length = family.name.endswith(("_seconds", "_characters"))
    length = length and not family.name.endswith("_timestamp_seconds")
    assert bool(family.buckets) == length == (family.kind == "histogram")


def test_names_are_unique() -> None:
    assert len(BY_NAME) == len(FAMILIES)


def test_buckets_reach_to_ten_minutes_and_beyond() -> None:
    assert LONG == (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
    assert PER_TOKEN == (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 10)
    assert tuple(sorted(SHORT)) == SHORT
    assert tuple(sorted(CHARACTERS)) == CHARACTERS


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        FAMILIES[0].name = "other"  # type: ignore[misc]  # this assignment must fail


def test_the_markdown_table_has_a_row_for_every_family() -> None:
    head, rule, *rows = markdown_table().splitlines()
    assert head.count("|") == rule.count("|") == 5
    assert [row.split("`")[1] for row in rows] == [family.name for family in FAMILIES]
    labels = "`model`, `reason`"
    assert (
        f"| `gateway_queue_rejected_total` | counter | {labels} | Waiting requests that were refused. |"
        in rows
    )
    assert any("| none |" in row for row in rows)
