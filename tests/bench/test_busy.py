"""What must become of cards that work and of cards that are killed; and some of both."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.bench import process
from tests.bench.busy import Course, Times, busy


def course(**changes: object) -> Course:
    one = Course(generated=60.0, looks=600, kills={"idle": Times([0.3, 0.5], [0.9, 1.1])})
    for name, value in changes.items():
        setattr(one, name, value)
    return one


def test_a_card_left_alone_and_one_quickly_out_and_back_are_no_faults() -> None:
    assert course().faults() == []
    figures = "\n".join(course().figures())
    assert "out at 0 of 600 looks, 0 ejections" in figures
    assert "out after 500.0 ms, the slowest 500.0 ms (promised: 1 s)" in figures
    assert "back after 1100.0 ms, the slowest 1100.0 ms (promised: 3 s)" in figures


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        pytest.param({"out": ["left was out while it worked"] * 9}, "left was out while it worked", id="out"),
        pytest.param({"ejections": 1.0}, "a card that worked was put out", id="ejected"),
        pytest.param({"unanswered": ["nobody answered"]}, "nobody answered", id="unanswered"),
        pytest.param({"kills": {"idle": Times([1.1], [1])}}, "killed while idle was not out", id="late-out"),
        pytest.param({"kills": {"idle": Times([0.1], [3.1])}}, "killed while idle, was not", id="late-back"),
    ],
)
def test_each_harm_is_named_once(changes: dict[str, object], fault: str) -> None:
    (found,) = course(**changes).faults()
    assert fault in found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
async def test_cards_that_work_and_cards_that_are_killed_are_measured(tmp_path: Path) -> None:
    before = set(process.family(os.getpid()))
    lines: list[str] = []
    found = await busy(1.0, 1, tmp_path, lines.append)
    assert len(lines) == 3
    assert found.generated == pytest.approx(1.0, abs=0.9)
    assert (found.out, found.ejections, found.unanswered) == ([], 0, [])
    assert found.kills.keys() == {"working", "idle"}
    assert all(len(times.out) == len(times.back) == 1 for times in found.kills.values())
    assert set(process.family(os.getpid())) <= before
