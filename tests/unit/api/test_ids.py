"""Ids are unique within a process and beyond, and tell nothing."""

from __future__ import annotations

import re

from gateway.api.ids import IdGenerator


def test_an_id_is_its_prefix_and_24_hexadecimal_digits() -> None:
    assert re.fullmatch("req_[0-9a-f]{24}", IdGenerator()("req_"))


def test_no_id_is_made_twice() -> None:
    ids = IdGenerator()
    assert len({ids("") for _ in range(10_000)}) == 10_000


def test_another_process_makes_other_ids() -> None:
    first, second = IdGenerator(), IdGenerator()
    assert {first("") for _ in range(1000)}.isdisjoint(second("") for _ in range(1000))


def test_the_next_id_does_not_follow_from_the_last_by_counting() -> None:
    ids = IdGenerator()
    first, second = (int(ids("")[8:], 16) for _ in range(2))
    assert abs(second - first) > 1
