"""What is said of hostile inputs; and all of them, for a moment each."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.bench.hostile import LIMIT, Row, hostile, inputs


def row(*seconds: float, **statuses: int) -> Row:
    found = Counter({int(status.removeprefix("s")): count for status, count in statuses.items()})
    return Row("x", 0.0, 1.0, found, list(seconds))


def test_one_of_a_thousand_may_wait() -> None:
    assert list(row(*[0.001] * 1999, 0.1, s400=3).faults()) == []
    assert list(row(*[0.001] * 98, LIMIT * 2, LIMIT * 2).faults()) == ["x: others waited 50.0 ms"]


def test_an_input_must_be_answered_and_never_with_a_500() -> None:
    assert list(row(0.001, s200=1, s500=1, s0=2).faults()) == ["x: answered with [0, 500]"]


async def test_every_hostile_input_is_answered_while_others_are_served(tmp_path: Path) -> None:
    lines: list[str] = []
    rows = await hostile(inputs(), 0.01, tmp_path, lines.append)
    assert len(lines) == len(rows) == len(inputs())
    assert [fault for one in rows for fault in one.faults() if "others" not in fault] == []
    assert {status for one in rows for status in one.statuses} == {200, 400}
    assert all(one.statuses.total() for one in rows[1:])
