"""The share has the configured size, is the same for a conversation, and only adds requests when it grows."""

from __future__ import annotations

import subprocess
import sys
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.scheduling.traffic_split import chosen, point

NAMES = st.text(max_size=40)
SHARES = st.floats(0, 1)


@pytest.mark.parametrize(
    ("share", "where", "expected"),
    [
        pytest.param(0.0, 0.0, False, id="nothing-takes-nobody"),
        pytest.param(1.0, 1.0 - 2**-53, True, id="all-takes-everybody"),
        pytest.param(0.25, 0.2499, True, id="inside"),
        pytest.param(0.25, 0.25, False, id="the-edge-is-outside"),
        pytest.param(0.25, 0.9, False, id="outside"),
    ],
)
def test_a_point_is_in_a_share_if_it_lies_below_it(share: float, where: float, expected: bool) -> None:
    assert chosen(share, where) is expected


@given(st.lists(NAMES, max_size=4))
def test_every_point_is_from_0_up_to_1_and_always_the_same(names: list[str]) -> None:
    assert 0 <= point(*names) < 1
    assert point(*names) == point(*names)


@given(st.lists(NAMES, max_size=4), SHARES, SHARES)
def test_a_larger_share_keeps_everybody_who_was_in_the_smaller(
    names: list[str], one: float, other: float
) -> None:
    small, large = sorted((one, other))
    assert not chosen(small, point(*names)) or chosen(large, point(*names))


@given(SHARES, st.text(max_size=20))
def test_of_many_sessions_the_share_is_chosen(share: float, canary: str) -> None:
    many = 4000
    taken = sum(chosen(share, point(canary, f"session-{number}")) for number in range(many))
    # Five standard deviations: by chance one share in two million would be outside.
    assert abs(taken / many - share) <= 5 * sqrt(share * (1 - share) / many) + 1 / many


def test_two_canaries_take_different_sessions() -> None:
    sessions = [f"session-{number}" for number in range(4000)]
    first, second = ({one for one in sessions if chosen(0.1, point(canary, one))} for canary in ("a", "b"))
    assert 10 <= len(first & second) <= 90  # 40 if the two were independent


def test_names_do_not_run_into_one_another() -> None:
    assert point("ab", "c") != point("a", "bc")
    assert point("ab") != point("ab", "")


def test_odd_names_have_points_too() -> None:
    assert 0 <= point("\ud800", "\x00") < 1


def test_another_process_finds_the_same_point() -> None:
    program = "from gateway.scheduling.traffic_split import point; print(repr(point('new', 'alice')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) == point("new", "alice")
