"""What a soak calls flat; and a small one, through a real gateway in a process of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.bench import process
from tests.bench.bench import bench
from tests.bench.kit import OWN
from tests.bench.soak import Course, Plan, Point, soak
from tests.bench.target import targets

SMALL = Plan(answers=300, events=3000, slice=0.4, limit=30)


def course(
    *, rise: float = 0.0, files: tuple[int, int] = (40, 40), threads: tuple[int, int] = (5, 5)
) -> Course:
    """20 slices of 10,000 answers; after a steep first quarter memory rises by so many MiB for 100,000."""
    points = []
    for number in range(1, 21):
        answers = number * 10_000
        mib = 50 + 40 * min(answers / 50_000, 1) + rise * answers / 100_000
        late = number > 12
        points.append(Point(answers, 0, mib, files[late], threads[late]))
    return Course(points, complete=True)


def test_what_a_gateway_takes_to_warm_up_is_no_leak() -> None:
    assert course().rise == pytest.approx(0, abs=1e-6)
    assert course().faults() == []


def test_a_rise_is_told_in_mb_for_each_100_000_answers() -> None:
    assert course(rise=4.0).rise == pytest.approx(4.0 * 1.048576)
    assert course(rise=4.0).faults() == []


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        pytest.param(course(rise=5.0), "memory rises by 5.2 MB for each 100,000 answers", id="memory-leaks"),
        pytest.param(course(files=(40, 90)), "files went from 40 to 90", id="sockets-leak"),
        pytest.param(course(threads=(5, 20)), "threads went from 5 to 20", id="threads-leak"),
    ],
)
def test_what_grows_is_named(found: Course, wrong: str) -> None:
    assert found.faults() == [wrong]


def test_bad_answers_a_gauge_and_an_early_end_are_faults() -> None:
    found = course()
    found.bad, found.complete, found.left = 3, False, ["gateway_queue_depth is 1.0"]
    assert found.faults() == [
        "it was given up before the end",
        "3 bad answers",
        "gateway_queue_depth is 1.0 at the end",
    ]


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="reads memory from /proc")
def test_a_gateway_under_load_answers_well_and_keeps_nothing(tmp_path: Path) -> None:
    lines: list[str] = []
    before = set(process.family(os.getpid()))
    with bench(OWN, tmp_path) as one:
        found = soak(one, targets()["gateway"], SMALL, lines.append)
    assert found.complete
    assert (found.bad, found.left) == (0, [])
    assert sum(point.events > 0 for point in found.points) > 0
    assert len(lines) == len(found.points)
    assert set(process.family(os.getpid())) <= before
